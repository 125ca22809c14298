//! The table of what a sandbox on this machine is made of: one row for each layer, also where some are missing.
//!
//! Must not know: how the table is shown.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{ACCEPTS_RISK, Layer, SetupError};
use crate::helper::limit_mechanism;
use crate::launch::{Command, Launcher, RunError};
use crate::plan::{Mode, Plan};
use crate::probe::landlock_abi;
use crate::wire::{Job, receive_report_async};

/// What [`Launcher::survey`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Survey {
    pub rows: Vec<SurveyRow>,
}

impl Survey {
    /// Whether commands run confined here; otherwise none runs, unless the risk is accepted.
    pub fn is_confined(&self) -> bool {
        self.rows.iter().all(|row| row.is_available || !row.is_needed)
    }
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SurveyRow {
    pub name: &'static str,
    pub is_available: bool,
    /// Without it nothing runs.
    pub is_needed: bool,
    /// What there is, or what went wrong.
    pub detail: String,
    /// What newer kernels could do besides, and who does it here.
    pub lacks: Vec<&'static str>,
    /// What follows from what is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consequence: Option<&'static str>,
    /// What brings it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<&'static str>,
    /// The flag that goes without all layers, where this one is needed and missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<&'static str>,
}

/// What can be tried alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Part {
    UserNamespace,
    MountNamespace,
    PidNamespace,
    NetworkNamespace,
    IpcNamespace,
    HostNameNamespace,
    CgroupNamespace,
    Mounts,
    Proc,
    Loopback,
    Privileges,
    Landlock,
    Seccomp,
}

impl Part {
    fn layer(self) -> Layer {
        match self {
            Part::Mounts => Layer::Mounts,
            Part::Proc => Layer::Proc,
            Part::Loopback => Layer::Network,
            Part::Privileges => Layer::Privileges,
            Part::Landlock => Layer::Landlock,
            Part::Seccomp => Layer::Seccomp,
            _ => Layer::Namespaces,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Part::UserNamespace => "user",
            Part::MountNamespace => "mount",
            Part::PidNamespace => "pid",
            Part::NetworkNamespace => "network",
            Part::IpcNamespace => "ipc",
            Part::HostNameNamespace => "host name",
            Part::CgroupNamespace => "cgroup",
            Part::Mounts => "a root of its own",
            Part::Proc => "a new /proc",
            Part::Loopback => "the loopback interface",
            Part::Privileges => "dropping capabilities",
            Part::Landlock => "rules for files",
            Part::Seccomp => "system call filters",
        }
    }
}

/// What came of trying a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trial {
    pub part: Part,
    /// The error it came to.
    pub errno: Option<i32>,
}

/// Which namespaces cannot be made, in words; all of them where trying each alone shows none.
pub(crate) fn missing_namespaces(trials: &[Trial]) -> String {
    // In the absence of the first all others are missing, too.
    let missing = trials.iter().filter(|trial| trial.errno.is_some());
    let names: Vec<&str> = missing.map(|trial| trial.part.words()).collect();
    match names.as_slice() {
        [] => "user, mount, pid, network, ipc, host name and cgroup namespaces together".to_owned(),
        ["user", ..] => "a user namespace".to_owned(),
        [name] => format!("a {name} namespace"),
        names => format!("{} namespaces", names.join(", ")),
    }
}

/// Everything that the table is made from.
#[derive(Debug, Clone)]
struct Findings {
    /// What came of running a command in all layers together.
    whole: Result<(), (Option<Layer>, String)>,
    /// What came of trying each alone, or why that was not possible.
    trials: Result<Vec<Trial>, String>,
    landlock_abi: i32,
    overlay: Result<(), String>,
    limits: &'static str,
}

impl Launcher {
    /// Tries everything that sandboxes need, together and each alone; `scratch` is an existing folder where workspaces will lie.
    pub async fn survey(&self, scratch: &Path) -> Survey {
        let command = Command::new(["true"]);
        let whole = match self.run(&Plan::new(Mode::WorkspaceWrite), &command).await {
            Ok(finished) if finished.exit.is_success() => Ok(()),
            Ok(finished) => Err((None, format!("`true` ended with {:?}", finished.exit))),
            Err(error) => Err(told(error)),
        };
        let overlay = match &whole {
            Ok(()) => self.try_overlay(scratch).await.unwrap_or_else(|error| Err(told(error).1)),
            Err(_) => Err("not tried, because what it needs is missing".to_owned()),
        };
        let trials = self.try_each().await.map_err(|error| format!("cannot start the sandbox helper: {error}"));
        rows(&Findings { whole, trials, landlock_abi: landlock_abi(), overlay, limits: limit_mechanism().text() })
    }

