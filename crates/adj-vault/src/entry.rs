//! What is known of a secret besides its value: its name, where it may go, and how it shows inside.

use adj_domain::{HostPattern, HostRule, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{borrow::Borrow, fmt, str::FromStr};

/// Why something is no entry of a vault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("{text:?} is not a secret's name: 1 to 64 letters, digits, hyphens and underscores")]
    Name { text: String },
    #[error("{text:?} is not a variable's name: 1 to 128 letters, digits and underscores, no digit first")]
    Variable { text: String },
    #[error("the variable {name} steers programs, so it cannot hold a placeholder")]
    SteeringVariable { name: String },
    #[error("{text:?} is not a header's name: 1 to 64 letters, digits, hyphens and underscores")]
    Header { text: String },
    #[error("the header {name} steers the connection, so it cannot hold a secret")]
    SteeringHeader { name: String },
    #[error("the secret {name} names no host that it is for")]
    NoHost { name: SecretName },
    #[error("the secret {name} names more than {MAX_HOSTS} hosts")]
    ManyHosts { name: SecretName },
    #[error("the secret {name} is for {host} on no port")]
    NoPort { name: SecretName, host: HostPattern },
    #[error("the secret {name} would go to all of {host}: name the hosts, or a domain of at least two labels")]
    WideHost { name: SecretName, host: HostPattern },
    #[error("the note of the secret {name} is longer than {MAX_NOTE_BYTES} bytes or holds a control character")]
    Note { name: SecretName },
}

const MAX_HOSTS: usize = 64;
const MAX_NOTE_BYTES: usize = 1000;

/// A secret in the vault, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub name: SecretName,
    /// The variable that holds the placeholder inside a sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<EnvName>,
    /// The hosts, ports, methods and paths that the value may be sent to; at least one host.
    pub hosts: Vec<HostRule>,
    pub place: Place,
    /// Git over HTTPS uses it as a password for these hosts, whatever its place is otherwise.
    #[serde(default)]
    pub git: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    pub created: Timestamp,
}

/// Where in a request the placeholder is replaced by the value; nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Place {
    /// In the value of this header, after a prefix such as `Bearer ` where there is one.
    Header {
        name: HeaderName,
    },
    /// The password in `Authorization: Basic`.
    BasicPassword,
    Body,
}

impl Entry {
    /// Whether the entry as a whole makes sense; its parts were checked when they were made.
    pub fn check(&self) -> Result<(), EntryError> {
        let name = || self.name.clone();
        if self.hosts.is_empty() {
            return Err(EntryError::NoHost { name: name() });
        }
        if self.hosts.len() > MAX_HOSTS {
            return Err(EntryError::ManyHosts { name: name() });
        }
        for rule in &self.hosts {
            if rule.ports.is_empty() {
                return Err(EntryError::NoPort { name: name(), host: rule.host.clone() });
            }
            // `*.com` would give the value to anybody who buys a name.
            if matches!(&rule.host, HostPattern::Below(suffix) if !suffix.contains('.')) {
                return Err(EntryError::WideHost { name: name(), host: rule.host.clone() });
            }
        }
        match &self.note {
            Some(note) if note.len() > MAX_NOTE_BYTES || note.chars().any(char::is_control) => {
                Err(EntryError::Note { name: name() })
            }
            _ => Ok(()),
        }
    }

    /// Every place where the placeholder is replaced: its own, and that of git where git uses it.
    pub fn places(&self) -> Vec<Place> {
        let mut places = vec![self.place.clone()];
        if self.git && self.place != Place::BasicPassword {
            places.push(Place::BasicPassword);
        }
        places
    }
}

