//! A few connections that only read, used from threads that may block.

use super::{
    open::{Access, connect},
    trouble::{Stop, classify},
};
use crate::error::StoreError;
use rusqlite::Connection;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Semaphore;

const CONNECTIONS: usize = 4;

#[derive(Clone)]
pub(crate) struct Readers {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    access: Access,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn new(path: PathBuf, access: Access) -> Self {
        Self {
            shared: Arc::new(Shared {
                path,
                access,
                idle: Mutex::default(),
                permits: Arc::new(Semaphore::new(CONNECTIONS)),
            }),
        }
    }

    /// Runs `work` on a connection of its own, in one consistent view of the database.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Stop<StoreError>> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let permit = Arc::clone(&shared.permits).acquire_owned().await;
        let outcome = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let idle = shared.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = match idle {
                Some(connection) => connection,
                None => connect(&shared.path, shared.access).map_err(|error| classify("open", &shared.path, error))?,
            };
            let outcome = in_transaction(&mut connection, work);
            // A connection that has failed once is not trusted with another question.
            if !matches!(outcome, Err(Stop::Failed(_))) {
                shared.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            }
            outcome.map_err(|stop| stop.into_error("read", &shared.path))
        });
        blocking(outcome.await, &self.shared.path)
    }

    /// Closes the connections that are not in use.
    pub(crate) fn close_idle(&self) {
        self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn in_transaction<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Connection) -> Result<T, Stop<StoreError>>,
) -> Result<T, Stop<StoreError>> {
    let transaction = connection.transaction()?;
    let value = work(&transaction)?;
    transaction.finish()?;
    Ok(value)
}

/// Unwraps the answer of a blocking thread; a panic there goes on here.
pub(crate) fn blocking<T>(
    joined: Result<Result<T, StoreError>, tokio::task::JoinError>,
    path: &std::path::Path,
) -> Result<T, StoreError> {
    match joined {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(StoreError::Stopped { path: path.to_path_buf(), cause: "the program is ending".to_owned() }),
    }
}
