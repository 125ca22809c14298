//! `adjutant doctor`: what sandboxes are made of on this machine, what is missing, and what to do about it.

use super::print;
use crate::{
    failure::{Code, Result},
    wiring,
    words::harmless,
};
use adj_sandbox::{Launcher, Survey, SurveyRow};
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
    /// What it could do besides, on a newer system.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lacks: Vec<&'static str>,
    /// What follows from what is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    consequence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Row {
    fn good(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, state: State::Good, detail: detail.into(), lacks: Vec::new(), consequence: None, fix: None }
    }

    fn missing(name: &'static str, detail: impl Into<String>, consequence: &str, fix: &str) -> Self {
        let (consequence, fix) = (Some(consequence.to_owned()), Some(fix.to_owned()));
        Self { name, state: State::Missing, detail: detail.into(), lacks: Vec::new(), consequence, fix }
    }
}

pub async fn doctor(json: bool) -> Result<ExitCode> {
    wiring::forbid_core_dumps()?;
    let state = wiring::state_dir()?;
    DirBuilder::new().recursive(true).mode(0o700).create(&state)?;
    let sandbox = sandbox_rows(Launcher::current_exe()?.survey(&state).await);
    let is_confined = sandbox.iter().all(|row| row.state != State::Missing);
    let others = [policy_rows(), vec![vault_row(&state), daemon_row(&state), git_row()]].concat();
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
        for lacking in &row.lacks {
            text.push_str(&format!("{:<23} lacks: {lacking}\n", ""));
        }
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

/// The layers of a sandbox, as they were surveyed.
fn sandbox_rows(survey: Survey) -> Vec<Row> {
    let shown = |row: SurveyRow| {
        let flag = row.flag.map(|flag| format!("; or accept the risk with `{flag}`")).unwrap_or_default();
        Row {
            name: row.name,
            state: match (row.is_available, row.is_needed) {
                (true, _) if row.lacks.is_empty() => State::Good,
                (false, true) => State::Missing,
                _ => State::Limited,
            },
            detail: row.detail,
            lacks: row.lacks,
            consequence: row.consequence.map(str::to_owned),
            fix: row.fix.map(|fix| format!("{fix}{flag}")),
        }
    };
    survey.rows.into_iter().map(shown).collect()
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

/// A daemon that does not run is started when it is needed, so that nothing is missing.
fn daemon_row(state: &Path) -> Row {
    let place = adj_client::Place::new(wiring::daemon_folder(state));
    let holder = place.holder();
    Row::good(
        "daemon",
        match holder {
            Some(holder) => format!("process {}, version {}", holder.pid, holder.version),
            None if place.is_held() => "running".to_owned(),
            None => "not running; `adjutant daemon start` starts one".to_owned(),
        },
    )
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
    use adj_sandbox::ACCEPTS_RISK;

    fn layer(name: &'static str, is_available: bool, is_needed: bool) -> SurveyRow {
        let (consequence, fix, flag) =
            if is_available { (None, None, None) } else { (Some("nothing runs"), Some("mend it"), Some(ACCEPTS_RISK)) };
        let flag = flag.filter(|_| is_needed);
        SurveyRow {
            name,
            is_available,
            is_needed,
            detail: "as it is".into(),
            lacks: Vec::new(),
            consequence,
            fix,
            flag,
        }
    }

    #[test]
    fn a_missing_layer_comes_with_its_consequence_and_what_to_do() {
        let older = SurveyRow { lacks: vec!["this", "that"], ..layer("Landlock", true, true) };
        let rows =
            [layer("namespaces", false, true), layer("proc", true, true), older, layer("overlay", false, false)].into();
        let rows = sandbox_rows(Survey { rows });
        let states = rows.iter().map(|row| row.state).collect::<Vec<_>>();
        assert_eq!(states, [State::Missing, State::Good, State::Limited, State::Limited]);
        let expected = "\
MISSING  namespaces     as it is
                        so: nothing runs
                        do: mend it; or accept the risk with `--sandbox danger-full-access`
ok       proc           as it is
less     Landlock       as it is
                        lacks: this
                        lacks: that
less     overlay        as it is
                        so: nothing runs
                        do: mend it
";
        assert_eq!(rendered(&rows, true, true), format!("{expected}Sessions run confined here\n"));
        assert!(
            rendered(&rows, false, true).contains("so nothing runs. `--sandbox danger-full-access` accepts the risk")
        );
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
