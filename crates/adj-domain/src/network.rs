//! Words for the network: which hosts an agent may reach, and what is asked of the door that decides.
//!
//! Must not know: how a name is resolved or a connection made.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr};

/// A host by name: exactly, or every name below a suffix. Never an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    Exact(String),
    /// `*.example.org` matches `a.example.org` and `b.a.example.org`, not `example.org`.
    Below(String),
}

/// Why a text names no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("the host name is empty")]
    Empty,
    #[error("the host name {text:?} is longer than 253 characters")]
    TooLong { text: String },
    #[error("{text:?} is an address, not a host name")]
    Address { text: String },
    #[error("{text:?} is not a host name: letters, digits and hyphens between dots")]
    NotAName { text: String },
    #[error("{text:?} is not a port (1 to 65535)")]
    Port { text: String },
}

/// Checks a host name and brings it into its one spelling: lower case, no dot at the end.
///
/// Whatever a resolver might read as an address is refused in every spelling: `127.1`, `0x7f000001`, `[::1]`.
pub fn host_name(text: &str) -> Result<String, HostError> {
    let shown = || text.chars().take(100).collect::<String>();
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    if name.len() > 253 {
        return Err(HostError::TooLong { text: shown() });
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.contains(['[', ']']) || name.contains("::") {
        return Err(HostError::Address { text: shown() });
    }
    if !name.split('.').all(is_label) {
        return Err(HostError::NotAName { text: shown() });
    }
    // The last label decides whether resolvers take the whole for a number.
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_hex = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if last.bytes().all(|byte| byte.is_ascii_digit()) || is_hex {
        return Err(HostError::Address { text: shown() });
    }
    Ok(name)
}

impl HostPattern {
    /// `name` in the spelling of [`host_name`].
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Below(suffix) => {
                name.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

impl FromStr for HostPattern {
    type Err = HostError;
    fn from_str(text: &str) -> Result<Self, HostError> {
        match text.strip_prefix("*.") {
            Some(suffix) => Ok(Self::Below(host_name(suffix)?)),
            None => Ok(Self::Exact(host_name(text)?)),
        }
    }
}

/// What one entry of an allow list permits. As text `HOST`, `HOST:PORT` or `HOST:PORT,PORT`; without a port 443 and 80.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRule {
    pub host: HostPattern,
    #[serde(default = "web_ports")]
    pub ports: Vec<u16>,
    /// Upper-case HTTP methods; empty permits all. Over TLS this needs `open_tls`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Beginnings of paths, `/repos/` for instance; empty permits all. Over TLS this needs `open_tls`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Consent to open TLS to this host at the door, so that methods, paths and secrets can be seen to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open_tls: bool,
    /// Addresses (`10.1.2.3`, `10.0.0.0/8`, `::1`) that this name may resolve to although they are not public.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub private_addresses: Vec<String>,
}

fn web_ports() -> Vec<u16> {
    vec![443, 80]
}

impl HostRule {
    pub fn new(host: HostPattern) -> Self {
        Self {
            host,
            ports: web_ports(),
            methods: Vec::new(),
            paths: Vec::new(),
            open_tls: false,
            private_addresses: Vec::new(),
        }
    }

    /// Whether the rule speaks of this host and port at all.
    pub fn covers(&self, host: &str, port: u16) -> bool {
        self.host.matches(host) && self.ports.contains(&port)
    }

    /// Whether it narrows what may be asked of the host, so that its requests have to be seen.
    pub fn narrows_requests(&self) -> bool {
        !self.methods.is_empty() || !self.paths.is_empty()
    }

    pub fn permits_request(&self, method: &str, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|known| known == method))
            && (self.paths.is_empty() || self.paths.iter().any(|start| path.starts_with(start.as_str())))
    }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.host)?;
        if self.ports != web_ports() {
            let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
            write!(f, ":{}", ports.join(","))?;
        }
        if self.narrows_requests() {
            write!(f, " {}{}", self.methods.join("|"), self.paths.join("|"))?;
        }
        Ok(())
    }
}

impl FromStr for HostRule {
    type Err = HostError;
    fn from_str(text: &str) -> Result<Self, HostError> {
        let Some((host, ports)) = text.split_once(':') else {
            return Ok(Self::new(text.parse()?));
        };
        let port = |text: &str| match text.parse() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(HostError::Port { text: text.chars().take(20).collect() }),
        };
        let ports = ports.split(',').map(port).collect::<Result<_, _>>()?;
        Ok(Self { ports, ..Self::new(host.parse()?) })
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What somebody inside wants to reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// In the spelling of [`host_name`], or as it was asked for where it is none.
    pub host: String,
    pub port: u16,
    /// Known where the request can be seen: plain HTTP, and TLS that was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(method) = &self.method {
            write!(f, "{method} ")?;
        }
        write!(f, "{}:{}{}", self.host, self.port, self.path.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_spelling_and_are_never_addresses() {
        let cases = [
            ("Example.ORG.", Some("example.org")),
            ("localhost", Some("localhost")),
            ("_acme.example.org", Some("_acme.example.org")),
            ("127.0.0.1", None),
            ("127.1", None),
            ("2130706433", None),
            ("0x7f000001", None),
            ("example.0x1", None),
            ("[::1]", None),
            ("::ffff:127.0.0.1", None),
            ("a..b", None),
            ("-a.org", None),
            ("evil.org\0.example.org", None),
            ("user@example.org", None),
            ("exämple.org", None),
            ("%65xample.org", None),
            ("", None),
            (".", None),
        ];
        for (text, expected) in cases {
            assert_eq!(host_name(text).ok().as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn patterns_end_at_the_borders_of_labels() {
        let cases = [
            ("example.org", "example.org", true),
            ("example.org", "a.example.org", false),
            ("*.example.org", "a.example.org", true),
            ("*.example.org", "b.a.example.org", true),
            ("*.example.org", "example.org", false),
            ("*.example.org", "notexample.org", false),
            ("*.example.org", ".example.org", false),
        ];
        for (pattern, name, expected) in cases {
            let pattern: HostPattern = pattern.parse().expect("the pattern is good");
            assert_eq!(pattern.matches(name), expected, "{pattern} {name}");
        }
        for bad in ["*", "*.", "a.*.org", "*.127.0.0.1", "*example.org"] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn rules_have_ports_of_their_own() {
        let rule: HostRule = "example.org:8443,22".parse().expect("the rule is good");
        assert!(rule.covers("example.org", 22) && !rule.covers("example.org", 443));
        assert_eq!(rule.to_string(), "example.org:8443,22");
        let rule: HostRule = "example.org".parse().expect("the rule is good");
        assert!(rule.covers("example.org", 443) && rule.covers("example.org", 80) && !rule.covers("example.org", 22));
        for bad in ["example.org:", "example.org:0", "example.org:70000", "example.org:*", ":443"] {
            assert!(bad.parse::<HostRule>().is_err(), "{bad:?}");
        }
    }
}
