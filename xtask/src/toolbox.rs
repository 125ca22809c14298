//! The programs that the check needs beside cargo: found where they are, or installed into the target folder.

use crate::{
    command::{self, Invocation},
    repository::Repository,
};
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;

/// A cargo subcommand from the registry.
#[derive(Debug)]
pub struct Tool {
    pub package: &'static str,
    pub purpose: &'static str,
    /// The oldest version that will do, and the one that is installed.
    pub version: (u64, u64, u64),
    /// What of the package is needed, as arguments of `cargo install`.
    features: &'static [&'static str],
}

pub const NEXTEST: Tool = Tool {
    package: "cargo-nextest",
    purpose: "runs the tests, each in its own process",
    version: (0, 9, 143),
    features: &["--no-default-features", "--features", "default-no-update"],
};

pub const DENY: Tool = Tool {
    package: "cargo-deny",
    purpose: "checks the dependencies' licences, sources and advisories",
    version: (0, 20, 2),
    features: &[],
};

impl Tool {
    /// Returns an invocation of the tool, after installing it if there is none.
    pub fn invocation(&self, repository: &Repository) -> Result<Invocation> {
        let installed = repository.target().join("tools/bin").join(self.package);
        for program in [PathBuf::from(self.package), installed.clone()] {
            if self.found_version(repository, &program).is_some_and(|found| found >= self.version) {
                return Ok(Invocation::new(program, &repository.root));
            }
        }
        self.install(repository)?;
        Ok(Invocation::new(installed, &repository.root))
    }

    fn found_version(&self, repository: &Repository, program: &PathBuf) -> Option<(u64, u64, u64)> {
        let text = Invocation::new(program, &repository.root).args(["--version"]).output().ok()?;
        parse_version(&text)
    }

    fn install(&self, repository: &Repository) -> Result<()> {
        let (major, minor, patch) = self.version;
        let version = format!("{major}.{minor}.{patch}");
        eprintln!(
            "     installing {} {version}, which {}, into {} (once; takes a few minutes)",
            self.package,
            self.purpose,
            repository.target().join("tools").display()
        );
        let done = command::cargo(&repository.root)
            .args(["install", "--locked", "--version", &version, self.package, "--root"])
            .args([repository.target().join("tools")])
            .args(self.features)
            // It is built to be used a few times: a quick build is worth more than a quick program.
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
            .succeeds()
            .with_context(|| format!("cannot install {}", self.package))?;
        ensure!(done, "cannot install {} {version}", self.package);
        Ok(())
    }
}

/// Reads the version out of a line such as `cargo-nextest 0.9.143 (60fa45f63 2026-08-04)`.
fn parse_version(text: &str) -> Option<(u64, u64, u64)> {
    let version = text.lines().next()?.split_whitespace().nth(1)?;
    let mut numbers = version.split(['.', '-', '+']).map(|part| part.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_the_first_line() {
        let cases = [
            ("cargo-nextest 0.9.143 (60fa45f63 2026-08-04)\nrelease: 0.9.143\n", Some((0, 9, 143))),
            ("cargo-deny 0.20.2\n", Some((0, 20, 2))),
            ("cargo-deny 1.0.0-rc.1\n", Some((1, 0, 0))),
            ("cargo-deny\n", None),
            ("cargo-deny one.two.three\n", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_version(text), expected, "{text:?}");
        }
    }
}