/// A text that was checked when it was made.
macro_rules! checked_text {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

checked_text!(SecretName, "What a secret is called: 1 to 64 of `A-Z a-z 0-9 _ -`.");
checked_text!(EnvName, "A variable that may hold a placeholder; never one that steers programs, such as `PATH`.");
checked_text!(HeaderName, "A header that may hold a secret, in lower case; never one that steers the connection.");

fn is_word(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Cuts what somebody typed, for an error's words.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

impl FromStr for SecretName {
    type Err = EntryError;
    fn from_str(text: &str) -> Result<Self, EntryError> {
        match is_word(text, 64) {
            true => Ok(Self(text.to_owned())),
            false => Err(EntryError::Name { text: shown(text) }),
        }
    }
}

impl FromStr for EnvName {
    type Err = EntryError;
    fn from_str(text: &str) -> Result<Self, EntryError> {
        if !is_word(text, 128) || text.contains('-') || text.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(EntryError::Variable { text: shown(text) });
        }
        // Some programs read `http_proxy` as well as `HTTP_PROXY`.
        let upper = text.to_ascii_uppercase();
        if STEERING_VARIABLES.contains(&upper.as_str())
            || STEERING_STARTS.iter().any(|start| upper.starts_with(start))
            || STEERING_ENDS.iter().any(|end| upper.ends_with(end))
        {
            return Err(EntryError::SteeringVariable { name: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for HeaderName {
    type Err = EntryError;
    fn from_str(text: &str) -> Result<Self, EntryError> {
        if !is_word(text, 64) {
            return Err(EntryError::Header { text: shown(text) });
        }
        let name = text.to_ascii_lowercase();
        if STEERING_HEADERS.contains(&name.as_str()) || name.starts_with("proxy-") {
            return Err(EntryError::SteeringHeader { name });
        }
        Ok(Self(name))
    }
}

/// Variables that decide what a shell, a loader, an interpreter or a client does. In upper case.
const STEERING_VARIABLES: &[&str] = &[
    "_",
    "ALL_PROXY",
    "BASH_ENV",
    "BROWSER",
    "CDPATH",
    "CLASSPATH",
    "CURL_CA_BUNDLE",
    "CURL_HOME",
    "DISPLAY",
    "EDITOR",
    "ENV",
    "FTP_PROXY",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "IFS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "LANG",
    "LANGUAGE",
    "LOGNAME",
    "MAKEFLAGS",
    "NODE_EXTRA_CA_CERTS",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NO_PROXY",
    "OLDPWD",
    "OPENSSL_CONF",
    "PAGER",
    "PATH",
    "PROMPT_COMMAND",
    "PS1",
    "PS4",
    "PWD",
    "REQUESTS_CA_BUNDLE",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
    "SHELL",
    "SHELLOPTS",
    "BASHOPTS",
    "SHLVL",
    "TEMP",
    "TERM",
    "TMP",
    "TMPDIR",
    "TZ",
    "USER",
    "VISUAL",
    "ZDOTDIR",
    "_JAVA_OPTIONS",
];

const STEERING_STARTS: &[&str] = &[
    "ADJUTANT_",
    "BASH_FUNC_",
    "DBUS_",
    "DYLD_",
    "GIT_",
    "LC_",
    "LD_",
    "MALLOC_",
    "PERL5",
    "PYTHON",
    "RUBYLIB",
    "RUBYOPT",
    "SSH_",
    "SSL_CERT_",
    "SUDO_",
    "XDG_",
];

const STEERING_ENDS: &[&str] = &["_PROXY", "_CA_BUNDLE"];

/// Headers that frame or route a request. In lower case.
const STEERING_HEADERS: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "origin",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: FromStr<Err = EntryError> + fmt::Display>(cases: &[(&str, Option<&str>)]) {
        for (text, expected) in cases {
            let found = text.parse::<T>().ok().map(|name| name.to_string());
            assert_eq!(found.as_deref(), *expected, "{text:?}");
        }
    }

    #[test]
    fn names_are_words() {
        let longest = "x".repeat(64);
        let longer = "x".repeat(65);
        check::<SecretName>(&[
            ("GITHUB-token_1", Some("GITHUB-token_1")),
            (&longest, Some(&longest)),
            (&longer, None),
            ("", None),
            ("a b", None),
            ("../key", None),
            ("a\0", None),
            ("é", None),
        ]);
    }

    #[test]
    fn a_placeholder_never_takes_a_variable_that_steers_programs() {
        check::<EnvName>(&[
            ("GITHUB_TOKEN", Some("GITHUB_TOKEN")),
            ("GITLAB_TOKEN", Some("GITLAB_TOKEN")),
            ("npm_config__auth", Some("npm_config__auth")),
            ("_TOKEN", Some("_TOKEN")),
            ("PATH", None),
            ("Path", None),
            ("HOME", None),
            ("LD_PRELOAD", None),
            ("BASH_ENV", None),
            ("GIT_SSH_COMMAND", None),
            ("https_proxy", None),
            ("npm_config_https_proxy", None),
            ("PYTHONPATH", None),
            ("NODE_OPTIONS", None),
            ("ADJUTANT_HOME", None),
            ("1TOKEN", None),
            ("A-B", None),
            ("A=B", None),
            ("", None),
        ]);
    }

    #[test]
    fn a_secret_never_goes_into_a_header_that_frames() {
        check::<HeaderName>(&[
            ("Authorization", Some("authorization")),
            ("x-api-key", Some("x-api-key")),
            ("Host", None),
            ("content-length", None),
            ("Proxy-Authorization", None),
            ("Transfer-Encoding", None),
            ("a:b", None),
            ("a\r\nb", None),
            ("", None),
        ]);
    }

    fn entry() -> Entry {
        Entry {
            name: "token".parse().expect("the name is good"),
            env: Some("TOKEN".parse().expect("the variable is good")),
            hosts: vec!["api.example.org".parse().expect("the rule is good")],
            place: Place::Header { name: "authorization".parse().expect("the header is good") },
            git: true,
            note: Some("for the tests".into()),
            created: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn an_entry_is_for_few_hosts_that_somebody_named() {
        let hosts = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("the rule is good")).collect();
        let cases: [(Entry, Option<&str>); 7] = [
            (entry(), None),
            (Entry { hosts: hosts(&["*.example.org"]), ..entry() }, None),
            (Entry { hosts: vec![], ..entry() }, Some("names no host")),
            (Entry { hosts: hosts(&["a.org"; 65]), ..entry() }, Some("more than 64 hosts")),
            (Entry { hosts: hosts(&["*.org"]), ..entry() }, Some("all of *.org")),
            (
                Entry {
                    hosts: vec![HostRule { ports: vec![], ..HostRule::new("a.org".parse().expect("a host")) }],
                    ..entry()
                },
                Some("on no port"),
            ),
            (Entry { note: Some("a\u{1b}[2J".into()), ..entry() }, Some("control character")),
        ];
        for (entry, expected) in cases {
            match (entry.check(), expected) {
                (Ok(()), None) => {}
                (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{error}"),
                (found, _) => panic!("{entry:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn git_adds_its_place() {
        assert_eq!(entry().places(), [entry().place, Place::BasicPassword]);
        assert_eq!(Entry { git: false, ..entry() }.places(), [entry().place]);
        assert_eq!(Entry { place: Place::BasicPassword, ..entry() }.places(), [Place::BasicPassword]);
    }

    #[test]
    fn an_entry_is_stored_under_these_names() {
        let text = serde_json::to_string(&entry()).expect("an entry is JSON");
        let stored = concat!(
            r#"{"name":"token","env":"TOKEN","hosts":[{"host":"api.example.org","ports":[443,80]}],"#,
            r#""place":{"header":{"name":"authorization"}},"git":true,"note":"for the tests","#,
            r#""created":"1970-01-01T00:00:00Z"}"#
        );
        assert_eq!(text, stored);
        assert_eq!(serde_json::from_str::<Entry>(stored).expect("what was stored is read"), entry());
        for (from, to) in [("token", "to ken"), ("TOKEN", "PATH"), ("authorization", "host"), ("\"git\"", "\"gut\"")] {
            assert!(serde_json::from_str::<Entry>(&stored.replace(from, to)).is_err(), "{to}");
        }
    }
}
