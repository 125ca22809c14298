//! A certificate authority that lives as long as one session, to open TLS where that was consented to.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Signs certificates for the hosts that are opened. Its key never leaves memory.
#[derive(Clone)]
pub struct CertificateAuthority(Arc<Inner>);

struct Inner {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    /// One key serves all hosts: making one is what costs.
    leaf_key: KeyPair,
    leaves: Mutex<HashMap<String, Arc<ServerConfig>>>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate for {name}")]
pub struct CertificateError {
    name: String,
    source: CertificateCause,
}

#[derive(Debug, thiserror::Error)]
enum CertificateCause {
    #[error(transparent)]
    Sign(#[from] rcgen::Error),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

const NAME: &str = "adjutant session authority";
/// From a day ago, for clocks that differ, for a year.
const LIFE: (Duration, Duration) = (Duration::from_secs(24 * 3600), Duration::from_secs(365 * 24 * 3600));
const MAX_LEAVES: usize = 256;

impl CertificateAuthority {
    pub fn generate() -> Result<Self, CertificateError> {
        let failed = |source: rcgen::Error| CertificateError { name: NAME.to_owned(), source: source.into() };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        set_life(&mut params);
        let pem = params.self_signed(&key).map_err(failed)?.pem();
        let leaf_key = KeyPair::generate().map_err(failed)?;
        let issuer = Issuer::new(params, key);
        Ok(Self(Arc::new(Inner { issuer, pem, leaf_key, leaves: Mutex::default() })))
    }

    /// The authority's own certificate in PEM.
    pub fn pem(&self) -> &str {
        &self.0.pem
    }

    /// What programs inside are to trust where TLS is opened: this authority, `extra_roots` (PEM) and the public ones.
    pub fn trust_bundle(&self, extra_roots: &str) -> String {
        let mut bundle = self.0.pem.clone();
        if !extra_roots.is_empty() {
            bundle.push_str(extra_roots.trim_end());
            bundle.push('\n');
        }
        bundle.push_str(&public_roots());
        bundle
    }

    /// How to answer for a host inside.
    pub(crate) fn server_config(
        &self,
        host: &str,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<ServerConfig>, CertificateError> {
        let leaves = || self.0.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = leaves().get(host) {
            return Ok(Arc::clone(known));
        }
        let made = self.make(host, provider).map_err(|source| CertificateError { name: host.to_owned(), source })?;
        let made = Arc::new(made);
        let mut leaves = leaves();
        if leaves.len() >= MAX_LEAVES {
            leaves.clear();
        }
        leaves.insert(host.to_owned(), Arc::clone(&made));
        Ok(made)
    }

    fn make(&self, host: &str, provider: &Arc<CryptoProvider>) -> Result<ServerConfig, CertificateCause> {
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        // A name of the whole host may be longer than this field allows; the host stands in the alternative names.
        params.distinguished_name = named("adjutant");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        set_life(&mut params);
        let leaf = params.signed_by(&self.0.leaf_key, &self.0.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.leaf_key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)?;
        // The one protocol whose requests we read.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateAuthority(•••)")
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn set_life(params: &mut CertificateParams) {
    let now = rcgen::date_time_ymd(1970, 1, 1) + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_before = now - LIFE.0;
    params.not_after = now + LIFE.1;
}

fn public_roots() -> String {
    let mut pem = String::new();
    for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        pem.push_str(&to_pem(root));
    }
    pem
}

fn to_pem(certificate: &CertificateDer<'_>) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let text = BASE64_STANDARD.encode(certificate);
    let mut pem = String::with_capacity(text.len() + text.len() / 64 + 60);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{RootCertStore, pki_types::pem::PemObject as _};

    #[test]
    fn the_bundle_can_be_read_back_and_holds_the_authority_first() {
        let authority = CertificateAuthority::generate().expect("an authority can be made");
        let bundle = authority.trust_bundle("");
        let certificates: Vec<_> =
            CertificateDer::pem_slice_iter(bundle.as_bytes()).collect::<Result<_, _>>().expect("the bundle is PEM");
        assert_eq!(certificates.len(), webpki_root_certs::TLS_SERVER_ROOT_CERTS.len() + 1);
        let own = CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("it is PEM");
        assert_eq!(certificates[0], own);
        let (good, bad) = RootCertStore::empty().add_parsable_certificates(certificates);
        assert_eq!(bad, 0, "{good} are good");
    }

    #[test]
    fn a_host_is_signed_once() {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let authority = CertificateAuthority::generate().expect("an authority can be made");
        let long = format!("{}.{}.test", "a".repeat(63), "b".repeat(63));
        for host in ["example.org", "_x.example.org", &long] {
            let first = authority.server_config(host, &provider).expect("a host can be signed");
            let second = authority.server_config(host, &provider).expect("a host can be signed");
            assert!(Arc::ptr_eq(&first, &second), "{host}");
        }
        assert_eq!(format!("{authority:?}"), "CertificateAuthority(•••)");
    }
}
