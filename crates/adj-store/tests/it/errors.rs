//! The words of the errors, as people see them.

use crate::support::*;
use adj_domain::Timestamp;
use adj_store::{AppendError, ClaimError, InsertError, OpenError, ReplaceError, StoreError};
use std::{error::Error, io, path::PathBuf, sync::Arc, time::Duration};

#[test]
fn errors_say_what_was_done_to_which_thing() {
    let path = || PathBuf::from("/state/journal.db");
    let at = Timestamp::from_second(1_700_000_000).unwrap();
    let errors: Vec<Box<dyn Error>> = vec![
        Box::new(StoreError::UnknownLog { log: log("a") }),
        Box::new(StoreError::TooLarge { what: "a blob", size: 9, limit: 8 }),
        Box::new(StoreError::QueueFull { log: log("a"), waiting: 1_000 }),
        Box::new(StoreError::Busy { path: path(), waited: Duration::from_secs(10) }),
        Box::new(StoreError::Full { path: path() }),
        Box::new(StoreError::ReadOnly { path: path() }),
        Box::new(StoreError::Corrupt { path: path(), what: "event 4 of sesn_a: the body is cut".into() }),
        Box::new(StoreError::Io {
            doing: "write to",
            path: path(),
            source: Arc::new(io::Error::other("input/output error")),
        }),
        Box::new(StoreError::Stopped { path: path(), cause: "cannot write to /state/journal.db".into() }),
        Box::new(AppendError::Fenced { log: log("a"), held: 1, epoch: 2 }),
        Box::new(AppendError::HeadMoved { log: log("a"), head: 7 }),
        Box::new(AppendError::NotQueued { log: log("a"), id: id("x") }),
        Box::new(AppendError::InvalidBatch { log: log("a"), why: "the body of an event is not JSON" }),
        Box::new(AppendError::Store(StoreError::Full { path: path() })),
        Box::new(ClaimError::Held { log: log("a"), node: node("n"), pid: 12, since: at }),
        Box::new(ClaimError::NodeTaken { node: node("n") }),
        Box::new(InsertError::Exists { key: agent("agent_1") }),
        Box::new(InsertError::NameTaken { collection: "environments".into(), name: "build".into() }),
        Box::new(InsertError::Invalid { key: agent("agent_1"), why: "its body is not JSON" }),
        Box::new(InsertError::Store(StoreError::Full { path: path() })),
        Box::new(ReplaceError::Missing { key: agent("agent_1") }),
        Box::new(ReplaceError::Archived { key: agent("agent_1") }),
        Box::new(ReplaceError::Conflict { key: agent("agent_1"), version: 3 }),
        Box::new(ReplaceError::NameTaken { collection: "environments".into(), name: "build".into() }),
        Box::new(ReplaceError::Invalid { key: agent("agent_1"), why: "its body is not JSON" }),
        Box::new(OpenError::Missing { path: path() }),
        Box::new(OpenError::NotADirectory { path: "/state".into() }),
        Box::new(OpenError::WrongOwner { path: "/state".into(), owner: 0, user: 1_000 }),
        Box::new(OpenError::OpenToOthers { path: "/state".into(), mode: 0o777, could: "change" }),
        Box::new(OpenError::NotOurs { path: path() }),
        Box::new(OpenError::TooNew { path: path(), found: 9, newest: 1 }),
        Box::new(OpenError::TooOld { path: path(), found: 1 }),
    ];
    let mut shown = String::new();
    for error in errors {
        shown += &format!("{error}\n");
        let mut source = error.source();
        while let Some(cause) = source {
            shown += &format!("  caused by: {cause}\n");
            source = cause.source();
        }
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn node_names_are_plain() {
    for (text, good) in
        [("node_1-a", true), ("", false), ("a/b", false), ("..", false), ("a b", false), (&"x".repeat(65), false)]
    {
        assert_eq!(text.parse::<adj_store::NodeId>().is_ok(), good, "{text:?}");
    }
    assert_eq!(adj_store::NodeId::from_random([7; 12]).as_str(), format!("node_{}", "07".repeat(12)));
}
