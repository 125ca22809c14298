//! Pid 1 of a sandbox: builds the walls around itself, starts the command or the worker, reaps, and ends with it.
//!
//! The kernel kills everything else in the pid namespace when pid 1 ends, so nothing can outlive it: neither double forks nor new
//! sessions nor ignored signals. Pid 1 itself dies with the helper outside.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use rustix::process::{Pid, Signal};

use super::cgroup::Cgroup;
use super::protect::Protection;
use super::watch::attend;
use super::{Worker, confine, mounts, tree, trial};
use crate::channel::WorkerChannel;
use crate::error::{Doing, Layer, SetupError};
use crate::network::NetworkPlan;
use crate::plan::{Mode, Mount, Plan};
use crate::survey::missing_namespaces;
use crate::sys;
use crate::wire::{InsideReport, receive_report, send_report, write_report};

/// What runs in the sandbox.
pub(super) enum Payload {
    Command { argv: Vec<OsString>, stdio: [OwnedFd; 3], terminal: Option<Terminal> },
    Worker { worker: Worker, channel: OwnedFd },
}

/// The terminal that a command shares with its caller.
pub(super) struct Terminal {
    pub tty: OwnedFd,
    /// Whether the caller has it, and so the command is to have it.
    pub is_ours: bool,
}

impl Terminal {
    /// Brings a group of processes into the foreground.
    pub(super) fn give_to(&self, group: Option<Pid>) {
        // Whoever does this from the background is stopped otherwise.
        sys::set_blocked(&[libc::SIGCHLD, libc::SIGTTOU]);
        if let Some(group) = group {
            // A terminal that is gone is nobody's.
            let _ = rustix::termios::tcsetpgrp(&self.tty, group);
        }
        sys::set_blocked(&[libc::SIGCHLD]);
    }
}

/// What the helper outside tells pid 1, one byte each; more words come from the caller itself.
const GO: u8 = b'G';
pub(super) const ACTIVE: u8 = b'A';
pub(super) const IDLE: u8 = b'I';

/// A running sandbox, seen from outside.
#[derive(Debug)]
pub(super) struct Inside {
    child: sys::Child,
    pub reports: UnixStream,
    is_confined: bool,
    is_finished: bool,
    /// Removed last, when everything in it is dead.
    group: Option<Cgroup>,
}

impl Inside {
    /// Clones pid 1 and lets it go; what it has to say comes as reports.
    pub(super) fn start(plan: &Plan, payload: Payload, protection: &Protection) -> Result<Inside, SetupError> {
        let (reports, theirs) = UnixStream::pair().doing(Layer::Helper, || "make a socket pair".into())?;
        let is_confined = plan.mode != Mode::DangerFullAccess;
        if is_confined {
            sys::drop_groups();
        } else {
            sys::adopt_orphans().doing(Layer::Helper, || "adopt orphans".into())?;
        }
        let namespaces = if is_confined { sys::NEW_NAMESPACES } else { 0 };
        let ids = Ids::now();
        let child = sys::clone_process(namespaces)
            .doing(Layer::Namespaces, || format!("create {}", missing_namespaces(&trial::namespaces())))?;
        let Some(child) = child else {
            pid_one(plan, payload, protection, ids, theirs);
        };
        // Where memory runs out for all, the sandbox goes first, and nothing inside can change that: its `/proc` is read-only.
        if is_confined {
            let _ = std::fs::write(format!("/proc/{}/oom_score_adj", child.pid), "500");
        }
        let is_session = matches!(payload, Payload::Worker { .. });
        // It waits for us, so nothing of it can be left outside of the group.
        let group = if is_confined { Cgroup::create(&plan.limits, is_session) } else { None };
        let group = group.filter(|group| group.add(child.pid).is_ok());
        let inside = Inside { child, reports, is_confined, is_finished: false, group };
        inside.tell(GO);
        Ok(inside)
    }

    /// The next thing it says, with the listener for the proxy if it is about that.
    pub(super) fn next_report(&mut self) -> io::Result<(InsideReport, Option<OwnedFd>)> {
        receive_report(&self.reports)
    }

    /// Readable once pid 1 has ended.
    pub(super) fn pidfd(&self) -> &OwnedFd {
        &self.child.pidfd
    }

    /// How often the kernel ended some of it for want of memory; only a control group knows.
    pub(super) fn memory_kills(&self) -> u64 {
        self.group.as_ref().map_or(0, Cgroup::memory_kills)
    }

    /// Its number outside.
    pub(super) fn pid(&self) -> i32 {
        self.child.pid
    }

    /// Says whether calls are running, so that an idle sandbox costs no wake-ups.
    pub(super) fn set_active(&self, is_active: bool) {
        self.tell(if is_active { ACTIVE } else { IDLE });
    }

    /// Hands one word in.
    pub(super) fn tell(&self, word: u8) {
        // When pid 1 is dead its end is seen elsewhere.
        let _ = (&self.reports).write_all(&[word]);
    }

