//! What `adjutant sandbox` says of sandboxes, and of commands that did not run.

use super::Transcript;
use crate::support::World;

const ORGANISATION: &str = r#"allowed_sandbox_modes = ["read-only", "workspace-write"]
[network]
hosts = ["example.org", "*.example.net", "crates.io"]
denied_hosts = ["files.example.org"]
[filesystem]
hidden = ["**/.env"]
readonly = ["Makefile"]
[limits]
memory = "1GiB"
wall = "10m"
[profiles.web]
network = { hosts = ["example.org", "*.example.net:8443"] }
limits = { processes = 100, memory = "2GiB" }
hidden = ["private/**"]
read = ["/opt"]
"#;

#[test]
fn a_sandbox_is_explained() {
    let world = World::new();
    let folder = world.folder("work", &[]);
    let mut transcript = Transcript::of(&world);
    let mut explain = |words: &[&str]| transcript.types_at(&folder, &[&["sandbox", "explain"], words].concat());
    explain(&[]);
    explain(&["--sandbox", "danger-full-access"]);
    world.settings("policy.toml", ORGANISATION);
    let words = ["--profile", "web", "--limit", "tmp=64MiB", "--limit", "output=1MiB"];
    explain(&words);
    explain(&[&words[..], &["--json"]].concat());
    explain(&["--sandbox", "read-only", "--allow-host", "evil.example.com"]);
    explain(&["--sandbox", "danger-full-access"]);
    insta::assert_snapshot!(transcript.end());
}

#[test]
fn commands_that_did_not_run() {
    let world = World::new();
    let folder = world.folder("work", &[]);
    let mut transcript = Transcript::of(&world);
    let mut types = |words: &[&str]| transcript.types_at(&folder, &[&["sandbox"], words].concat());
    types(&[]);
    types(&["true"]);
    types(&["--", "no-such-program"]);
    types(&["--", "./no-such-file"]);
    types(&["--", "/etc"]);
    types(&["--cd", "/", "--", "true"]);
    types(&["--cd", "missing", "--", "true"]);
    types(&["--limit", "memory=2GB", "--", "true"]);
    types(&["--allow-host", "10.0.0.1", "--", "true"]);
    types(&["--profile", "pakages", "--", "true"]);
    types(&["--secret", "token", "--", "true"]);
    types(&["--secret", "token", "--allow-host", "example.org", "--", "true"]);
    types(&["--limit", "wall=100ms", "--", "sleep", "10"]);
    world.settings("policy.toml", ORGANISATION);
    types(&["--sandbox", "danger-full-access", "--", "true"]);
    insta::assert_snapshot!(transcript.end());
}