    async fn try_each(&self) -> io::Result<Vec<Trial>> {
        let mut helper = self.start_helper(&Job::Survey, &[])?;
        let (trials, _) = receive_report_async(&helper.socket).await?;
        // It has nothing more to say; waiting only takes its entry off the process table.
        let _ = helper.child.wait().await;
        Ok(trials)
    }
}

fn told(error: RunError) -> (Option<Layer>, String) {
    match error {
        RunError::Setup(SetupError { layer, doing, source }) => (Some(layer), format!("cannot {doing}: {source}")),
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(&other);
            while let Some(cause) = source {
                let _ = write!(text, ": {cause}");
                source = cause.source();
            }
            (None, text)
        }
    }
}

/// The layers in the order in which they are built, and what they are when all is well.
const LAYERS: [(Layer, &str, &str); 9] = [
    (Layer::Helper, "helper", "starts, and runs a command in all layers together"),
    (Layer::Namespaces, "namespaces", "user, mount, pid, network, ipc, host name and cgroup"),
    (Layer::Mounts, "mounts", "private root, /tmp, /dev and home"),
    (Layer::Proc, "proc", "shows only what runs inside; not writable"),
    (Layer::Network, "network", "a loopback of its own, and no way out"),
    (Layer::Privileges, "privileges", "no capabilities, no new ones by set-user-id programs"),
    (Layer::Landlock, "Landlock", "writing only where the mode allows"),
    (Layer::Seccomp, "seccomp", "system calls, sockets and set-user-id bits are filtered"),
    (Layer::Limits, "limits", ""),
];

/// What each Landlock ABI brought, and who sees to it where the ABI is older.
const LANDLOCK_BROUGHT: [(i32, &str); 8] = [
    (2, "moving and linking files from folder to folder (ABI 2)"),
    (3, "cutting files off (ABI 3)"),
    (4, "TCP ports (ABI 4); the network namespace sees to them"),
    (5, "commands to devices (ABI 5); the private /dev and seccomp see to them"),
    (6, "abstract sockets and signals (ABI 6); the network and pid namespaces see to them"),
    (7, "choosing what the audit log tells (ABI 7); nothing depends on it"),
    (8, "confining all threads of a process at once (ABI 8); helpers have only one"),
    (
        9,
        "sockets with a path (ABI 9); those that are there when a sandbox opens are covered, but not those that programs outside \
         make later, nor, beside the workspace, those of other network namespaces (containers)",
    ),
];

/// What an ABI does not see to.
pub(crate) fn landlock_lacks(abi: i32) -> Vec<&'static str> {
    LANDLOCK_BROUGHT.iter().filter(|(brought, _)| abi < *brought).map(|(_, what)| *what).collect()
}

/// The table, whatever was found.
fn rows(findings: &Findings) -> Survey {
    let mut rows: Vec<SurveyRow> = LAYERS.iter().map(|(layer, name, good)| row(findings, *layer, name, good)).collect();
    let overlay = findings.overlay.as_ref();
    rows.push(SurveyRow {
        name: "overlay",
        is_available: overlay.is_ok(),
        is_needed: false,
        detail: overlay.err().map_or("private layers over one tree".to_owned(), Clone::clone),
        lacks: Vec::new(),
        consequence: overlay.err().map(|_| "each agent of a run gets a whole copy of the tree: slower, and more disk"),
        fix: overlay.err().map(|_| match findings.whole {
            Ok(()) => Layer::Overlay.fix(),
            Err(_) => "mend first what is needed and missing",
        }),
        flag: None,
    });
    Survey { rows }
}

