//! What lies beyond a sandbox's door: hosts on loopback under names of their own, and scripts that knock.

use crate::world::World;
use adj_domain::{Confinement, HostRule, NetworkRequest, SessionEvent, Verdict};
use adj_engine::{Engine, NewSession, Resolve, Upstream};
use async_trait::async_trait;
use std::{
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    task::JoinHandle,
};

/// Every name leads to this machine.
#[derive(Default)]
pub struct Loopback {
    /// How long it takes to find that out.
    pub takes: Duration,
}

#[async_trait]
impl Resolve for Loopback {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        tokio::time::sleep(self.takes).await;
        Ok(vec![IpAddr::from([127, 0, 0, 1])])
    }
}

pub fn upstream() -> Upstream {
    Upstream { resolver: Arc::new(Loopback::default()), extra_roots: String::new() }
}

/// A host that answers each line with `ok`, and counts how often it was spoken to.
pub struct Host {
    pub port: u16,
    spoken: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Host {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let spoken: Arc<AtomicUsize> = Arc::default();
        let counted = Arc::clone(&spoken);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let mut line = String::new();
                    if stream.read_line(&mut line).await.is_ok_and(|length| length > 0) {
                        counted.fetch_add(1, Ordering::SeqCst);
                        let _ = stream.get_mut().write_all(b"ok\n").await;
                    }
                });
            }
        });
        Self { port, spoken, serving }
    }

    pub fn spoken(&self) -> usize {
        self.spoken.load(Ordering::SeqCst)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Defines `knock HOST:PORT`, which asks the door for a tunnel, says hello through it, and prints in one line what comes back.
pub const KNOCK: &str = "knock() { exec 3<>/dev/tcp/127.0.0.1/3128 && \
    printf 'CONNECT %s HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\nhello\\n' $1 $1 >&3 && \
    tr -d '\\r' <&3 | tr '\\n' ' '; exec 3>&-; echo; }\n";

/// What a knock prints that came through.
pub const THROUGH: &str = "HTTP/1.1 200 Connection established  ok ";

/// Rules by which the agent runs this script in every turn, with `knock` at hand.
pub fn runs(script: &str) -> String {
    let command = serde_json::to_string(&format!("{KNOCK}{script}")).unwrap();
    format!("  - {{when: {{after_tool: bash}}, say: done}}\n  - calls: [{{tool: bash, input: {{command: {command}}}}}]")
}

/// A host that may be reached although it lies on this machine.
pub fn host(name: &str, port: u16) -> HostRule {
    let rule: HostRule = format!("{name}:{port}").parse().unwrap();
    HostRule { private_addresses: vec!["127.0.0.1".to_owned()], ..rule }
}

/// Makes the session with these hosts, and tells it to go.
pub async fn begin(world: &World, engine: &Engine, hosts: Vec<HostRule>, ask: bool) {
    let confinement = Confinement { network: Some(NetworkRequest { hosts, ask }), ..Confinement::default() };
    engine.create(&world.id, NewSession { confinement, ..world.new_session() }).await.unwrap();
    world.say(engine, "go").await;
}

/// What the door has decided, as the log tells it: verdict, destination, layer.
pub async fn decided(world: &World, engine: &Engine) -> Vec<(Verdict, String, String)> {
    let events = world.events(engine).await.into_iter();
    let decided = events.filter_map(|event| match event {
        SessionEvent::NetworkDecided { to, ruling, .. } => Some((ruling.verdict, to.to_string(), ruling.layer)),
        _ => None,
    });
    decided.collect()
}
