//! The daemon itself: takes the seat, opens the doors, and serves until somebody wants it to end.

use super::log;
use crate::{
    cli::{DEFAULT_PORT, Listen, ServeArgs},
    commands::raise_open_files,
    failure::{Code, Failure, Result},
    wiring,
};
use adj_gateway::CancellationToken;
use adj_server::{
    Bounds, Gauges, Holder, Parts, Seat, SeatError, Server, Tokens,
    admin::{self, Admin},
    listen::{self, Door, ListenError, PlainHttp, UnixDoor},
    models::{self, Models},
};
use std::{io, net::Ipv4Addr, path::Path, process::ExitCode, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

/// Files that are open beside the connections.
const OTHER_FILES: u64 = 200;

pub async fn serve(state: &Path, args: &ServeArgs, is_detached: bool) -> Result<ExitCode> {
    wiring::forbid_core_dumps()?;
    log::begin().map_err(Failure::usage)?;
    if is_detached {
        // The end of the terminal is not ours any more. Who leads a group of processes cannot leave, and is asked to by nobody.
        let _ = rustix::process::setsid();
    }
    let holder = Holder::of_this_process(env!("CARGO_PKG_VERSION"));
    let seat = Seat::take(&wiring::daemon_folder(state), holder.clone()).map_err(taken)?;
    let models = wiring::callable(state)?;
    let stop = CancellationToken::new();
    end_on_signals(stop.clone())?;
    let tcp = tcp(args).await?;
    let unix = UnixDoor::open(&seat).map_err(cannot_listen)?;
    let gauges = Arc::new(Gauges::default());
    let addresses: io::Result<Vec<String>> =
        tcp.iter().map(|door| Ok(format!("http://{}", door.local_addr()?))).collect();
    let admin = Admin {
        holder,
        state: state.to_owned(),
        socket: unix.path().to_owned(),
        addresses: addresses?,
        grace: Duration::from_secs(args.grace),
        gauges: Arc::clone(&gauges),
        stop: stop.clone(),
    };
    tracing::info!("listening on {} and {:?}", admin.socket.display(), admin.addresses);
    let models = Models { gateway: Arc::new(models.gateway), default: models.default };
    let server = Server::new(
        Parts {
            routes: admin::routes(Arc::new(admin)).and(models::routes(Arc::new(models))),
            tokens: Tokens::new(seat.folder()),
            hosts: args.host.iter().cloned().collect(),
            bounds: bounds(args, tcp.len() as u64 + 1),
            gauges,
        },
        stop,
    );
    let doors = tcp.into_iter().map(Door::Tcp).chain([Door::Unix(unix)]);
    server.serve(doors.collect()).await;
    tracing::info!("stopped");
    drop(seat);
    Ok(ExitCode::SUCCESS)
}

fn bounds(args: &ServeArgs, doors: u64) -> Bounds {
    let files = raise_open_files().unwrap_or(1024);
    let most = usize::try_from(files.saturating_sub(OTHER_FILES) / doors).unwrap_or(usize::MAX);
    let bounds = Bounds { grace: Duration::from_secs(args.grace), ..Bounds::default() };
    Bounds { connections: bounds.connections.min(most.max(16)), ..bounds }
}

async fn tcp(args: &ServeArgs) -> Result<Vec<TcpListener>> {
    let plain = if args.allow_plain_http { PlainHttp::Allowed } else { PlainHttp::LoopbackOnly };
    if args.listen.is_empty() {
        let address = (Ipv4Addr::LOCALHOST, DEFAULT_PORT).into();
        return match listen::tcp(address, plain).await {
            Ok(listener) => Ok(vec![listener]),
            Err(ListenError::Tcp { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => {
                tracing::warn!(
                    "port {DEFAULT_PORT} is taken, so there is only the Unix socket; --listen chooses another"
                );
                Ok(Vec::new())
            }
            Err(error) => Err(cannot_listen(error)),
        };
    }
    let mut listeners = Vec::new();
    for place in &args.listen {
        if let Listen::At(address) = place {
            listeners.push(listen::tcp(*address, plain).await.map_err(cannot_listen)?);
        }
    }
    Ok(listeners)
}

fn taken(error: SeatError) -> Failure {
    let hint = match &error {
        SeatError::Taken { .. } => Some("`adjutant daemon status` asks it how it is, `adjutant daemon stop` ends it"),
        SeatError::Folder(_) | SeatError::Io { .. } => None,
    };
    Failure { code: Code::Usage, error: error.into(), hint: hint.map(str::to_owned) }
}

fn cannot_listen(error: ListenError) -> Failure {
    let hint = match &error {
        ListenError::PlainHttp { .. } => {
            "let a proxy that speaks TLS pass requests on to the loopback, or accept the risk with --allow-plain-http"
        }
        ListenError::Tcp { .. } => "choose another address with --listen",
        ListenError::NotASocket { .. } => "move it away",
        ListenError::Unix { .. } => "another place for the state is chosen with ADJUTANT_HOME",
    };
    Failure { code: Code::Usage, error: error.into(), hint: Some(hint.to_owned()) }
}

/// The first signal lets requests under way end; the second does not.
fn end_on_signals(stop: CancellationToken) -> io::Result<()> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminates = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminates.recv() => {}
            }
            if stop.is_cancelled() {
                tracing::warn!("told again to stop: at once");
                std::process::exit(Code::Interrupted as i32);
            }
            tracing::info!("told to stop");
            stop.cancel();
        }
    });
    Ok(())
}
