//! Licences, sources, duplicates and advisories of the dependencies.

use super::Outcome;
use crate::{repository::Repository, toolbox};
use anyhow::Result;
use std::time::Duration;

/// How long the advisories may take to arrive.
const FETCH_DEADLINE: Duration = Duration::from_secs(120);

pub fn check(repository: &Repository) -> Result<Outcome> {
    let deny = || toolbox::DENY.invocation(repository);
    let quiet = ["--log-level", "error"];
    let mut problems = Vec::new();
    if !deny()?.args(quiet).args(["--locked", "check", "licenses", "bans", "sources"]).succeeds()? {
        problems.push("a licence, a source or a banned dependency, see above".to_owned());
    }

    // Only the transport may fail without consequence, so it is a call of its own.
    let fetched = deny()?.args(["--locked", "fetch", "db"]).heard_within(FETCH_DEADLINE)?;
    if fetched.status.is_some_and(|status| status.success()) {
        if !deny()?.args(quiet).args(["--locked", "check", "--disable-fetch", "advisories"]).succeeds()? {
            problems.push("an advisory, see above".to_owned());
        }
        return Ok(Outcome::of(problems, ""));
    }
    let reason = match fetched.status {
        Some(_) => fetched
            .text
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("no reason given")
            .trim()
            .to_owned(),
        None => format!("no answer within {} s", FETCH_DEADLINE.as_secs()),
    };
    if problems.is_empty() {
        Ok(Outcome::NotChecked(format!(
            "advisories, because their database could not be fetched ({reason}); licences, sources and duplicates passed"
        )))
    } else {
        problems.push(format!("not checked: advisories, because their database could not be fetched ({reason})"));
        Ok(Outcome::Failed(problems))
    }
}
