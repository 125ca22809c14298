//! The daemon about itself: whether it is well, what it does, its end.

use crate::{
    reply::Reply,
    route::{Access, Call, Routes},
    seat::Holder,
    server::Gauges,
};
use adj_wire::ApiError;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// What the daemon says of itself.
#[derive(Debug)]
pub struct Admin {
    pub holder: Holder,
    /// The folder of all state.
    pub state: PathBuf,
    pub socket: PathBuf,
    /// `http://…`, one for each address.
    pub addresses: Vec<String>,
    /// How long requests under way may take when it stops.
    pub grace: Duration,
    pub gauges: Arc<Gauges>,
    pub stop: CancellationToken,
}

#[derive(Serialize)]
struct Status<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    holder: &'a Holder,
    state: &'a PathBuf,
    socket: &'a PathBuf,
    addresses: &'a [String],
    connections: u64,
    requests: u64,
    grace_seconds: u64,
    stopping: bool,
}

/// Nothing can be said about how to stop yet; what is said all the same is not ignored.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stop {}

pub fn routes(admin: Arc<Admin>) -> Routes {
    let (of_status, of_stop) = (Arc::clone(&admin), admin);
    Routes::new()
        .get("/healthz", Access::Anyone, |_| async { Ok(Reply::json(&serde_json::json!({"status": "ok"}))) })
        .get("/admin/status", Access::Admin, move |_| {
            let admin = Arc::clone(&of_status);
            async move { Ok(Reply::json(&admin.status())) }
        })
        .post("/admin/stop", Access::Admin, move |call| {
            let admin = Arc::clone(&of_stop);
            async move { admin.end(&call) }
        })
}

impl Admin {
    fn status(&self) -> Status<'_> {
        Status {
            kind: "daemon",
            holder: &self.holder,
            state: &self.state,
            socket: &self.socket,
            addresses: &self.addresses,
            connections: self.gauges.connections(),
            requests: self.gauges.requests(),
            grace_seconds: self.grace.as_secs(),
            stopping: self.stop.is_cancelled(),
        }
    }

    fn end(&self, call: &Call) -> Result<Reply, ApiError> {
        call.json::<Stop>()?;
        tracing::info!("asked to stop");
        self.stop.cancel();
        Ok(Reply::json(&self.status()).with_status(StatusCode::ACCEPTED))
    }
}
