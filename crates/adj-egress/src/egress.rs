//! The door: accepts on a sandbox's listener for as long as it stands.

use crate::{Settings, admit::Door, connection, resolve::Names};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use std::{io, net::TcpListener as StdListener, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, oneshot},
    task::{JoinHandle, JoinSet},
};

/// The only thing that can be reached from inside one sandbox. Dropping it ends all its connections.
#[derive(Debug)]
pub struct Egress {
    /// Dropped, it stops the accepting.
    stop: oneshot::Sender<()>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartEgressError {
    #[error("cannot accept on the sandbox's listener")]
    Listener { source: io::Error },
    #[error("the extra roots hold something that is not a certificate in PEM")]
    Roots,
    #[error("cannot set TLS up")]
    Tls { source: rustls::Error },
}

impl Egress {
    /// Begins to accept, within a tokio runtime. The listener may have been made in another network namespace.
    pub fn start(listener: StdListener, settings: Settings) -> Result<Self, StartEgressError> {
        let failed = |source| StartEgressError::Listener { source };
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut upstream_tls = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|source| StartEgressError::Tls { source })?
            .with_root_certificates(roots(&settings.extra_roots)?)
            .with_no_client_auth();
        upstream_tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let Settings { judge, credentials, resolver, limits, on_decision, authority, extra_roots: _ } = settings;
        let names = Names::new(limits.names);
        let upstream_tls = Arc::new(upstream_tls);
        let door = Door { judge, credentials, resolver, limits, on_decision, authority, names, provider, upstream_tls };
        let (stop, stopped) = oneshot::channel();
        let accepting = tokio::spawn(accept(listener, Arc::new(door), stopped));
        Ok(Self { stop, accepting })
    }

    /// Looks whether certificates are ones that [`Settings::extra_roots`] may hold.
    pub fn check_roots(extra: &str) -> Result<(), StartEgressError> {
        roots(extra).map(|_| ())
    }

    /// Ends all connections and waits until they have ended.
    pub async fn stop(self) {
        drop(self.stop);
        // A panic in there has been reported; the door is shut either way.
        let _ = self.accepting.await;
    }
}

fn roots(extra: &str) -> Result<RootCertStore, StartEgressError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(extra.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| StartEgressError::Roots)?;
    if certificates.is_empty() && !extra.trim().is_empty() {
        return Err(StartEgressError::Roots);
    }
    for certificate in certificates {
        roots.add(certificate).map_err(|_| StartEgressError::Roots)?;
    }
    Ok(roots)
}

async fn accept(listener: TcpListener, door: Arc<Door>, mut stopped: oneshot::Receiver<()>) {
    let places = Arc::new(Semaphore::new(door.limits.connections));
    let mut connections = JoinSet::new();
    let accept_next = async || {
        let place = Arc::clone(&places).acquire_owned().await.ok()?;
        match listener.accept().await {
            Ok((stream, _)) => Some((stream, place)),
            // Out of files, for instance: others may give some back.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                None
            }
        }
    };
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            accepted = accept_next() => if let Some((stream, place)) = accepted {
                let door = Arc::clone(&door);
                connections.spawn(async move {
                    connection::serve(&door, stream).await;
                    drop(place);
                });
            },
        }
    }
    connections.shutdown().await;
}
