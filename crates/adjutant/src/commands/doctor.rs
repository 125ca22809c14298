//! `adjutant doctor`: what sandboxes are made of on this machine, what is missing, and what to do about it.

use super::print;
use crate::{
    failure::{Code, Failure, Result},
    wiring,
    words::harmless,
};
use adj_sandbox::{Capabilities, Launcher, Layer, RunError, SetupError};
use serde::Serialize;
use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::Path,
    process::{Command, ExitCode},
};

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Good,
    /// Something works less well than it could.
    Limited,
    Missing,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    name: &'static str,
    state: State,
    detail: String,
    /// What follows from what is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    consequence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Row {
    fn good(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, state: State::Good, detail: detail.into(), consequence: None, fix: None }
    }

    fn limited(name: &'static str, detail: impl Into<String>, consequence: &str, fix: &str) -> Self {
        let (consequence, fix) = (Some(consequence.to_owned()), Some(fix.to_owned()));
        Self { name, state: State::Limited, detail: detail.into(), consequence, fix }
    }

    fn missing(name: &'static str, detail: impl Into<String>, consequence: &str, fix: &str) -> Self {
        Self { state: State::Missing, ..Self::limited(name, detail, consequence, fix) }
    }
}

pub async fn doctor(json: bool) -> Result<ExitCode> {
    wiring::forbid_core_dumps()?;
    let state = wiring::state_dir()?;
    DirBuilder::new().recursive(true).mode(0o700).create(&state)?;
    let sandbox = sandbox_rows(Launcher::current_exe()?.probe(&state).await);
    let is_confined = sandbox.iter().all(|row| row.state != State::Missing);
    let others = [policy_rows(), vec![vault_row(&state), git_row()]].concat();
    let is_usable = others.iter().all(|row| row.state != State::Missing);
    let rows = [sandbox, others].concat();
    if json {
        print(&format!("{}\n", serde_json::json!({"confined": is_confined, "usable": is_usable, "rows": rows})))?;
    } else {
        print(&rendered(&rows, is_confined, is_usable))?;
    }
    Ok(match (is_confined, is_usable) {
        (false, _) => Code::NoSandbox.into(),
        (true, false) => Code::Usage.into(),
        (true, true) => ExitCode::SUCCESS,
    })
}

fn rendered(rows: &[Row], is_confined: bool, is_usable: bool) -> String {
    let mut text = String::new();
    for row in rows {
        let mark = match row.state {
            State::Good => "ok",
            State::Limited => "less",
            State::Missing => "MISSING",
        };
        text.push_str(&format!("{mark:<8} {:<14} {}\n", row.name, row.detail));
        for (word, said) in [("so", &row.consequence), ("do", &row.fix)] {
            if let Some(said) = said {
                text.push_str(&format!("{:<23} {word}: {said}\n", ""));
            }
        }
    }
    text.push_str(match (is_confined, is_usable) {
        (true, true) => "Sessions run confined here\n",
        (true, false) => "Sandboxes work here, but nothing starts until the rest is mended\n",
        (false, _) => {
            "Nothing runs confined here, so nothing runs. `--sandbox danger-full-access` accepts the risk: commands then \
             have your own rights\n"
        }
    });
    harmless(&text)
}

fn sandbox_rows(probed: std::result::Result<Capabilities, RunError>) -> Vec<Row> {
    let found = match probed {
        Ok(found) => found,
        Err(error) => return vec![broken(&error)],
    };
    let landlock = format!("ABI {}", found.landlock_abi);
    let overlay = match found.overlay_missing {
        None => Row::good("overlay", "private layers over one tree"),
        Some(why) => Row::limited(
            "overlay",
            why,
            "each agent of a run gets a whole copy of the tree: slower, and more disk",
            "put ADJUTANT_HOME on a file system that overlayfs takes (ext4, xfs, btrfs), with Linux 5.11 or newer",
        ),
    };
    vec![
        Row::good("namespaces", "user, mount, pid, network, ipc, uts and cgroup"),
        Row::good("mounts", "private root, /tmp, /dev and /proc"),
        Row::good("seccomp", "system calls are filtered; no new privileges"),
        match found.landlock_lacks.is_empty() {
            true => Row::good("Landlock", landlock),
            false => Row::limited(
                "Landlock",
                landlock,
                &format!("it does not see to {}", found.landlock_lacks.join(", ")),
                "nothing has to be done; a newer kernel brings a second wall there",
            ),
        },
        overlay,
        Row::good("limits", found.limits),
    ]
}

