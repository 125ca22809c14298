//! What the daemon and its tokens say, and what stands in their way.

use super::Transcript;
use crate::support::World;
use std::{fs, os::unix::fs::PermissionsExt};

#[test]
fn a_daemon_and_its_tokens() {
    let world = World::new();
    let mut transcript = Transcript::of(&world);
    transcript.types(&["daemon", "status"]);
    transcript.types(&["daemon", "status", "--json"]);
    transcript.types(&["daemon", "stop"]);
    transcript.types(&["daemon", "start", "--listen", "none"]);
    transcript.types(&["daemon", "start"]);
    transcript.types(&["daemon"]);
    transcript.types(&["daemon", "status"]);
    transcript.types(&["daemon", "status", "--json"]);
    transcript.types(&["token", "create", "--name", "notebook"]);
    transcript.types(&["token", "create", "--scope", "admin", "--expires", "12h"]);
    transcript.types(&["token", "list"]);
    transcript.types(&["token", "list", "--json"]);
    transcript.types(&["daemon", "stop"]);
    let text = transcript.end();
    assert!(!world.state().join("daemon/socket").exists());
    insta::assert_snapshot!(text);
}

#[test]
fn a_daemon_that_cannot_be() {
    let mut world = World::new();
    let mut transcript = Transcript::of(&world);
    transcript.types(&["daemon", "--listen", "0.0.0.0:0"]);
    transcript.types(&["daemon", "start", "--listen", "0.0.0.0:0"]);
    transcript.types(&["daemon", "--listen", "somewhere"]);
    transcript.types(&["daemon", "--listen", "1", "status"]);
    transcript.types(&["token", "create", "--expires", "soon"]);
    transcript.types(&["token", "create", "--name", ""]);
    transcript.types(&["token", "revoke", "tok_0123456789abcdef"]);
    let folder = world.state().join("daemon");
    fs::create_dir(folder.join("socket")).expect("our own folder");
    transcript.notes("with a folder where the socket should be");
    transcript.types(&["daemon", "--listen", "none"]);
    fs::write(folder.join("tokens"), "{").expect("our own folder");
    fs::set_permissions(folder.join("tokens"), fs::Permissions::from_mode(0o600)).expect("our own file");
    transcript.notes("with a damaged file of tokens");
    transcript.types(&["token", "list"]);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("our own folder");
    transcript.notes("with a folder that others can look into");
    transcript.types(&["daemon"]);
    let mut text = transcript.end();
    world.set("ADJUTANT_LOG", "loud");
    let mut transcript = Transcript::of(&world);
    transcript.notes("with ADJUTANT_LOG=loud");
    transcript.types(&["daemon"]);
    text += &transcript.end();
    insta::assert_snapshot!(text);
}

#[test]
fn the_unit_for_systemd() {
    let world = World::new();
    let done = world.run(world.home.path(), &["daemon", "--listen", "8080", "--grace", "60", "--print-unit"]).exits(0);
    let program = env!("CARGO_BIN_EXE_adjutant");
    insta::assert_snapshot!(super::stable(&world, &done.out.replace(program, "/usr/bin/adjutant")));
}
