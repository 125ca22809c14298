//! A process that dies while people are asked, or just before or after, changes nothing about the answer.

use super::{SHELL, approvals, events, goes_on, only_question};
use crate::support::World;
use std::fs;

#[test]
fn a_question_survives_kill_9_wherever_it_strikes() {
    let words = ["exec", "--approval", "untrusted", "echo ran >> ran.txt"];
    for writes in 2.. {
        let world = World::playing(SHELL);
        let folder = world.folder("work", &[]);
        let first = world.run_crashing(&folder, &words, writes);
        assert!(first.was_killed() || first.code == Some(7), "{writes}: {first}");
        let Some(session) = world.list_if_any().into_iter().find(|id| id.starts_with("sesn_")) else { continue };
        let waited = goes_on(&world, &session);
        if waited.code == Some(2) {
            // It died before anybody had told the session anything.
            let is_untold =
                ["there is no session", "has not been told anything"].iter().any(|why| waited.err.contains(why));
            assert!(first.was_killed() && is_untold, "{writes}: {waited}");
            continue;
        }
        let waited = waited.exits(7);
        assert!(!folder.join("ran.txt").exists(), "{writes}: {waited}");
        let (id, _) = only_question(&world);
        approvals(&world, &["allow", &id]).exits(0);
        // It dies again, this time with the answer in hand; the call still runs once.
        world.run_crashing(&folder, &["exec", "--resume", &session], writes % 5 + 1);
        goes_on(&world, &session);
        assert_eq!(fs::read_to_string(folder.join("ran.txt")).expect("it ran"), "ran\n", "{writes}");
        assert_eq!(events(&world, &session, "tool.started"), 1, "{writes}");
        world.verify();
        if first.code == Some(7) {
            return;
        }
    }
}