fn row(findings: &Findings, layer: Layer, name: &'static str, good: &str) -> SurveyRow {
    let good = match layer {
        Layer::Limits => findings.limits,
        // What does not work together is said by the row that it is about.
        Layer::Helper if findings.whole.is_err() => "starts",
        _ => good,
    };
    let wrong = wrong_with(findings, layer);
    let is_available = wrong.is_none();
    let mut lacks: Vec<&'static str> = Vec::new();
    let mut detail = wrong.unwrap_or_else(|| good.to_owned());
    if layer == Layer::Landlock && is_available {
        let abi = findings.landlock_abi;
        detail = format!("ABI {abi}: {detail}");
        lacks = landlock_lacks(abi);
    }
    SurveyRow {
        name,
        is_available,
        is_needed: true,
        detail,
        lacks,
        consequence: (!is_available).then_some("no command runs confined, so none runs"),
        fix: (!is_available).then(|| layer.fix()),
        flag: (!is_available).then_some(ACCEPTS_RISK),
    }
}

/// Why a layer counts as missing.
fn wrong_with(findings: &Findings, layer: Layer) -> Option<String> {
    let trials = findings.trials.as_deref().unwrap_or_default();
    let failed: Vec<&Trial> =
        trials.iter().filter(|trial| trial.part.layer() == layer && trial.errno.is_some()).collect();
    let whole = findings.whole.as_ref().err();
    let of_whole = whole.filter(|(missing, _)| *missing == Some(layer)).map(|(_, text)| text.clone());
    match (layer, failed.first()) {
        (Layer::Helper, _) => {
            let of_trials = findings.trials.as_ref().err().cloned();
            // What no other row can say.
            let unplaced = whole.filter(|(missing, _)| {
                missing.is_none_or(|missing| LAYERS.iter().all(|(known, ..)| *known != missing))
            });
            of_whole.or(of_trials).or(unplaced.map(|(_, text)| text.clone()))
        }
        (Layer::Landlock, Some(_)) if findings.landlock_abi < 1 => Some("the kernel has none".to_owned()),
        (Layer::Landlock, Some(_)) if of_whole.is_none() && findings.landlock_abi < 3 => {
            Some(format!("ABI {}; 3 is the first that suffices", findings.landlock_abi))
        }
        (Layer::Namespaces, Some(first)) => {
            let all: Vec<Trial> = failed.iter().map(|trial| (*trial).clone()).collect();
            Some(format!("cannot create {}: {}", missing_namespaces(&all), words(first.errno)))
        }
        (_, Some(first)) => Some(of_whole.unwrap_or_else(|| {
            // What is tried alone is tried in a user namespace, and says nothing where there is none.
            let is_tried = trials.iter().all(|trial| trial.part != Part::UserNamespace || trial.errno.is_none());
            match (layer, is_tried) {
                (Layer::Landlock | Layer::Seccomp, _) | (_, true) => {
                    format!("cannot have {}: {}", first.part.words(), words(first.errno))
                }
                (_, false) => "cannot be tried without a user namespace".to_owned(),
            }
        })),
        (_, None) => of_whole,
    }
}

