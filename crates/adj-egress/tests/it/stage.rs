//! A door with fake hosts behind it, and clients that say whatever a test wants them to.

use adj_domain::{Destination, HostRule, Ruling, Verdict};
use adj_egress::{CertificateAuthority, Credential, Decided, Egress, EgressLimits, Judge, Judged, Resolve, Settings};
use async_trait::async_trait;
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject as _},
    },
};

pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a stage is built from; change what a test is about.
pub struct Script {
    pub rules: Vec<HostRule>,
    pub credentials: Vec<Credential>,
    /// The answers of a name's server, one after the other; the last one stays.
    pub addresses: HashMap<String, Vec<Vec<IpAddr>>>,
    pub limits: EgressLimits,
    pub extra_roots: String,
}

pub struct Stage {
    pub egress: Option<Egress>,
    pub door: SocketAddr,
    pub authority: CertificateAuthority,
    pub decisions: Arc<Mutex<Vec<Decided>>>,
    pub can_record: Arc<AtomicBool>,
    pub resolved: Arc<AtomicUsize>,
}

impl Script {
    pub fn new(rules: impl IntoIterator<Item = HostRule>) -> Self {
        Self {
            rules: rules.into_iter().collect(),
            credentials: Vec::new(),
            addresses: HashMap::new(),
            limits: EgressLimits { head_timeout: PATIENCE, idle_timeout: PATIENCE, ..EgressLimits::default() },
            extra_roots: company().pem.clone(),
        }
    }

    pub fn start(self) -> Stage {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let door = listener.local_addr().expect("it is bound");
        let authority = CertificateAuthority::generate().expect("an authority can be made");
        let decisions: Arc<Mutex<Vec<Decided>>> = Arc::default();
        let (can_record, resolved) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (told, may) = (Arc::clone(&decisions), Arc::clone(&can_record));
        let settings = Settings {
            judge: Arc::new(Table(self.rules)),
            credentials: self.credentials,
            resolver: Arc::new(Answers {
                addresses: self.addresses,
                asked: Mutex::default(),
                count: Arc::clone(&resolved),
            }),
            limits: self.limits,
            on_decision: Arc::new(move |decided| {
                told.lock().expect("no test panics here").push(decided);
                may.load(Ordering::SeqCst)
            }),
            authority: authority.clone(),
            extra_roots: self.extra_roots,
        };
        let egress = Some(Egress::start(listener, settings).expect("the door opens"));
        Stage { egress, door, authority, decisions, can_record, resolved }
    }
}

/// A rule whose host lies on loopback.
pub fn rule(host: &str, port: u16) -> HostRule {
    let rule: HostRule = format!("{host}:{port}").parse().expect("the rule is good");
    HostRule { private_addresses: vec!["127.0.0.1".to_owned()], ..rule }
}

struct Table(Vec<HostRule>);

#[async_trait]
impl Judge for Table {
    async fn judge(&self, to: &Destination) -> Judged {
        match self.0.iter().find(|rule| rule.covers(&to.host, to.port)) {
            Some(rule) if to.host == "ask.test" => {
                Judged { ruling: Ruling::new(Verdict::Ask, "agent", rule.to_string()), rule: Some(rule.clone()) }
            }
            Some(rule) => {
                Judged { ruling: Ruling::new(Verdict::Allow, "agent", rule.to_string()), rule: Some(rule.clone()) }
            }
            None => Judged { ruling: Ruling::new(Verdict::Deny, "organisation", "no entry covers it"), rule: None },
        }
    }
}

struct Answers {
    addresses: HashMap<String, Vec<Vec<IpAddr>>>,
    asked: Mutex<HashMap<String, usize>>,
    count: Arc<AtomicUsize>,
}

#[async_trait]
impl Resolve for Answers {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.count.fetch_add(1, Ordering::SeqCst);
        let mut asked = self.asked.lock().expect("no test panics here");
        let asked = asked.entry(host.to_owned()).or_default();
        *asked += 1;
        match self.addresses.get(host) {
            Some(answers) => Ok(answers[(*asked - 1).min(answers.len() - 1)].clone()),
            None => Ok(vec![IpAddr::from([127, 0, 0, 1])]),
        }
    }
}

impl Stage {
    pub async fn dial(&self) -> TcpStream {
        TcpStream::connect(self.door).await.expect("the door is open")
    }

    /// Says something and listens until the other side ends.
    pub async fn say(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.dial().await;
        client.write_all(bytes.as_ref()).await.expect("the door listens");
        read_all(&mut client).await
    }

