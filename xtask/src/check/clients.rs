//! Runs the tests that need programs and libraries of other makers, after installing these.

use super::Outcome;
use crate::{peers, repository::Repository, toolbox};
use anyhow::Result;
use std::path::PathBuf;

/// Returns where something lies, after installing it if it is not there.
type Find = fn(&Repository) -> Result<PathBuf>;

/// What is needed, and the variable in which its place is told.
const CLIENTS: [(&str, Find); 4] = [
    ("ADJUTANT_CLIENT_CODEX", peers::codex),
    ("ADJUTANT_CLIENT_CLAUDE", peers::claude_code),
    ("ADJUTANT_CLIENT_GEMINI", peers::gemini_cli),
    ("ADJUTANT_CLIENT_PYTHON", peers::official_libraries),
];

pub fn check(repository: &Repository) -> Result<Outcome> {
    let mut places = Vec::new();
    for (variable, find) in CLIENTS {
        match find(repository) {
            Ok(place) => places.push((variable, place)),
            Err(error) => return Ok(Outcome::NotChecked(format!("a client is not to be had ({error:#})"))),
        }
    }
    // Whatever they leave in a home or among temporary files stays in the target folder.
    let scratch = repository.scratch("clients")?;
    let mut tests = toolbox::NEXTEST
        .invocation(repository)?
        .args(["nextest", "run", "--workspace", "--locked", "--no-tests=fail", "--run-ignored", "only", "--no-capture"])
        .args(["-E", "package(adjutant) and test(/^clients::/)"])
        .env("TMPDIR", &scratch);
    for (variable, place) in places {
        tests = tests.env(variable, place);
    }
    Ok(match tests.succeeds()? {
        true => Outcome::Passed(String::new()),
        false => Outcome::Failed(vec![
            "a client of another maker does not work, or docs/gateway.md shows another table than was found; see above \
             (ADJUTANT_WRITE_TABLES=1 writes the table)"
                .to_owned(),
        ]),
    })
}
