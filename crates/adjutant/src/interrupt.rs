//! Ctrl+C: once asks everybody to finish their step, twice stops at once.

use crate::failure::Code;
use adj_engine::{Engine, Interrupt};
use std::{io::Write, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

/// How long a stop at once may take to end the sandboxes.
const STOP: Duration = Duration::from_secs(3);

/// Listens for the rest of the process's life.
pub fn listen(engine: &Engine, interrupt: &Interrupt) -> std::io::Result<()> {
    let (engine, interrupt) = (engine.clone(), interrupt.clone());
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminates = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminates.recv() => {}
            }
            if interrupt.is_asked() {
                let _ = tokio::time::timeout(STOP, engine.close_all()).await;
                std::process::exit(Code::Interrupted as i32);
            }
            interrupt.ask();
            let _ =
                writeln!(std::io::stderr(), "Stopping after the step under way. Press Ctrl+C again to stop at once");
        }
    });
    Ok(())
}
