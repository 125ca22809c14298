//! A unit for systemd's manager of a user's own services.

use crate::{cli::ServeArgs, failure::Result};
use anyhow::Context;
use std::path::PathBuf;

/// What a unit is made of.
pub struct Facts {
    pub program: PathBuf,
    /// The state folder, where it is not the usual one.
    pub state: Option<PathBuf>,
    pub words: Vec<String>,
    /// Seconds.
    pub grace: u64,
}

impl Facts {
    pub fn of_this_process(serve: &ServeArgs) -> Result<Self> {
        let program = std::env::current_exe().context("cannot tell where this program lies")?;
        let is_chosen = std::env::var_os("ADJUTANT_HOME").is_some_and(|home| !home.is_empty());
        let state = if is_chosen { Some(crate::wiring::state_dir()?) } else { None };
        Ok(Self { program, state, words: serve.words(), grace: serve.grace })
    }
}

/// The unit's text. Sandboxes are built inside of it: what hides or remounts parts of the system (`ProtectSystem=`, `ProtectProc=`,
/// `PrivateDevices=`, `ProtectKernelTunables=`) or forbids namespaces and mounts would leave them without theirs.
pub fn unit(facts: &Facts) -> String {
    let program = facts.program.display().to_string();
    let words: Vec<String> =
        [program.as_str(), "daemon"].into_iter().chain(facts.words.iter().map(String::as_str)).map(quoted).collect();
    let state = facts.state.as_ref().map(|state| format!("ADJUTANT_HOME={}", state.display()));
    let state = state.map(|state| format!("Environment={}\n", quoted(&state))).unwrap_or_default();
    format!(
        "\
[Unit]
Description=Adjutant: runs, supervises and records coding agents
StartLimitIntervalSec=60
StartLimitBurst=5

[Service]
Type=exec
ExecStart={}
{state}# Keys of vendors and other variables, a line for each; a file that only you should be able to read.
EnvironmentFile=-%E/adjutant/daemon.env
Restart=on-failure
RestartSec=2
# The first signal is for the daemon alone, so that it can end its sessions in order.
KillMode=mixed
TimeoutStopSec={}
LimitNOFILE=65536
LimitCORE=0
UMask=0077
# Limits of sandboxes are held by control groups below the daemon's.
Delegate=memory pids
DelegateSubgroup=daemon
# As far as sandboxes can still be built inside.
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
SystemCallArchitectures=native
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK

[Install]
WantedBy=default.target
",
        words.join(" "),
        facts.grace + 30
    )
}

/// A word as units write it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:=@+,[]".contains(c);
    let text: String = word
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            '%' => "%%".to_owned(),
            '$' => "$$".to_owned(),
            c if c.is_control() => format!("\\x{:02x}", u32::from(c)),
            c => c.to_string(),
        })
        .collect();
    if !word.is_empty() && word.chars().all(plain) { text } else { format!("\"{text}\"") }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_mean_in_a_unit_what_they_say() {
        let cases = [
            ("/usr/bin/adjutant", "/usr/bin/adjutant"),
            ("/my dir/a", "\"/my dir/a\""),
            ("50%", "\"50%%\""),
            ("a\"b\\$c", r#""a\"b\\$$c""#),
            ("a\nb", r#""a\x0ab""#),
            ("", "\"\""),
        ];
        for (word, expected) in cases {
            assert_eq!(quoted(word), expected);
        }
    }
}
