//! What stands beside work in the foreground: the screen, Ctrl+C, and whoever sits at the terminal and is asked.
//!
//! Must not know: what the work is.

use crate::{
    asker, confinement,
    failure::Result,
    interrupt, questions,
    screen::{self, Show},
};
use adj_domain::SessionId;
use adj_engine::{Engine, Interrupt};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Begun before the work, and ended after it.
pub struct Foreground {
    pub interrupt: Interrupt,
    stop: CancellationToken,
    shown: JoinHandle<()>,
    asks: Option<JoinHandle<()>>,
}

/// Whether somebody sits there who can be asked. Whoever reads events as JSON reads no questions.
pub fn has_people(is_json: bool) -> bool {
    confinement::has_terminal() && !is_json
}

impl Foreground {
    /// Begins to show, to listen and to ask. The sessions may have questions open from before.
    pub async fn begin(engine: &Engine, is_json: bool, sessions: impl IntoIterator<Item = &SessionId>) -> Result<Self> {
        let interrupt = Interrupt::new();
        interrupt::listen(engine, &interrupt)?;
        let stop = CancellationToken::new();
        let how = if is_json { Show::Json } else { Show::People };
        let (holding, holds) = screen::holding();
        let shown = tokio::spawn(screen::show(engine.subscribe(), how, holds, stop.clone()));
        let asks = if has_people(is_json) {
            // From before the first look: nothing that is asked meanwhile is missed.
            let live = engine.subscribe();
            let mut first = Vec::new();
            for session in sessions {
                first.extend(questions::of_session(engine.store().as_ref(), session, None).await?);
            }
            let asking = asker::ask(engine.clone(), live, first, holding, interrupt.clone(), stop.clone());
            Some(tokio::spawn(asking))
        } else {
            None
        };
        Ok(Self { interrupt, stop, shown, asks })
    }

    /// Whether questions are answered here, while the work waits.
    pub fn asks(&self) -> bool {
        self.asks.is_some()
    }

    /// Shows what was told before, and asks no more.
    pub async fn end(self) {
        self.stop.cancel();
        self.shown.await.expect("showing events does not panic");
        if let Some(asks) = self.asks {
            asks.await.expect("asking people does not panic");
        }
    }
}
