//! Putting live events before people or programs: a moving picture on a terminal, plain lines in a pipe, JSON on request.

use crate::{
    board::{Board, Line, Tone},
    words::{self, duration, one_line, tokens},
};
use adj_domain::{Event, SessionId, Timestamp};
use adj_engine::Live;
use adj_gateway::{Delta, WaitsFor};
use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    time::Duration,
};
use tokio::sync::{
    broadcast::{Receiver, error::RecvError},
    mpsc, oneshot,
};
use tokio_util::sync::CancellationToken;

/// Shorter waits for a turn are not worth a line.
const WORTH_A_WORD: Duration = Duration::from_secs(1);

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// One JSON object a line on standard output.
    Json,
    /// Lines, or a moving picture where standard error is a terminal.
    People,
}

/// Asks the screen to stand still, while somebody else writes on the terminal.
#[derive(Debug, Clone)]
pub struct Holding(mpsc::Sender<Hold>);

#[derive(Debug)]
pub struct Hold {
    /// Sent once the picture is gone.
    standing: oneshot::Sender<()>,
    until: oneshot::Receiver<()>,
}

/// The screen stands still until this is dropped.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "its end is what counts")] oneshot::Sender<()>);

/// A way to hold the screen, and its other end.
pub fn holding() -> (Holding, mpsc::Receiver<Hold>) {
    let (sender, receiver) = mpsc::channel(1);
    (Holding(sender), receiver)
}

impl Holding {
    pub async fn hold(&self) -> Held {
        let (standing, stands) = oneshot::channel();
        let (end, until) = oneshot::channel();
        // Without a screen there is nothing to wait for.
        if self.0.send(Hold { standing, until }).await.is_ok() {
            let _ = stands.await;
        }
        Held(end)
    }
}

/// Shows events until told to stop; then everything that was sent before has been shown.
pub async fn show(mut live: Receiver<Live>, how: Show, mut holds: mpsc::Receiver<Hold>, stop: CancellationToken) {
    let mut screen = Screen::new(how);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            received = live.recv() => match received {
                Ok(Live::Committed(event)) => screen.event(&event),
                Ok(Live::Delta { session, delta }) => screen.delta(&session, &delta),
                Err(RecvError::Lagged(missed)) => screen.missed(missed),
                Err(RecvError::Closed) => break,
            },
            () = stop.cancelled() => break,
            Some(hold) = holds.recv() => {
                screen.clear();
                // Who asked may be gone already.
                let _ = hold.standing.send(());
                tokio::select! {
                    _ = hold.until => {}
                    () = stop.cancelled() => break,
                }
            }
            _ = tick.tick() => screen.redraw(),
        }
    }
    screen.finish();
}

/// Longest text of one line of progress.
const LONGEST: usize = 400;

struct Screen {
    how: Show,
    board: Board,
    picture: Option<Picture>,
}

/// The moving part at the lower end of a terminal.
struct Picture {
    all: MultiProgress,
    agents: BTreeMap<SessionId, ProgressBar>,
    total: ProgressBar,
    started: std::time::Instant,
}

impl Screen {
    fn new(how: Show) -> Self {
        let moving = how == Show::People && std::io::stderr().is_terminal();
        Self { how, board: Board::default(), picture: moving.then(Picture::new) }
    }

    fn event(&mut self, event: &Event) {
        let lines = self.board.apply(event);
        if self.how == Show::Json {
            let json = serde_json::to_string(event).expect("an event is plain data");
            // A reader that went away does not stop the work; the trace has it all.
            let _ = writeln!(std::io::stdout(), "{json}");
            return;
        }
        for line in lines {
            self.line(&line);
        }
    }