    /// Kills whatever is left and waits until it is gone.
    pub(super) fn finish(&mut self) {
        if std::mem::replace(&mut self.is_finished, true) {
            return;
        }
        if self.is_confined {
            let _ = rustix::process::pidfd_send_signal(&self.child.pidfd, Signal::KILL);
        } else {
            tree::kill_descendants(self.child.pid);
        }
        sys::reap(self.child.pid);
        if !self.is_confined {
            tree::kill_children();
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Who we are outside.
pub(super) struct Ids {
    uid: u32,
    gid: u32,
}

impl Ids {
    pub(super) fn now() -> Ids {
        Ids { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }
}

fn pid_one(plan: &Plan, payload: Payload, protection: &Protection, ids: Ids, reports: UnixStream) -> ! {
    // Nothing of the parent's frames is ever dropped here: every path ends in `exit_now`.
    let mut keep: Vec<RawFd> = vec![0, 1, 2, reports.as_raw_fd()];
    match &payload {
        Payload::Command { stdio, terminal, .. } => {
            keep.extend(stdio.iter().map(AsRawFd::as_raw_fd));
            keep.extend(terminal.iter().map(|terminal| terminal.tty.as_raw_fd()));
        }
        Payload::Worker { channel, .. } => keep.push(channel.as_raw_fd()),
    }
    // Without a namespace that ends with us, the tree is better killed by us when the helper's socket closes.
    let dies = if plan.mode == Mode::DangerFullAccess { Ok(()) } else { sys::die_with_parent() };
    let is_told = dies.and_then(|()| sys::close_all_but(&mut keep)).and_then(|()| {
        // The helper speaks after we asked to die with it, so its death cannot fall between the two.
        let mut word = [0u8; 1];
        (&reports).read_exact(&mut word)
    });
    if is_told.is_err() {
        sys::exit_now(1);
    }
    if !matches!(&payload, Payload::Command { terminal: Some(_), .. }) {
        let _ = rustix::process::setsid();
    }
    let walls = if plan.mode == Mode::DangerFullAccess {
        enter_unconfined(plan)
    } else {
        enter(plan, protection, &ids, &reports)
    };
    let main = walls.and_then(|()| {
        // From here on SIGCHLD waits in a descriptor, so that no death is missed.
        let deaths = sys::signal_fd(&[libc::SIGCHLD]).doing(Layer::Helper, || "watch for deaths".into())?;
        let is_session = matches!(payload, Payload::Worker { .. });
        let (main, terminal) = start_main(payload, plan, &reports)?;
        Ok((main, terminal, is_session, deaths))
    });
    match main {
        Ok((Ok(main), terminal, is_session, deaths)) => {
            let _ = write_report(&reports, &InsideReport::Ready);
            let exit = attend(plan, main, terminal.as_ref(), is_session, &deaths, &reports);
            if plan.mode == Mode::DangerFullAccess {
                tree::kill_children();
            }
            if let Some(exit) = exit {
                let _ = write_report(&reports, &InsideReport::Finished { exit });
            }
        }
        Ok((Err(errno), ..)) => {
            let _ = write_report(&reports, &InsideReport::CannotStart { errno });
        }
        Err(error) => {
            let _ = write_report(&reports, &InsideReport::Setup(error.to_wire()));
        }
    }
    sys::exit_now(0)
}

/// All the walls, from the outermost to the innermost.
fn enter(plan: &Plan, protection: &Protection, ids: &Ids, reports: &UnixStream) -> Result<(), SetupError> {
    map_ids(ids)?;
    mounts::build(plan, protection, ids.uid == 0)?;
    sys::loopback_up().doing(Layer::Network, || "bring the loopback interface up".into())?;
    if let NetworkPlan::Proxy { port } = plan.network {
        let what = || format!("open the door to the network at port {port} inside");
        let listener = sys::listen_on_loopback(port).doing(Layer::Network, what)?;
        // Ours is closed with the end of this block: nobody inside can ever accept.
        send_report(reports, &InsideReport::Listener, listener.as_fd()).doing(Layer::Network, what)?;
    }
    rustix::system::sethostname(b"sandbox").doing(Layer::Namespaces, || "name the host".into())?;
    rustix::process::chdir(&plan.cwd)
        .doing(Layer::Mounts, || format!("enter {} inside the sandbox", plan.cwd.display()))?;
    confine::apply(plan)
}

fn enter_unconfined(plan: &Plan) -> Result<(), SetupError> {
    sys::adopt_orphans().doing(Layer::Helper, || "adopt orphans".into())?;
    confine::no_core_dumps()?;
    let cwd = match &plan.workspace {
        Mount::Direct { host, inside } => match plan.cwd.strip_prefix(inside) {
            // Joining an empty path would add a slash.
            Ok(rest) if rest.as_os_str().is_empty() => host.clone(),
            Ok(rest) => host.join(rest),
            Err(_) => plan.cwd.clone(),
        },
        Mount::None | Mount::Overlay { .. } => plan.cwd.clone(),
    };
    rustix::process::chdir(&cwd).doing(Layer::Helper, || format!("enter {}", cwd.display()))
}

/// Makes us uid and gid 1000 inside; outside nothing changes.
pub(super) fn map_ids(ids: &Ids) -> Result<(), SetupError> {
    let writes = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("1000 {} 1", ids.uid)),
        ("/proc/self/gid_map", format!("1000 {} 1", ids.gid)),
    ];
    for (path, text) in writes {
        std::fs::write(path, text).doing(Layer::Namespaces, || format!("write {path}"))?;
    }
    Ok(())
}

/// The main process, or why it could not be started; and the terminal that it shares.
type Started = (Result<i32, i32>, Option<Terminal>);

/// Forks the command or the worker; the inner error is the errno of a command that could not be started.
fn start_main(payload: Payload, plan: &Plan, reports: &UnixStream) -> Result<Started, SetupError> {
    match payload {
        Payload::Command { argv, stdio, terminal } => {
            let (mut told, tells) = io::pipe().doing(Layer::Helper, || "make a pipe".into())?;
            match sys::fork().doing(Layer::Helper, || "fork the command".into())? {
                None => {
                    let errno = become_command(&argv, &stdio, terminal.as_ref(), plan);
                    let _ = (&tells).write_all(&errno.to_le_bytes());
                    sys::exit_now(127);
                }
                Some(pid) => {
                    drop((tells, stdio));
                    let mut errno = [0u8; 4];
                    let main = match told.read_exact(&mut errno) {
                        Ok(()) => Err(i32::from_le_bytes(errno)),
                        // The pipe was closed by a successful exec.
                        Err(_) => Ok(pid),
                    };
                    Ok((main, terminal))
                }
            }
        }
        Payload::Worker { worker, channel } => match sys::fork().doing(Layer::Helper, || "fork the worker".into())? {
            None => {
                let mut keep = vec![0, 1, 2, channel.as_raw_fd()];
                let _ = reports;
                sys::set_blocked(&[]);
                let is_ready = sys::die_with_parent()
                    .and_then(|()| sys::close_all_but(&mut keep))
                    .and_then(|()| sys::set_not_dumpable());
                if is_ready.is_err() {
                    sys::exit_now(1);
                }
                sys::set_name(c"adj-worker");
                sys::replace_environment(&plan.env);
                let run = std::panic::AssertUnwindSafe(|| worker(WorkerChannel::new(channel.into())));
                sys::exit_now(std::panic::catch_unwind(run).unwrap_or(101));
            }
            Some(pid) => {
                drop(channel);
                Ok((Ok(pid), None))
            }
        },
    }
}

/// Turns this process into the command; comes back only with the errno of a failure.
fn become_command(argv: &[OsString], stdio: &[OwnedFd; 3], terminal: Option<&Terminal>, plan: &Plan) -> i32 {
    let prepared = (0..3)
        .try_for_each(|number| sys::place_fd(&stdio[number as usize], number))
        .and_then(|()| sys::close_on_exec_from(3));
    if let Err(error) = prepared {
        return error.raw_os_error().unwrap_or(libc::EIO);
    }
    match terminal {
        None => drop(rustix::process::setsid()),
        // A group of its own all the same: whoever can signal its own group could signal the caller's with it.
        Some(terminal) => {
            if let Err(error) = rustix::process::setpgid(None, None) {
                return error.raw_os_error();
            }
            if terminal.is_ours {
                terminal.give_to(Some(rustix::process::getpid()));
            }
        }
    }
    sys::restore_signals();
    // Somewhat more than the watcher allows, which can say why.
    let seconds = plan.limits.cpu.as_secs().saturating_add(2);
    if plan.mode != Mode::DangerFullAccess
        && let Err(error) = sys::set_limit(libc::RLIMIT_CPU, seconds)
    {
        return error.raw_os_error().unwrap_or(libc::EIO);
    }
    let program = match find_program(&argv[0], plan) {
        Ok(program) => program,
        Err(errno) => return errno,
    };
    let error = std::process::Command::new(program).arg0(&argv[0]).args(&argv[1..]).env_clear().envs(&plan.env).exec();
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Looks a bare name up in the plan's `PATH`, in absolute folders only: never in the workspace by accident.
fn find_program(name: &OsString, plan: &Plan) -> Result<PathBuf, i32> {
    let bytes = name.as_encoded_bytes();
    if bytes.is_empty() {
        return Err(libc::ENOENT);
    }
    if bytes.contains(&b'/') {
        return Ok(PathBuf::from(name));
    }
    let path = plan.env.get("PATH").map_or("", String::as_str);
    let mut errno = libc::ENOENT;
    for folder in path.split(':').filter(|folder| folder.starts_with('/')) {
        let candidate = std::path::Path::new(folder).join(name);
        match rustix::fs::access(&candidate, rustix::fs::Access::EXEC_OK) {
            Ok(()) if candidate.is_file() => return Ok(candidate),
            Err(rustix::io::Errno::ACCESS) => errno = libc::EACCES,
            _ => {}
        }
    }
    Err(errno)
}
