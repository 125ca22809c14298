//! Using up what others need; harmless in size, yet more than the limits allow.

use std::fs;
use std::time::Duration;

use adj_sandbox::Plan;

use super::Harm::{Broken, Seen, Took};
use super::{Case, Whose, case};
use crate::stage::Stage;

/// A quarter of what most bombs here try to get.
fn small(_: &Stage, plan: &mut Plan) {
    let limits = &mut plan.limits;
    limits.memory_bytes = 64 << 20;
    limits.processes = 40;
    limits.open_files = 200;
    limits.file_size_bytes = 1 << 20;
    limits.tmp_bytes = 4 << 20;
    limits.disk_bytes = 8 << 20;
    limits.output_bytes = 1 << 20;
    limits.wall = Duration::from_secs(15);
}

fn cramped(_: &Stage, plan: &mut Plan) {
    plan.limits.disk_bytes = 128 << 10;
}

fn brief(_: &Stage, plan: &mut Plan) {
    plan.limits.cpu = Duration::from_millis(250);
}

fn short(_: &Stage, plan: &mut Plan) {
    plan.limits.wall = Duration::from_secs(1);
}

pub(super) const CASES: &[Case] = &[
    case("memory", "$ATTACK private-memory 256", Broken).with(small),
    case("memory that is shared", "$ATTACK shared-anonymous 256", Broken).with(small),
    case("memory of several processes", "for i in 1 2 3 4 5 6; do $ATTACK private-memory 50 & done; wait", Broken).with(small),
    case("memory behind an ended first thread", "$ATTACK leaderless-memory 256", Broken).with(small),
    case("memory in files without names", "$ATTACK unmapped-file 150", Broken).with(small),
    case("memory in segments", "$ATTACK segments 256", Broken).with(small),
    case("memory in message queues", "$ATTACK messages 96", Broken).with(small),
    case("memory of shared mappings that was given back", "$ATTACK given-back 16", Broken).with(small)
        .known_hole(Whose::Some, "what is shared and mapped by nobody any more, but for a page, is counted only by a cgroup"),
    case("memory in /dev/shm", "head -c 900000 /dev/zero > /dev/shm/$ABSTRACT.1; for i in 2 3 4 5 6; do cp /dev/shm/$ABSTRACT.1 /dev/shm/$ABSTRACT.$i || exit; done; echo BROKEN; rm /dev/shm/$ABSTRACT.*", Broken)
        .with(small)
        .where_("/dev/shm for everybody", || rustix::fs::access("/dev/shm", rustix::fs::Access::WRITE_OK).is_ok()),
    case("processes", "$ATTACK processes 60", Broken).with(small),
    case("threads", "$ATTACK threads 60", Broken).with(small),
    case("open files", "$ATTACK descriptors-bomb 300", Broken).with(small),
    case("a larger limit", "ulimit -n 4000 && echo BROKEN", Broken).with(small).where_("room for files", || {
        rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.is_none_or(|most| most >= 4000)
    }),
    case("a large file", "head -c 2000000 /dev/zero > big", Seen(|stage| fs::metadata(stage.workspace.join("big")).is_ok_and(|found| found.len() > 1 << 20))).with(small),
    case("a large file by truncation", "truncate -s 2000000 big", Seen(|stage| fs::metadata(stage.workspace.join("big")).is_ok_and(|found| found.len() > 1 << 20))).with(small),
    case("a full /tmp", "d=$(mktemp -d); for i in 1 2 3 4 5 6; do head -c 1000000 /dev/zero > $d/$i || exit; done; rm -r $d; echo BROKEN", Broken).with(small),
    case("very many files in /tmp", "d=$(mktemp -d); cd $d; for i in $(seq 2000); do : > $i || exit; done; rm -r $d; echo BROKEN", Broken).with(small),
    case("very many files in the home", "d=$HOME/$OWN; mkdir -p $d; cd $d || exit; for i in $(seq 2000); do : > $i || exit; done; cd /; rm -r $d; echo BROKEN", Broken)
        .with(small)
        .shown_by("HOME=$OUT; d=$HOME/$OWN; mkdir -p $d; cd $d || exit; for i in $(seq 2000); do : > $i || exit; done; cd /; rm -r $d; echo BROKEN"),
    case("output", "head -c 6000000 /dev/zero; echo BROKEN", Broken).with(small),
    case("output on both", "head -c 3000000 /dev/zero >&2 & head -c 3000000 /dev/zero; wait; echo BROKEN", Broken).with(small),
    case("time", "trap '' TERM HUP; sleep 3", Took(Duration::from_millis(2900))).with(short),
    case("time of a busy process", "timeout 3 bash -c 'while :; do :; done'", Took(Duration::from_millis(2900))).with(short),
    case("processor time", "timeout 2.5 bash -c 'while :; do :; done'", Took(Duration::from_millis(2400))).with(brief),
    case("processor time of daemons", "for i in 1 2 3; do (setsid timeout 2.5 bash -c 'while :; do :; done' &); done; sleep 2.5", Took(Duration::from_millis(2400))).with(brief),
    case("processor time of children nobody waits for", "timeout 2.5 perl -e '$SIG{CHLD} = \"IGNORE\"; while (1) { for (1..4) { fork or do { for (1..3e6) {} exit } } select undef, undef, undef, 0.3 }'", Took(Duration::from_millis(2400))).with(brief),
    case("a full workspace", "for i in $(seq 40); do head -c 1000000 /dev/zero > big$i || exit; done; sleep 1.5; rm big*; echo BROKEN", Broken).with(small),
    case("very many files in the workspace", "mkdir many; perl -e 'for (1..600) { open F, \">many/$_\" or exit 1 }' || exit; sleep 1.5; rm -r many; echo BROKEN", Broken).with(cramped),
    case("a full workspace without names", "$ATTACK deleted-files 150", Broken).with(small),
    case("priority", "test $(nice -n -5 nice) -lt 0 && echo BROKEN", Broken).with(small).by_root(),
    case("real time", "chrt -f 5 true && echo BROKEN", Broken).with(small).by_root(),
];

#[tokio::test]
async fn bombs_stay_inside() {
    super::nobody_gets_out("resources", "escapes::resources::bombs_stay_inside", CASES).await;
}