    fn delta(&self, session: &SessionId, delta: &Delta) {
        if self.how != Show::People {
            return;
        }
        let long = |wait: &Duration| duration(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let text = match delta {
            Delta::Retrying { next_attempt, wait, message, .. } => {
                format!("attempt {next_attempt} in {}: {}", long(wait), one_line(message, 120))
            }
            Delta::Waiting { because, wait } if wait.is_none_or(|wait| wait >= WORTH_A_WORD) => {
                let why = match because {
                    WaitsFor::Limit => "the vendor's limit is reached",
                    WaitsFor::Concurrency => "enough requests are under way",
                    WaitsFor::Rate => "the minute's requests or tokens are used up",
                    WaitsFor::Turn => "others are before it",
                };
                wait.as_ref().map_or_else(|| format!("waits: {why}"), |wait| format!("waits {}: {why}", long(wait)))
            }
            _ => return,
        };
        self.line(&Line { who: self.board.name(session).to_owned(), text, tone: Tone::Quiet });
    }

    fn line(&self, line: &Line) {
        let style = match line.tone {
            Tone::Plain => Style::new(),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Bad => AnsiColor::Red.on_default(),
            Tone::Quiet => Style::new().dimmed(),
        };
        let mark = match line.tone {
            Tone::Good => "✓",
            Tone::Bad => "✗",
            Tone::Plain => "·",
            Tone::Quiet => " ",
        };
        let who = one_line(&line.who, 20);
        let text = format!("{style}{mark} {who:<12} {}{style:#}", one_line(&line.text, LONGEST));
        match &self.picture {
            Some(picture) => {
                let text = if colors() { text } else { anstream::adapter::strip_str(&text).to_string() };
                let _ = picture.all.println(text);
            }
            None => {
                let _ = writeln!(anstream::stderr(), "{text}");
            }
        }
    }

    fn missed(&self, events: u64) {
        self.line(&Line {
            who: "screen".to_owned(),
            text: format!("{events} events were not shown; the trace has them"),
            tone: Tone::Quiet,
        });
    }

    fn redraw(&mut self) {
        let Some(picture) = &mut self.picture else { return };
        picture.agents.retain(|id, bar| {
            let stays = self.board.working.contains_key(id);
            if !stays {
                bar.finish_and_clear();
            }
            stays
        });
        let now = Timestamp::now();
        for (id, working) in &self.board.working {
            let bar = picture.agents.entry(id.clone()).or_insert_with(|| {
                let bar = ProgressBar::new_spinner().with_style(agent_style());
                picture.all.insert_before(&picture.total, bar)
            });
            let elapsed = u64::try_from(now.as_millisecond() - working.since.as_millisecond()).unwrap_or(0);
            bar.set_message(format!(
                "{:<12} {:>8} {:>7} tok  {}",
                one_line(&working.name, 12),
                duration(elapsed),
                tokens(working.usage.total_tokens()),
                one_line(&working.doing, 60),
            ));
            bar.tick();
        }
        picture.total.set_message(format!(
            "{} at work · {} · {} tokens{}",
            self.board.working.len(),
            duration(picture.started.elapsed().as_millis() as u64 / 1000 * 1000),
            tokens(self.board.usage.total_tokens()),
            words::costs(&self.board.costs),
        ));
        picture.total.tick();
    }

    fn clear(&self) {
        if let Some(picture) = &self.picture {
            let _ = picture.all.clear();
        }
    }

    fn finish(&mut self) {
        if let Some(picture) = &self.picture {
            for bar in picture.agents.values() {
                bar.finish_and_clear();
            }
            picture.total.finish_and_clear();
        }
    }
}

impl Picture {
    fn new() -> Self {
        let all = MultiProgress::new();
        let total = all.add(ProgressBar::new_spinner().with_style(total_style()));
        Self { all, agents: BTreeMap::new(), total, started: std::time::Instant::now() }
    }
}

fn agent_style() -> ProgressStyle {
    let template = if colors() { "{spinner:.cyan} {wide_msg}" } else { "{spinner} {wide_msg}" };
    ProgressStyle::with_template(template).expect("the template is ours")
}

fn total_style() -> ProgressStyle {
    let template = if colors() { "  {wide_msg:.dim}" } else { "  {wide_msg}" };
    ProgressStyle::with_template(template).expect("the template is ours")
}

fn colors() -> bool {
    anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never
}
