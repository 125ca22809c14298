//! `adjutant daemon …`

use clap::{Args, Subcommand};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

/// Where a daemon listens if nobody says otherwise.
pub const DEFAULT_PORT: u16 = 7133;

/// Serve agents on this machine: one daemon for each state folder
///
/// Without a command it serves in the foreground, until Ctrl+C or SIGTERM, and logs to standard error. It listens on a Unix socket of
/// yours in the state folder, where you need no token, and on the loopback, where every program needs one:
/// `adjutant token create`. ADJUTANT_LOG says how much is logged: error, warn, info (the default), debug or trace.
///
/// When it stops, nobody comes in any more; requests under way may end, and after the time of --grace they are cut.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_value_name = "COMMAND")]
#[command(after_help = "Examples:\n  adjutant daemon\n  adjutant daemon start\n  adjutant daemon --listen 8080\n  \
                        adjutant daemon --print-unit > ~/.config/systemd/user/adjutant.service")]
pub struct DaemonArgs {
    #[command(subcommand)]
    pub command: Option<DaemonCommand>,

    #[command(flatten)]
    pub serve: ServeArgs,

    /// Print a unit for systemd's manager of your own services, with these flags, and end
    #[arg(long)]
    pub print_unit: bool,

    /// Leave the terminal's session
    #[arg(long, hide = true)]
    pub detached: bool,
}

#[derive(Debug, Subcommand)]
pub enum DaemonCommand {
    /// Start a daemon in the background, unless there is one
    ///
    /// Returns when it answers. What it logs goes into daemon/log in the state folder.
    Start {
        #[command(flatten)]
        serve: ServeArgs,
    },
    /// Show whether a daemon runs, and where it listens; the exit code is 1 where none does
    Status {
        /// Print it as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Stop the daemon, and wait until it is gone
    Stop,
}

/// How a daemon serves.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Where to listen besides the Unix socket: an address with its port, a port of the loopback, or none; may be repeated
    /// (default: port 7133 of the loopback, if it is free)
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<Listen>,

    /// A name under which this machine may be asked, besides localhost; may be repeated
    #[arg(long, value_name = "NAME", value_parser = host)]
    pub host: Vec<String>,

    /// Listen also where other machines can read what is said, tokens among it
    #[arg(long)]
    pub allow_plain_http: bool,

    /// How long requests under way may take when it stops
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub grace: u64,
}

impl ServeArgs {
    /// The same, as words of a command line.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        for listen in &self.listen {
            words.extend(["--listen".to_owned(), listen.to_string()]);
        }
        for host in &self.host {
            words.extend(["--host".to_owned(), host.clone()]);
        }
        if self.allow_plain_http {
            words.push("--allow-plain-http".to_owned());
        }
        if self.grace != 10 {
            words.extend(["--grace".to_owned(), self.grace.to_string()]);
        }
        words
    }
}

/// A place to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    At(SocketAddr),
    Nowhere,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Nowhere => f.write_str("none"),
        }
    }
}

impl FromStr for Listen {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::Nowhere);
        }
        let loopback = |port| Self::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
        if let Ok(port) = text.strip_prefix("localhost:").unwrap_or(text).parse() {
            return Ok(loopback(port));
        }
        let expected = "expected ADDRESS:PORT, as 127.0.0.1:8080 or [::1]:8080, a PORT of the loopback, or none";
        text.parse().map(Self::At).map_err(|_| expected.to_owned())
    }
}

/// A host's name as requests say it, without a port.
fn host(text: &str) -> Result<String, String> {
    let is_name = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    match text.split('.').all(is_name) && text.len() <= 253 {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("expected a host's name, without a port".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_listen_are_read_and_written() {
        for (text, expected) in [
            ("8080", Some("127.0.0.1:8080")),
            ("localhost:8080", Some("127.0.0.1:8080")),
            ("0.0.0.0:1", Some("0.0.0.0:1")),
            ("[::1]:1", Some("[::1]:1")),
            ("none", Some("none")),
            ("example.org:80", None),
            ("127.0.0.1", None),
            ("70000", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Listen>().ok().map(|listen| listen.to_string()).as_deref(), expected, "{text}");
        }
        for (text, is_host) in [("Box.example", true), ("a:1", false), ("", false), ("a..b", false), ("*", false)] {
            assert_eq!(host(text).is_ok(), is_host, "{text}");
        }
    }
}
