//! What an agent leaves in the user's own folder, for others to execute.

use crate::{approvals::SHELL, support::World};
use adj_testkit::git_repository;
use std::fs;

#[test]
fn the_configured_folder_of_hooks_cannot_be_changed() {
    let hook = "#!/bin/sh\nexit 0\n";
    for (configured, folder) in
        [("tools/hooks", "tools/hooks"), ("./tools/../tools/hooks", "tools/hooks"), ("later/hooks", "later/hooks")]
    {
        let world = World::playing(SHELL);
        let repository = git_repository(&[("tools/hooks/pre-commit", hook)]);
        repository.git(&["config", "core.hooksPath", configured]);
        let top = folder.split('/').next().expect("a folder");
        let plant =
            format!("mkdir -p {folder}; echo planted >> {folder}/pre-commit; echo planted > {folder}/post-commit");
        let command = format!("{plant}; mv {top} moved; {plant}; ln -s . {top}; echo tried");
        let done = world.run(repository.path(), &["exec", &command]).exits(0);
        assert!(done.out.contains("tried"), "{configured}: {done}");
        let at = repository.path().join(folder);
        assert!(!at.join("post-commit").exists(), "{configured}: {done}");
        let left = fs::read_to_string(at.join("pre-commit")).unwrap_or_default();
        assert_eq!(left, if top == "tools" { hook } else { "" }, "{configured}: {done}");
    }
}
