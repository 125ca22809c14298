//! The daemon's log: a line for each event, on standard error.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};

/// Longest line. What others said may stand in it.
const LONGEST: usize = 4000;

/// Begins to log what the variable ADJUTANT_LOG asks for. Once in a process.
pub fn begin() -> Result<(), String> {
    let wanted = std::env::var("ADJUTANT_LOG").unwrap_or_default();
    let wrong = || format!("ADJUTANT_LOG is {wanted:?}: error, warn, info, debug or trace is expected");
    let level = if wanted.is_empty() { LevelFilter::INFO } else { wanted.parse().map_err(|_| wrong())? };
    tracing::subscriber::set_global_default(Log { level }).map_err(|error| error.to_string())
}

struct Log {
    level: LevelFilter,
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    /// Spans are not told apart.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let at = adj_domain::Timestamp::now();
        let line = line(*event.metadata().level(), |visitor| event.record(visitor));
        // One write for each line, so that lines do not mix. When standard error is gone, there is nobody left to tell.
        let _ = std::io::stderr().write_all(format!("{} {line}\n", at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")).as_bytes());
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn line(level: Level, record: impl FnOnce(&mut dyn Visit)) -> String {
    let mut said = Said::default();
    record(&mut said);
    let text = format!("{level:<5} {}{}", said.message, said.others);
    crate::words::one_line(&text, LONGEST)
}

#[derive(Default)]
struct Said {
    message: String,
    others: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A string takes everything.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.others, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Keeps lines in place of writing them.
    struct Kept(&'static Mutex<Vec<String>>);

    impl Subscriber for Kept {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, event: &Event<'_>) {
            let line = line(*event.metadata().level(), |visitor| event.record(visitor));
            self.0.lock().expect("nobody panics with the lock").push(line);
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn an_event_is_one_line_whatever_others_wrote() {
        static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
        tracing::subscriber::with_default(Kept(&LINES), || {
            tracing::warn!(port = 7133, "cannot take {}", "a\nfake line\u{1b}[2J");
        });
        let lines = LINES.lock().expect("nobody panics with the lock");
        assert_eq!(*lines, ["WARN  cannot take a fake line [2J port=7133"]);
    }
}
