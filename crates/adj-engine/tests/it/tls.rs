//! Hosts that speak TLS under a company's own authority, and a client for the inside of a sandbox.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
    },
};

/// Runs as a client and never returns, when this process was started as one: host, port, and the request with `|` for each end of a line.
pub fn dispatch_client() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [word, host, port, request] = words.as_slice() else { return };
    if word == "__client" {
        let answer = ask(host, port, &request.replace('|', "\r\n")).unwrap_or_else(|error| format!("failed: {error}"));
        let _ = std::io::stdout().write_all(answer.replace("\r\n", " ").as_bytes());
        let _ = std::io::stdout().write_all(b"\n");
        std::process::exit(0);
    }
}

fn ask(host: &str, port: &str, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect("127.0.0.1:3128")?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "CONNECT {host}:{port} HTTP/1.1\r\n\r\n")?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if !head.starts_with(b"HTTP/1.1 200 ") {
        stream.read_to_end(&mut head)?;
        return Ok(String::from_utf8_lossy(&head).into_owned());
    }
    let path = std::env::var("SSL_CERT_FILE").map_err(std::io::Error::other)?;
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(std::io::Error::other)?;
    roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
    let client = ClientConnection::new(Arc::new(config), name).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(client, stream);
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    // However the other side ends, what came is the answer.
    let _ = stream.read_to_end(&mut answer);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

pub struct Company {
    pub pem: String,
    config: Arc<ServerConfig>,
}

/// An authority that nobody knows who was not told, and one certificate of it for all hosts.
pub fn company() -> &'static Company {
    static COMPANY: OnceLock<Company> = OnceLock::new();
    COMPANY.get_or_init(|| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = rcgen::Issuer::new(params, key);
        let leaf_key = rcgen::KeyPair::generate().unwrap();
        let names = ["secret.test", "other.test", "git.test"].map(str::to_owned);
        let leaf = rcgen::CertificateParams::new(names.to_vec()).unwrap().signed_by(&leaf_key, &issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        Company { pem, config: Arc::new(config) }
    })
}

/// A host on loopback that answers one request of each connection.
pub struct TlsHost {
    pub port: u16,
    seen: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl TlsHost {
    pub async fn start(answer: fn(&str) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let remembered = Arc::clone(&seen);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&remembered);
                tokio::spawn(async move {
                    let acceptor = TlsAcceptor::from(Arc::clone(&company().config));
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut asked = Vec::new();
                    let mut piece = [0; 4096];
                    while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
                        match stream.read(&mut piece).await {
                            Ok(read @ 1..) => asked.extend_from_slice(&piece[..read]),
                            _ => return,
                        }
                    }
                    let asked = String::from_utf8_lossy(&asked).into_owned();
                    seen.lock().unwrap().push(asked.clone());
                    let _ = stream.write_all(answer(&asked).as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { port, seen, serving }
    }

    /// The requests that came, in their order.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for TlsHost {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Gives everything back that it was asked.
pub fn mirror(asked: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{asked}", asked.len())
}

/// Tells one branch to whoever signs in.
pub fn git(asked: &str) -> String {
    if !asked.to_ascii_lowercase().contains("\r\nauthorization: basic ") {
        return "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\n\
                Connection: close\r\n\r\n"
            .to_owned();
    }
    let packet = |line: &str| format!("{:04x}{line}", line.len() + 4);
    let branch = format!("{} refs/heads/main\0agent=test\n", "1".repeat(40));
    let body = format!("{}0000{}0000", packet("# service=git-upload-pack\n"), packet(&branch));
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\nContent-Length: {}\r\n\
         Cache-Control: no-cache\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
