//! A vault's key in the desktop's keyring, through the program that the system has for it.
//!
//! The key goes over the program's standard input and output, never into its arguments, which every user of the machine can list.

use crate::key::{Key, KeyError, KeyPlace, KeyStore, VaultId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    env,
    fs::File,
    io::{self, Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};
use zeroize::Zeroizing;

/// Which program speaks with the keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyringProgram {
    /// `secret-tool` of libsecret, for the Secret Service of GNOME, KDE and others.
    SecretTool,
    /// `security` of macOS.
    Security,
}

/// The desktop's keyring: one item per vault, the key as 64 hexadecimal digits.
#[derive(Debug, Clone)]
pub struct SystemKeyring {
    kind: KeyringProgram,
    program: PathBuf,
    patience: Duration,
}

const SERVICE: &str = "adjutant-vault";
const PATIENCE: Duration = Duration::from_secs(60);
const PROBE_PATIENCE: Duration = Duration::from_secs(3);
const MAX_ANSWER_BYTES: usize = 4096;

/// What the programs need to find the session's keyring; the rest of our environment is none of their business.
const VARIABLES: &[&str] = &[
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "HOME",
    "LANG",
    "LOGNAME",
    "USER",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
];

struct Answer {
    status: ExitStatus,
    output: Zeroizing<Vec<u8>>,
    said: Zeroizing<Vec<u8>>,
}

impl KeyringProgram {
    /// The one that belongs to this system.
    pub fn of_this_system() -> KeyringProgram {
        match cfg!(target_os = "macos") {
            true => KeyringProgram::Security,
            false => KeyringProgram::SecretTool,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            KeyringProgram::SecretTool => "secret-tool",
            KeyringProgram::Security => "security",
        }
    }
}

impl SystemKeyring {
    /// Finds this system's program on the `PATH`; nothing where there is none that we could trust.
    pub fn find() -> Option<SystemKeyring> {
        let kind = KeyringProgram::of_this_system();
        let user = rustix::process::geteuid().as_raw();
        let trusted = |path: &PathBuf| {
            path.is_absolute()
                && path.metadata().is_ok_and(|meta| {
                    let mode = meta.permissions().mode();
                    meta.is_file() && mode & 0o111 != 0 && mode & 0o022 == 0 && (meta.uid() == 0 || meta.uid() == user)
                })
        };
        let program = env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(kind.name())).find(trusted)?;
        Some(SystemKeyring::new(kind, &program))
    }

    /// Speaks through the program at this absolute path.
    pub fn new(kind: KeyringProgram, program: &Path) -> SystemKeyring {
        SystemKeyring { kind, program: program.to_owned(), patience: PATIENCE }
    }

    /// How long it waits for an answer; a minute where nothing else is said, since a person may have to unlock the keyring.
    pub fn with_patience(self, patience: Duration) -> SystemKeyring {
        SystemKeyring { patience, ..self }
    }

    /// Whether a keyring is there and answers without a person's help.
    pub fn answers(&self) -> bool {
        let nobody = VaultId::from_bytes([0; 16]);
        self.look_up(nobody, PROBE_PATIENCE.min(self.patience)).is_ok()
    }

    fn look_up(&self, vault: VaultId, patience: Duration) -> Result<Option<Key>, KeyError> {
        let id = vault.to_string();
        let arguments: &[&str] = match self.kind {
            KeyringProgram::SecretTool => &["lookup", "service", SERVICE, "vault", &id],
            KeyringProgram::Security => &["find-generic-password", "-s", SERVICE, "-a", &id, "-w"],
        };
        let answer = self.run(arguments, b"", patience)?;
        let is_absent = match self.kind {
            // It says why when it could not look, and nothing when there was nothing to find.
            KeyringProgram::SecretTool => {
                answer.status.code() == Some(1) && answer.output.is_empty() && answer.said.trim_ascii().is_empty()
            }
            KeyringProgram::Security => answer.status.code() == Some(44),
        };
        if is_absent {
            return Ok(None);
        }
        if !answer.status.success() {
            return Err(self.refused(&answer));
        }
        from_hex(answer.output.trim_ascii()).map(Some).ok_or(KeyError::KeyringContent { vault })
    }

    fn keep(&self, vault: VaultId, key: &Key) -> Result<(), KeyError> {
        let id = vault.to_string();
        let hex = to_hex(key);
        let answer = match self.kind {
            KeyringProgram::SecretTool => {
                let label = "--label=Adjutant vault";
                let arguments = ["store", label, "service", SERVICE, "vault", &id];
                self.run(&arguments, hex.as_bytes(), self.patience)?
            }
            KeyringProgram::Security => {
                // Only its interactive mode takes a password from elsewhere than its arguments or a terminal.
                let order = Zeroizing::new(format!("add-generic-password -U -s {SERVICE} -a {id} -w {}\n", *hex));
                self.run(&["-i"], order.as_bytes(), self.patience)?
            }
        };
        if !answer.status.success() {
            return Err(self.refused(&answer));
        }
        // Some keyrings forget without a word, and then the vault would be lost.
        match self.look_up(vault, self.patience)? {
            Some(kept) if kept == *key => Ok(()),
            _ => Err(KeyError::NotKept { vault }),
        }
    }

    fn refused(&self, answer: &Answer) -> KeyError {
        let said = String::from_utf8_lossy(&answer.said);
        let line = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it said nothing");
        let mut said: String = line.chars().filter(|letter| !letter.is_control()).take(200).collect();
        // An echo of our order would show the key.
        if said.bytes().filter(u8::is_ascii_hexdigit).count() >= 64 || said.contains("-w") {
            said = "what it said is not shown, since it could hold the key".to_owned();
        }
        KeyError::Refused { program: self.program.clone(), said }
    }

    fn run(&self, arguments: &[&str], input: &[u8], patience: Duration) -> Result<Answer, KeyError> {
        let failed = |source| KeyError::Run { program: self.program.clone(), source };
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env_clear().envs(VARIABLES.iter().filter_map(|name| Some((name, env::var_os(name)?))));
        command.current_dir("/").process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        let outcome = talk(&mut child, input, Instant::now() + patience);
        if !matches!(outcome, Ok(Some(_))) {
            // It has not been waited for, so the group is still its own.
            let _ = rustix::process::kill_process_group(
                rustix::process::Pid::from_child(&child),
                rustix::process::Signal::KILL,
            );
            child.wait().map_err(failed)?;
        }
        let silent = || KeyError::Silent { program: self.program.clone(), seconds: patience.as_secs() };
        outcome.map_err(failed)?.ok_or_else(silent)
    }
}