fn broken(error: &RunError) -> Row {
    let RunError::Setup(SetupError { layer, doing, source }) = error else {
        let detail = Failure::from(anyhow::anyhow!("{error}")).error.to_string();
        return Row::missing("sandbox", detail, "no command runs confined", "run it again; if it stays, report it");
    };
    let fix = match layer {
        Layer::Namespaces | Layer::Mounts | Layer::Proc | Layer::Network => {
            "let users make namespaces: `sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000 \
             kernel.apparmor_restrict_unprivileged_userns=0` (those that exist); in a container, a profile that permits it"
        }
        Layer::Landlock => "boot a kernel with Landlock (5.13 or newer, with `landlock` in the `lsm=` list)",
        Layer::Seccomp => "boot a kernel with seccomp filters (CONFIG_SECCOMP_FILTER)",
        _ => "look at what the detail names",
    };
    let name = match layer {
        Layer::Namespaces => "namespaces",
        Layer::Mounts => "mounts",
        Layer::Proc => "proc",
        Layer::Network => "network",
        Layer::Landlock => "Landlock",
        Layer::Seccomp => "seccomp",
        _ => "sandbox",
    };
    Row::missing(name, format!("cannot {doing}: {source}"), "no command runs confined", fix)
}

fn policy_rows() -> Vec<Row> {
    let policy = match wiring::policy() {
        Ok(policy) => policy,
        Err(failure) => {
            let fix = "mend the file; `adjutant policy check` looks at every one";
            return vec![Row::missing("policy", failure.error.to_string(), "nothing starts", fix)];
        }
    };
    let explanation = policy.explain();
    let files = explanation.layers.iter().flat_map(|layer| {
        let rules = layer.rule_files.iter().map(|rules| &rules.file);
        layer.file.iter().chain(rules).map(|file| format!("{} ({})", file, layer.layer))
    });
    let files: Vec<String> = files.collect();
    vec![match files.is_empty() {
        true => Row::good("policy", "no files; what is built in holds"),
        false => Row::good("policy", files.join(", ")),
    }]
}

fn vault_row(state: &Path) -> Row {
    match wiring::vault(state) {
        Ok(vault) => Row::good(
            "vault",
            vault.key_place().map_or_else(
                || "none yet".to_owned(),
                |place| format!("{}; its key lies in {place}", crate::words::count(vault.list().len(), "secret")),
            ),
        ),
        Err(failure) => {
            let fix = failure.hint.unwrap_or_else(|| "look at what the detail names".to_owned());
            Row::missing("vault", failure.error.to_string(), "no session starts", &fix)
        }
    }
}

/// The oldest git that merges without a work tree.
const OLDEST_GIT: (u32, u32) = (2, 38);

fn git_row() -> Row {
    let fix = "install git 2.38 or newer";
    let output = Command::new("git").arg("--version").output();
    let text = match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => return Row::missing("git", "there is none on the PATH", "`adjutant run` cannot work", fix),
    };
    match version(&text) {
        Some(found) if found >= OLDEST_GIT => Row::good("git", text),
        _ => Row::missing("git", text, "`adjutant run` cannot merge", fix),
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().nth(2)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities() -> Capabilities {
        Capabilities { landlock_abi: 7, landlock_lacks: Vec::new(), overlay_missing: None, limits: "rlimits" }
    }

    #[test]
    fn a_missing_layer_comes_with_its_consequence_and_what_to_do() {
        let denied = || std::io::Error::from_raw_os_error(1);
        let missing = |layer| {
            let error = SetupError { layer, doing: "make namespaces".to_owned(), source: denied() };
            sandbox_rows(Err(RunError::Setup(error)))
        };
        for layer in [Layer::Namespaces, Layer::Landlock, Layer::Seccomp, Layer::Helper] {
            let rows = missing(layer);
            assert_eq!(rows[0].state, State::Missing, "{layer}");
            let text = rendered(&rows, false, true);
            assert!(text.contains("so: no command runs confined"), "{text}");
            assert!(text.contains("do: ") && text.contains("danger-full-access"), "{text}");
        }
        assert!(sandbox_rows(Ok(capabilities())).iter().all(|row| row.state == State::Good));
        let older = Capabilities {
            landlock_lacks: vec!["TCP ports (the network namespace does)"],
            overlay_missing: Some("no overlayfs".to_owned()),
            ..capabilities()
        };
        let rows = sandbox_rows(Ok(older));
        assert!(rows.iter().all(|row| row.state != State::Missing), "sessions still run");
        assert_eq!(rows.iter().filter(|row| row.state == State::Limited).count(), 2);
    }

    #[test]
    fn versions_of_git_are_read() {
        for (text, expected) in [
            ("git version 2.39.5", Some((2, 39))),
            ("git version 2.50.1 (Apple Git-155)", Some((2, 50))),
            ("git version 3", None),
            ("", None),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
    }
}