    pub async fn connect(&self, host: &str, port: u16) -> TcpStream {
        let mut client = self.dial().await;
        let text = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
        client.write_all(text.as_bytes()).await.expect("the door listens");
        let expected = b"HTTP/1.1 200 Connection established\r\n\r\n";
        let mut found = [0; 39];
        timeout(PATIENCE, client.read_exact(&mut found)).await.expect("in time").expect("a tunnel is made");
        assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(expected));
        client
    }

    /// A tunnel with TLS in it, which trusts what a program inside trusts.
    pub async fn connect_tls(&self, host: &str, port: u16) -> TlsStream<TcpStream> {
        let stream = self.connect(host, port).await;
        tls(stream, host, &self.authority.trust_bundle(&company().pem), &[b"http/1.1"]).await.expect("TLS works")
    }

    /// One request within TLS.
    pub async fn ask_tls(&self, host: &str, port: u16, request: impl AsRef<[u8]>) -> String {
        let mut client = self.connect_tls(host, port).await;
        client.write_all(request.as_ref()).await.expect("the door listens");
        read_all(&mut client).await
    }

    /// `PROTOCOL VERDICT what [rule]`, one for each decision.
    pub fn decided(&self) -> Vec<String> {
        let decisions = self.decisions.lock().expect("no test panics here");
        let line =
            |one: &Decided| format!("{:?} {} {} [{}]", one.protocol, one.ruling.verdict, one.to, one.ruling.rule);
        decisions.iter().map(line).collect()
    }
}

pub async fn tls(
    stream: TcpStream,
    name: &str,
    roots_pem: &str,
    protocols: &[&[u8]],
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(roots_pem.as_bytes());
    roots.add_parsable_certificates(certificates.map(|certificate| certificate.expect("the roots are PEM")));
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring knows them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).expect("the name is good");
    timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await?
}

/// Reads to the end, however the other side ends.
pub async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut found = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = timeout(PATIENCE, stream.read(&mut piece)).await.expect("it ends in time") {
        found.extend_from_slice(&piece[..read]);
    }
    String::from_utf8_lossy(&found).into_owned()
}

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A host on loopback that answers every connection once, and remembers what it was asked.
pub struct Host {
    pub port: u16,
    pub seen: Arc<Mutex<Vec<String>>>,
}

impl Host {
    pub async fn plain(answer: impl Into<Answer>) -> Self {
        Self::start(answer.into(), None).await
    }

    /// With a certificate of the company for `a.test` and `b.test`.
    pub async fn tls(answer: impl Into<Answer>) -> Self {
        Self::start(answer.into(), Some(company().config.clone())).await
    }

    pub async fn start(answer: Answer, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
        let port = listener.local_addr().expect("it is bound").port();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let remembered = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, answer, seen) = (tls.clone(), answer.clone(), Arc::clone(&remembered));
                tokio::spawn(async move {
                    match tls {
                        Some(config) => {
                            if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                                serve(stream, answer, seen).await;
                            }
                        }
                        None => serve(stream, answer, seen).await,
                    }
                });
            }
        });
        Self { port, seen }
    }

    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no test panics here").clone()
    }
}

pub type Make = Arc<dyn Fn(&str) -> Vec<Vec<u8>> + Send + Sync>;

#[derive(Clone)]
pub enum Answer {
    /// Pieces that are sent one by one.
    Pieces(Vec<Vec<u8>>),
    /// Made from the request.
    Made(Make),
    /// Before anything was asked.
    Early(Vec<u8>),
}

impl From<&str> for Answer {
    fn from(text: &str) -> Self {
        Self::Pieces(vec![text.as_bytes().to_vec()])
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: Answer, seen: Arc<Mutex<Vec<String>>>) {
    if let Answer::Early(bytes) = &answer {
        let _ = stream.write_all(bytes).await;
    }
    let mut asked = Vec::new();
    let mut piece = [0; 4096];
    while !is_whole(&asked) {
        match stream.read(&mut piece).await {
            Ok(read @ 1..) => asked.extend_from_slice(&piece[..read]),
            _ => break,
        }
    }
    let asked = String::from_utf8_lossy(&asked).into_owned();
    if asked.is_empty() {
        return;
    }
    seen.lock().expect("no test panics here").push(asked.clone());
    let pieces = match answer {
        Answer::Pieces(pieces) => pieces,
        Answer::Made(make) => make(&asked),
        Answer::Early(_) => Vec::new(),
    };
    for piece in pieces {
        let _ = stream.write_all(&piece).await;
        let _ = stream.flush().await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let _ = stream.shutdown().await;
}

/// Whether a request, or a line of something else, is whole.
fn is_whole(asked: &[u8]) -> bool {
    let text = String::from_utf8_lossy(asked);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return !text.contains("HTTP/1.") && text.ends_with("!\n");
    };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    match length {
        Some(length) => body.len() >= length.parse().unwrap_or(0),
        None => !head.contains("Transfer-Encoding: chunked") || body.ends_with("0\r\n\r\n"),
    }
}

pub struct Company {
    pub pem: String,
    pub config: Arc<ServerConfig>,
}

/// A certificate authority that the door is told to trust.
pub fn company() -> &'static Company {
    static COMPANY: std::sync::OnceLock<Company> = std::sync::OnceLock::new();
    COMPANY.get_or_init(|| {
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("it can be signed").pem();
        let issuer = rcgen::Issuer::new(params, key);
        let leaf_key = rcgen::KeyPair::generate().expect("a key can be made");
        let leaf =
            rcgen::CertificateParams::new(vec!["a.test".to_owned(), "b.test".to_owned()]).expect("the name is good");
        let leaf = leaf.signed_by(&leaf_key, &issuer).expect("it can be signed");
        Company { pem, config: server_config(leaf.der().clone(), &leaf_key) }
    })
}

pub fn server_config(certificate: CertificateDer<'static>, key: &rcgen::KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring knows them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    Arc::new(config.expect("the key is the certificate's"))
}

pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
