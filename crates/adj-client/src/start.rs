//! A daemon where there is none: started apart from us, and waited for until it answers.

use crate::{
    client::{Client, ClientError},
    place::Place,
};
use rustix::fs::OFlags;
use std::{
    ffi::OsString,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

/// The log begins anew when it is longer than this.
const LONGEST_LOG: u64 = 4 * 1024 * 1024;
const BETWEEN: Duration = Duration::from_millis(10);
/// How much of the log an error tells.
const TOLD_LINES: usize = 12;
const TOLD_BYTES: u64 = 4096;

/// How a daemon is started.
#[derive(Debug, Clone)]
pub struct Start {
    pub program: PathBuf,
    /// It has to leave our session of the terminal by itself.
    pub arguments: Vec<OsString>,
    pub environment: Vec<(OsString, OsString)>,
    /// How long it may take until it answers.
    pub patience: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot start a daemon")]
    Spawn(#[source] io::Error),
    #[error("the daemon ended as it began ({status}); it said:\n  {}", told.replace('\n', "\n  "))]
    Ended { status: ExitStatus, told: String },
    #[error("the daemon does not answer within {} s; its log is {}", patience.as_secs_f64(), log.display())]
    Silent { patience: Duration, log: PathBuf },
}

impl Client {
    /// The way to the daemon of this place, which is started if there is none. Several may ask for that at once: one daemon wins, and
    /// all find it.
    pub async fn connect_or_start(place: &Place, start: &Start) -> Result<Self, StartError> {
        let client = Self::new(place);
        let deadline = Instant::now() + start.patience;
        let mut started: Option<Started> = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(BETWEEN);
            match client.clone().with_patience(left).get("/healthz").await {
                Ok(_) => {
                    if let Some(ours) = &mut started {
                        ours.give_way(place).await;
                    }
                    return Ok(client);
                }
                // One that begins, or ends.
                Err(ClientError::NoDaemon { .. } | ClientError::Broken { .. }) => {}
                Err(ClientError::Silent { .. }) => {
                    return Err(StartError::Silent { patience: start.patience, log: place.log() });
                }
                Err(error) => return Err(error.into()),
            }
            match &mut started {
                None if !place.is_held() => started = Some(Started::begin(place, start).map_err(StartError::Spawn)?),
                None => {}
                Some(ours) => {
                    // Ours gives way where another was faster, and then that one is waited for.
                    if let Some(status) = ours.child.try_wait().map_err(StartError::Spawn)?
                        && !place.is_held()
                    {
                        return Err(StartError::Ended { status, told: ours.told() });
                    }
                }
            }
            if Instant::now() >= deadline {
                return Err(StartError::Silent { patience: start.patience, log: place.log() });
            }
            sleep(BETWEEN).await;
        }
    }
}

/// The daemon that we started, and where its words begin in the log.
struct Started {
    child: Child,
    log: File,
    from: u64,
}

impl Started {
    fn begin(place: &Place, start: &Start) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(place.folder())?;
        let no_follow = OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600).custom_flags(no_follow);
        let log = options.open(place.log())?;
        if log.metadata()?.len() > LONGEST_LOG {
            log.set_len(0)?;
        }
        let from = log.metadata()?.len();
        let mut command = Command::new(&start.program);
        command.args(&start.arguments).envs(start.environment.iter().map(|(name, value)| (name, value)));
        // It keeps no folder of ours in use.
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.try_clone()?);
        Ok(Self { child: command.spawn()?, log, from })
    }

    /// Ends ours where another was faster. Left alone it would do so itself, or become the daemon after that one has gone.
    async fn give_way(&mut self, place: &Place) {
        let is_other = |pid| place.holder().is_some_and(|holder| holder.pid != pid);
        if self.child.id().is_some_and(is_other) {
            // One that has just ended needs none.
            let _ = self.child.kill().await;
        }
    }

    /// The end of what it said.
    fn told(&mut self) -> String {
        let mut bytes = Vec::new();
        let end = self.log.metadata().map_or(self.from, |meta| meta.len());
        let from = self.from.max(end.saturating_sub(TOLD_BYTES));
        let read = self.log.seek(SeekFrom::Start(from)).and_then(|_| self.log.read_to_end(&mut bytes));
        if read.is_err() || bytes.is_empty() {
            return "nothing".to_owned();
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TOLD_LINES)..].join("\n")
    }
}