fn words(errno: Option<i32>) -> String {
    match errno {
        Some(errno @ 1..255) => io::Error::from_raw_os_error(errno).to_string(),
        _ => "for an unknown reason".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Part; 13] = [
        Part::UserNamespace,
        Part::MountNamespace,
        Part::PidNamespace,
        Part::NetworkNamespace,
        Part::IpcNamespace,
        Part::HostNameNamespace,
        Part::CgroupNamespace,
        Part::Mounts,
        Part::Proc,
        Part::Loopback,
        Part::Privileges,
        Part::Landlock,
        Part::Seccomp,
    ];

    fn findings(failed: &[(Part, i32)], whole: Result<(), (Option<Layer>, &str)>) -> Findings {
        let errno = |part: Part| failed.iter().find(|(other, _)| *other == part).map(|(_, errno)| *errno);
        Findings {
            whole: whole.map_err(|(layer, text)| (layer, text.to_owned())),
            trials: Ok(ALL.map(|part| Trial { part, errno: errno(part) }).into()),
            landlock_abi: 9,
            overlay: Ok(()),
            limits: "as they are",
        }
    }

    /// The rows that are not as they should be.
    fn wrong(findings: &Findings) -> Vec<(&'static str, String)> {
        let survey = rows(findings);
        for row in &survey.rows {
            assert_eq!(row.fix.is_some(), !row.is_available, "{row:?}");
            assert_eq!(row.flag.is_some(), row.is_needed && !row.is_available, "{row:?}");
            assert!(row.is_available || row.consequence.is_some(), "{row:?}");
        }
        let missing = survey.rows.iter().filter(|row| !row.is_available);
        let missing: Vec<_> = missing.map(|row| (row.name, row.detail.clone())).collect();
        assert_eq!(survey.is_confined(), missing.iter().all(|(name, _)| *name == "overlay"));
        missing
    }

    #[test]
    fn each_missing_layer_is_named_and_the_others_are_still_shown() {
        use libc::{EACCES, EINVAL, ENOSPC, ENOSYS, EPERM};
        let user = [Part::UserNamespace, Part::NetworkNamespace, Part::Mounts, Part::Proc].map(|part| (part, ENOSPC));
        let denied = Some(Layer::Namespaces);
        let cases: [(Findings, &[(&str, &str)]); 9] = [
            (findings(&[], Ok(())), &[]),
            (
                findings(&user, Err((denied, "cannot create a user namespace: full"))),
                &[
                    ("namespaces", "cannot create a user namespace: No space left on device (os error 28)"),
                    ("mounts", "cannot be tried without a user namespace"),
                    ("proc", "cannot be tried without a user namespace"),
                ],
            ),
            (
                findings(&[(Part::NetworkNamespace, ENOSPC), (Part::Loopback, ENOSPC)], Err((denied, "x"))),
                &[
                    ("namespaces", "cannot create a network namespace: No space left on device (os error 28)"),
                    ("network", "cannot have the loopback interface: No space left on device (os error 28)"),
                ],
            ),
            (
                findings(&[(Part::IpcNamespace, EINVAL), (Part::CgroupNamespace, EINVAL)], Err((denied, "x"))),
                &[("namespaces", "cannot create ipc, cgroup namespaces: Invalid argument (os error 22)")],
            ),
            (
                findings(&[(Part::Proc, EPERM)], Err((Some(Layer::Proc), "cannot mount a new /proc: not permitted"))),
                &[("proc", "cannot mount a new /proc: not permitted")],
            ),
            (
                findings(&[(Part::Seccomp, EACCES)], Err((Some(Layer::Landlock), "cannot confine file access: no"))),
                &[
                    ("Landlock", "cannot confine file access: no"),
                    ("seccomp", "cannot have system call filters: Permission denied (os error 13)"),
                ],
            ),
            (
                Findings { landlock_abi: 0, ..findings(&[(Part::Landlock, ENOSYS)], Ok(())) },
                &[("Landlock", "the kernel has none")],
            ),
            (
                Findings { landlock_abi: 2, ..findings(&[(Part::Landlock, ENOSYS)], Ok(())) },
                &[("Landlock", "ABI 2; 3 is the first that suffices")],
            ),
            // Something that no row stands for is said by the first.
            (findings(&[], Err((None, "the helper is gone"))), &[("helper", "the helper is gone")]),
        ];
        for (findings, expected) in cases {
            let found = wrong(&findings);
            let found: Vec<_> = found.iter().map(|(name, detail)| (*name, detail.as_str())).collect();
            assert_eq!(found, expected, "{findings:?}");
        }
    }

    #[test]
    fn the_table_is_whole_even_without_a_helper() {
        let findings = Findings {
            trials: Err("cannot start the sandbox helper: no such file".to_owned()),
            overlay: Err("not tried".to_owned()),
            ..findings(&[], Err((None, "cannot start the sandbox helper: no such file")))
        };
        let names: Vec<&str> = rows(&findings).rows.iter().map(|row| row.name).collect();
        let expected = [
            "helper",
            "namespaces",
            "mounts",
            "proc",
            "network",
            "privileges",
            "Landlock",
            "seccomp",
            "limits",
            "overlay",
        ];
        assert_eq!(names, expected);
        assert_eq!(wrong(&findings).len(), 2);
    }

    #[test]
    fn what_each_landlock_lacks_is_said() {
        for (abi, expected) in [(3, 6), (4, 5), (5, 4), (6, 3), (7, 2), (8, 1), (9, 0), (10, 0)] {
            let survey = rows(&Findings { landlock_abi: abi, ..findings(&[], Ok(())) });
            let row = survey.rows.iter().find(|row| row.name == "Landlock").expect("a row");
            assert_eq!(row.lacks.len(), expected, "{abi}: {row:?}");
            assert!(row.detail.starts_with(&format!("ABI {abi}: ")) && row.is_available);
        }
    }
}