impl KeyStore for SystemKeyring {
    fn create(&self, vault: VaultId) -> Result<(Key, KeyPlace), KeyError> {
        let key = Key::generate()?;
        self.keep(vault, &key)?;
        Ok((key, KeyPlace::Keyring))
    }

    fn load(&self, vault: VaultId, place: KeyPlace) -> Result<Key, KeyError> {
        if place != KeyPlace::Keyring {
            return Err(KeyError::OtherPlace { place, asked: KeyPlace::Keyring });
        }
        self.look_up(vault, self.patience)?.ok_or(KeyError::NotInKeyring { vault })
    }
}

/// Gives the program its input and takes its answer; nothing when the time is over.
fn talk(child: &mut Child, input: &[u8], deadline: Instant) -> io::Result<Option<Answer>> {
    let pipes = "all three were asked for";
    match child.stdin.take().expect(pipes).write_all(input) {
        // It may answer without listening.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
        _ => {}
    }
    let mut output = Pipe::new(std::os::fd::OwnedFd::from(child.stdout.take().expect(pipes)).into());
    let mut said = Pipe::new(std::os::fd::OwnedFd::from(child.stderr.take().expect(pipes)).into());
    while output.is_open || said.is_open {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let mut open: Vec<&mut Pipe> = [&mut output, &mut said].into_iter().filter(|pipe| pipe.is_open).collect();
        let mut waiting: Vec<_> = open.iter().map(|pipe| PollFd::new(&pipe.file, PollFlags::IN)).collect();
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut waiting, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = waiting.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (pipe, is_ready) in open.iter_mut().zip(ready) {
            if is_ready {
                pipe.read()?;
            }
        }
    }
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(Answer { status, output: output.content, said: said.content }));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// One of the program's outputs, of which only the beginning is wanted.
struct Pipe {
    file: File,
    content: Zeroizing<Vec<u8>>,
    is_open: bool,
}

impl Pipe {
    fn new(file: File) -> Pipe {
        // It never grows beyond this, so it leaves no copies behind.
        Pipe { file, content: Zeroizing::new(Vec::with_capacity(MAX_ANSWER_BYTES)), is_open: true }
    }

    fn read(&mut self) -> io::Result<()> {
        let mut bytes = Zeroizing::new([0; 1024]);
        let count = match self.file.read(&mut bytes[..]) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        };
        self.is_open = count > 0;
        let room = MAX_ANSWER_BYTES - self.content.len();
        self.content.extend_from_slice(&bytes[..count.min(room)]);
        Ok(())
    }
}

fn to_hex(key: &Key) -> Zeroizing<String> {
    let mut hex = Zeroizing::new(String::with_capacity(64));
    for byte in key.expose() {
        for digit in [byte >> 4, byte & 15] {
            hex.push(char::from_digit(digit.into(), 16).expect("four bits are a digit"));
        }
    }
    hex
}

fn from_hex(text: &[u8]) -> Option<Key> {
    if text.len() != 64 {
        return None;
    }
    let mut bytes = Zeroizing::new([0; 32]);
    for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |letter: u8| char::from(letter).to_digit(16);
        *byte = u8::try_from(digit(digits[0])? << 4 | digit(digits[1])?).ok()?;
    }
    Key::from_bytes(&bytes[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_digits() {
        let key = Key::from_bytes(&(0..32).map(|byte| byte * 8 + 1).collect::<Vec<u8>>()).expect("32 bytes");
        let hex = to_hex(&key);
        assert!(hex.starts_with("010911192129") && hex.len() == 64);
        assert!(from_hex(hex.as_bytes()).expect("what was written is read") == key);
        for bad in [
            "",
            "01",
            &"0".repeat(63),
            &"0".repeat(66),
            &"g".repeat(64),
            &"é".repeat(32),
            &format!("+{}", "0".repeat(63)),
        ] {
            assert!(from_hex(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
