//! Tries each layer alone, in children that end at once, to tell which one it is that a machine lacks.
//!
//! Must not know: how the findings are shown.

use std::io;

use rustix::mount::MountPropagationFlags;

use super::inside::{Ids, map_ids};
use super::{confine, mounts, seccomp};
use crate::error::SetupError;
use crate::plan::{Mode, Plan};
use crate::survey::{Part, Trial};
use crate::sys::{self, Ended};

/// An error without a number of its own.
const UNKNOWN: i32 = 255;

const NEW_USER: u64 = libc::CLONE_NEWUSER as u64;

/// The namespaces, the user namespace first: the others are made in one.
const NAMESPACES: [(Part, i32); 7] = [
    (Part::UserNamespace, 0),
    (Part::MountNamespace, libc::CLONE_NEWNS),
    (Part::PidNamespace, libc::CLONE_NEWPID),
    (Part::NetworkNamespace, libc::CLONE_NEWNET),
    (Part::IpcNamespace, libc::CLONE_NEWIPC),
    (Part::HostNameNamespace, libc::CLONE_NEWUTS),
    (Part::CgroupNamespace, libc::CLONE_NEWCGROUP),
];

type Attempt = fn() -> io::Result<()>;

/// Everything that can be tried alone.
pub(super) fn all() -> Vec<Trial> {
    let with = |flags: i32| NEW_USER | flags as u64;
    let mut trials = namespaces();
    let others: [(Part, u64, Attempt); 6] = [
        (Part::Mounts, with(libc::CLONE_NEWNS), mount),
        (Part::Proc, with(libc::CLONE_NEWNS | libc::CLONE_NEWPID), mounts::try_proc),
        (Part::Loopback, with(libc::CLONE_NEWNET), sys::loopback_up),
        (Part::Privileges, NEW_USER, privileges),
        (Part::Landlock, 0, landlock),
        (Part::Seccomp, 0, filters),
    ];
    trials.extend(others.map(|(part, namespaces, attempt)| Trial { part, errno: tried(namespaces, attempt) }));
    trials
}

/// The namespaces alone.
pub(super) fn namespaces() -> Vec<Trial> {
    NAMESPACES.map(|(part, flag)| Trial { part, errno: tried(NEW_USER | flag as u64, || Ok(())) }).into()
}

/// Makes the attempt in a child of its own; the error that it came to.
fn tried(namespaces: u64, attempt: Attempt) -> Option<i32> {
    let ids = Ids::now();
    let child = match sys::clone_process(namespaces) {
        Ok(Some(child)) => child,
        Ok(None) => {
            let mapped = if namespaces == 0 { Ok(()) } else { map_ids(&ids) };
            let result = mapped.map_err(|error| error.source).and_then(|()| attempt());
            sys::exit_now(result.err().map_or(0, |error| error.raw_os_error().unwrap_or(UNKNOWN).clamp(1, UNKNOWN)))
        }
        Err(error) => return Some(error.raw_os_error().unwrap_or(UNKNOWN)),
    };
    match sys::reap(child.pid) {
        Some(Ended::Code(0)) => None,
        Some(Ended::Code(errno)) => Some(errno),
        Some(Ended::Signal(_)) | None => Some(UNKNOWN),
    }
}

fn mount() -> io::Result<()> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mounts::try_root()
}

fn privileges() -> io::Result<()> {
    sys::drop_capabilities()?;
    sys::set_no_new_privileges()
}

fn landlock() -> io::Result<()> {
    sys::set_no_new_privileges()?;
    confine::landlock(&Plan::new(Mode::ReadOnly)).map_err(number)
}

fn filters() -> io::Result<()> {
    sys::set_no_new_privileges()?;
    seccomp::apply().map_err(number)
}

/// Some crates wrap the kernel's number in errors of their own.
fn number(error: SetupError) -> io::Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error.source);
    while let Some(now) = cause {
        if let Some(errno) = now.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return io::Error::from_raw_os_error(errno);
        }
        cause = match now.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => now.source(),
        };
    }
    error.source
}
