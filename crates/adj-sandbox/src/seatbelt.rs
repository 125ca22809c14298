//! The profile that macOS's Seatbelt would need to hold a plan: text for `sandbox-exec -p`.
//!
//! **It was never run on a Mac.** It was written after what Apple's own profiles do, and golden files show what it says. Nothing uses
//! it yet.
//!
//! There are no namespaces on that system, so a plan means less: processes and the loopback are the host's, paths inside
//! are paths outside, and `/tmp` and the home are one folder that the caller makes and names with `-D PRIVATE=…`.
//! Rules are about names and not about files: a folder in which a glob matches further down can be moved to where the glob does not
//! reach, so a caller that means certain files names them. The last rule that matches wins, so what is denied stands at the end.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::network::NetworkPlan;
use crate::pattern::PathPattern;
use crate::plan::{Mode, Mount, Plan, PlanError};

/// Why a plan has no profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeatbeltError {
    #[error("the sandbox plan cannot be carried out")]
    Plan(#[from] PlanError),
    #[error("an overlay workspace cannot be had on macOS")]
    Overlay,
    #[error("{} cannot be shown as {} on macOS, where paths are what they are", host.display(), inside.display())]
    Moved { host: PathBuf, inside: PathBuf },
    #[error("{path:?} has a character that cannot be written into a profile")]
    Character { path: PathBuf },
}

/// What no command works without.
const BASE: &str = r#"(version 1)
(deny default)

; Processes: only those of this sandbox are seen and signalled.
(allow process-exec)
(allow process-fork)
(allow process-info* (target same-sandbox))
(allow signal (target same-sandbox))
(allow mach-priv-task-port (target same-sandbox))
(allow ipc-posix-sem)
(allow sysctl-read
  (sysctl-name-prefix "hw.")
  (sysctl-name-prefix "machdep.cpu.")
  (sysctl-name-prefix "kern.os")
  (sysctl-name-prefix "kern.proc.pid.")
  (sysctl-name "kern.argmax")
  (sysctl-name "kern.hostname")
  (sysctl-name "kern.maxfilesperproc")
  (sysctl-name "kern.maxproc")
  (sysctl-name "kern.ngroups")
  (sysctl-name "kern.secure_kernel")
  (sysctl-name "kern.usrstack64")
  (sysctl-name "kern.version")
  (sysctl-name "security.mac.lockdown_mode_state")
  (sysctl-name "sysctl.proc_cputype")
  (sysctl-name "vm.loadavg"))
(allow mach-lookup
  (global-name "com.apple.bsd.dirhelper")
  (global-name "com.apple.system.opendirectoryd.libinfo")
  (global-name "com.apple.system.opendirectoryd.membership"))

; The system's programs, and no home.
(allow file-read* file-test-existence
  (literal "/")
  (subpath "/bin")
  (subpath "/sbin")
  (subpath "/usr")
  (subpath "/System")
  (subpath "/Library/Apple")
  (subpath "/Library/Developer")
  (subpath "/Applications/Xcode.app")
  (subpath "/private/etc/ssl")
  (literal "/private/etc/hosts")
  (literal "/private/etc/passwd")
  (literal "/private/etc/protocols")
  (literal "/private/etc/services")
  (literal "/private/etc/shells")
  (subpath "/private/var/db/dyld")
  (subpath "/private/var/db/timezone")
  (subpath "/private/var/select"))
(allow file-read-metadata
  (literal "/etc")
  (literal "/tmp")
  (literal "/var")
  (literal "/private")
  (literal "/private/etc")
  (literal "/private/var"))
(allow file-read* file-write-data file-ioctl
  (literal "/dev/null")
  (literal "/dev/zero")
  (literal "/dev/tty")
  (literal "/dev/ptmx"))
(allow file-read*
  (literal "/dev/random")
  (literal "/dev/urandom")
  (subpath "/dev/fd"))
; Only terminals that were opened inside.
(allow pseudo-tty)
(allow file-read* file-write* file-ioctl
  (require-all (regex "^/dev/ttys[0-9]+$") (extension "com.apple.sandbox.pty")))

; Home and temporary files.
(allow file-read* file-write* (subpath (param "PRIVATE")))
(allow network-bind (local unix-socket (subpath (param "PRIVATE"))))
(allow network-outbound (remote unix-socket (subpath (param "PRIVATE"))))
"#;

/// The profile of a plan.
///
/// The caller has resolved all symbolic links but those of the system's (`/tmp`, `/var`, `/etc`), sets the environment and limits itself,
/// and has made the folder that it passes as `PRIVATE`.
pub fn seatbelt_profile(plan: &Plan) -> Result<String, SeatbeltError> {
    plan.check()?;
    if plan.mode == Mode::DangerFullAccess {
        return Ok("(version 1)\n(allow default)\n".to_owned());
    }
    let mut text = BASE.to_owned();
    let workspace = match &plan.workspace {
        Mount::None => None,
        Mount::Overlay { .. } => return Err(SeatbeltError::Overlay),
        Mount::Direct { host, inside } => Some(unmoved(host, inside)?),
    };
    if let Some(workspace) = &workspace {
        let _ = writeln!(text, "\n; The workspace.");
        show(&mut text, workspace, plan.mode == Mode::WorkspaceWrite)?;
    }
    if !plan.binds.is_empty() {
        let _ = writeln!(text, "\n; What is shown besides.");
    }
    for bind in &plan.binds {
        show(&mut text, &unmoved(&bind.host, &bind.inside)?, bind.writable)?;
    }
    if let NetworkPlan::Proxy { port } = plan.network {
        let _ = writeln!(text, "\n; The door to the network.");
        let _ = writeln!(text, "(allow network-outbound (remote ip \"localhost:{port}\"))");
    }
    let _ = writeln!(text, "\n; Nobody leaves a set-user-id file.\n(deny file-write-setugid)");
    if let Some(workspace) = &workspace {
        protected(&mut text, plan, workspace)?;
    }
    for (patterns, operations, what) in [
        (&plan.readonly, "file-write*", "unchangeable"),
        (&plan.hidden, "file-read* file-write* file-test-existence", "hidden"),
    ] {
        if !patterns.is_empty() {
            let _ = writeln!(text, "\n; What is {what}, and the folders above, which would carry it away.");
        }
        for pattern in patterns {
            deny_pattern(&mut text, pattern, workspace.as_deref(), operations)?;
        }
    }
    Ok(text)
}

/// A path that is the same on both sides, by its real name.
fn unmoved(host: &Path, inside: &Path) -> Result<PathBuf, SeatbeltError> {
    if host == inside {
        return Ok(real(host));
    }
    Err(SeatbeltError::Moved { host: host.to_owned(), inside: inside.to_owned() })
}

/// Rules see where the system's own links lead to.
fn real(path: &Path) -> PathBuf {
    let is_linked = ["/tmp", "/var", "/etc"].iter().any(|link| path.starts_with(link));
    if is_linked { Path::new("/private").join(path.strip_prefix("/").unwrap_or(path)) } else { path.to_owned() }
}

fn show(text: &mut String, path: &Path, is_writable: bool) -> Result<(), SeatbeltError> {
    let operations = if is_writable { "file-read* file-write*" } else { "file-read* file-test-existence" };
    let _ = writeln!(text, "(allow {operations} (subpath {}))", quoted(path)?);
    // Programs ask what the folders above are.
    for above in path.ancestors().skip(1).filter(|above| above.parent().is_some()) {
        let _ = writeln!(text, "(allow file-read-metadata (literal {}))", quoted(above)?);
    }
    Ok(())
}

/// What programs outside would run cannot be changed, nor made, at any depth and however it is spelled: the file system may take
/// `.GIT` for `.git`.
fn protected(text: &mut String, plan: &Plan, workspace: &Path) -> Result<(), SeatbeltError> {
    if plan.mode != Mode::WorkspaceWrite {
        return Ok(());
    }
    let _ = writeln!(text, "\n; What programs outside would run.");
    let root = escaped(workspace)?;
    for name in plan.protected_names() {
        let regex = format!("^{root}/(.*/)?{}(/.*)?$", in_any_case(name));
        let _ = writeln!(text, "(deny file-write* (regex {}))", string(&regex, workspace)?);
    }
    for path in plan.protect.iter().filter_map(|path| plan.protected_path(path)) {
        let name = path.to_str().ok_or_else(|| SeatbeltError::Character { path: path.to_owned() })?;
        let regex = format!("^{root}/{}(/.*)?$", in_any_case(name));
        let _ = writeln!(text, "(deny file-write* (regex {}))", string(&regex, path)?);
        keep_above(text, &workspace.join(path), Some(workspace))?;
    }
    Ok(())
}

fn deny_pattern(
    text: &mut String,
    pattern: &PathPattern,
    workspace: Option<&Path>,
    operations: &str,
) -> Result<(), SeatbeltError> {
    // The plan's check has seen that a relative pattern has a workspace.
    let Some(literal) = pattern.literal_part(workspace) else { return Ok(()) };
    let literal = real(&literal);
    let filter = if pattern.is_one_path() {
        format!("(subpath {})", quoted(&literal)?)
    } else {
        let shown = pattern.to_string();
        let glob = match (pattern.is_relative(), workspace) {
            (true, Some(workspace)) => format!("{}/{}", escaped(workspace)?, glob_regex(&shown)),
            // Its first part is no glob, or it would mean everything.
            _ => {
                let real = real(Path::new(&shown));
                glob_regex(real.to_str().unwrap_or(&shown))
            }
        };
        format!("(regex {})", string(&format!("^{glob}(/.*)?$"), Path::new(&shown))?)
    };
    let _ = writeln!(text, "(deny {operations} {filter})");
    // A rule for one path holds that path itself; what a glob begins with is only a folder above.
    let below = if pattern.is_one_path() { literal } else { literal.join("*") };
    keep_above(text, &below, workspace)
}

/// Folders between the workspace and a path can neither be renamed nor removed.
fn keep_above(text: &mut String, path: &Path, workspace: Option<&Path>) -> Result<(), SeatbeltError> {
    let Some(workspace) = workspace else { return Ok(()) };
    for above in path.ancestors().skip(1).take_while(|above| *above != workspace && above.starts_with(workspace)) {
        let _ = writeln!(text, "(deny file-write-unlink (literal {}))", quoted(above)?);
    }
    Ok(())
}

/// A glob in the words of a regular expression, without anchors.
fn glob_regex(glob: &str) -> String {
    let mut regex = String::new();
    let mut rest = glob;
    while let Some(character) = rest.chars().next() {
        let is_at_start = regex.is_empty() || regex.ends_with('/') || regex.ends_with("/)?");
        if is_at_start && let Some(after) = rest.strip_prefix("**/") {
            regex.push_str("(.*/)?");
            rest = after;
            continue;
        }
        if is_at_start && rest == "**" {
            regex.push_str(".*");
            break;
        }
        rest = &rest[character.len_utf8()..];
        match character {
            '*' => {
                rest = rest.trim_start_matches('*');
                regex.push_str("[^/]*");
            }
            '?' => regex.push_str("[^/]"),
            '{' => regex.push('('),
            '}' => regex.push(')'),
            ',' if is_in_braces(&regex) => regex.push('|'),
            '[' => rest = class(rest, &mut regex),
            '\\' => {
                let escaped = rest.chars().next().unwrap_or('\\');
                rest = rest.get(escaped.len_utf8()..).unwrap_or_default();
                literal(escaped, &mut regex);
            }
            other => literal(other, &mut regex),
        }
    }
    regex
}

/// Whether an alternative was opened and not closed.
fn is_in_braces(regex: &str) -> bool {
    let mut depth = 0i32;
    let mut characters = regex.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
    }
    depth > 0
}

/// A class of characters, whose bracket was read already; returns what follows it. It never stands for a slash.
fn class<'g>(rest: &'g str, regex: &mut String) -> &'g str {
    let (negation, rest) = match rest.strip_prefix(['!', '^']) {
        Some(rest) => ("^/", rest),
        None => ("", rest),
    };
    // A bracket that comes first means itself; that a class has an end was seen when the pattern was read.
    let first = rest.chars().next().map_or(0, char::len_utf8);
    let end = rest.get(first..).and_then(|later| later.find(']')).map_or(rest.len(), |at| first + at);
    let _ = write!(regex, "[{negation}{}]", rest[..end].replace('/', ""));
    rest.get(end + 1..).unwrap_or_default()
}

fn literal(character: char, regex: &mut String) {
    if "\\.+*?()|[]{}^$".contains(character) {
        regex.push('\\');
    }
    regex.push(character);
}

fn escaped(path: &Path) -> Result<String, SeatbeltError> {
    let text = path.to_str().ok_or_else(|| SeatbeltError::Character { path: path.to_owned() })?;
    let mut regex = String::new();
    text.chars().for_each(|character| literal(character, &mut regex));
    Ok(regex)
}

fn in_any_case(name: &str) -> String {
    let mut regex = String::new();
    for character in name.chars() {
        if character.is_ascii_alphabetic() {
            let _ = write!(regex, "[{}{}]", character.to_ascii_lowercase(), character.to_ascii_uppercase());
        } else {
            literal(character, &mut regex);
        }
    }
    regex
}

fn quoted(path: &Path) -> Result<String, SeatbeltError> {
    let text = path.to_str().ok_or_else(|| SeatbeltError::Character { path: path.to_owned() })?;
    string(text, path)
}

/// A string of the profile's language; characters that could end a line or mean something to a reader are refused.
fn string(text: &str, path: &Path) -> Result<String, SeatbeltError> {
    if text.chars().any(char::is_control) {
        return Err(SeatbeltError::Character { path: path.to_owned() });
    }
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Bind;

    fn plan(mode: Mode) -> Plan {
        let mut plan = Plan::new(mode);
        let workspace = PathBuf::from("/Users/ada/project");
        if mode != Mode::DangerFullAccess {
            plan.workspace = Mount::Direct { host: workspace.clone(), inside: workspace };
        }
        plan
    }

    fn bind(path: &str, writable: bool) -> Bind {
        Bind { host: path.into(), inside: path.into(), writable }
    }

    #[test]
    fn each_mode_has_its_profile() {
        for mode in [Mode::ReadOnly, Mode::WorkspaceWrite, Mode::DangerFullAccess] {
            insta::assert_snapshot!(mode.to_string(), seatbelt_profile(&plan(mode)).expect("a profile"));
        }
    }

    #[test]
    fn everything_at_once() {
        let mut plan = plan(Mode::WorkspaceWrite);
        plan.network = NetworkPlan::Proxy { port: 3128 };
        plan.binds = vec![bind("/opt/homebrew", false), bind("/var/folders/x/cache", true)];
        plan.hidden = ["**/.env", "keys", "a/b/*.{pem,key}", "/opt/homebrew/etc/secret[0-9]"]
            .map(|pattern| pattern.parse().expect("a pattern"))
            .into();
        plan.readonly = ["docs/plan.md", "x/**/lock?"].map(|pattern| pattern.parse().expect("a pattern")).into();
        plan.protect.push("tools/hooks".into());
        plan.unprotect.push(".vscode".into());
        plan.own_git = true;
        let profile = seatbelt_profile(&plan).expect("a profile");
        // What the modes show already is left out.
        insta::assert_snapshot!("everything", profile.strip_prefix(BASE).expect("the same beginning"));
    }

    #[test]
    fn no_path_writes_rules() {
        let strange = "/Users/a\") (allow default) (\"/b\\c.d+(e)";
        let mut plan = plan(Mode::WorkspaceWrite);
        plan.workspace = Mount::Direct { host: strange.into(), inside: strange.into() };
        let profile = seatbelt_profile(&plan).expect("a profile");
        insta::assert_snapshot!("strange", profile.strip_prefix(BASE).expect("the same beginning"));
        for path in ["/Users/a\n(allow default)", "/Users/a\r", "/Users/a\u{7f}", "/Users/a\tb", "/Users/a\u{85}"] {
            plan.workspace = Mount::Direct { host: path.into(), inside: path.into() };
            assert_eq!(seatbelt_profile(&plan), Err(SeatbeltError::Character { path: path.into() }), "{path:?}");
        }
        plan.workspace = Mount::Direct { host: "/Users/a".into(), inside: "/Users/a".into() };
        plan.hidden = vec!["*\n.env".parse().expect("a pattern")];
        assert!(matches!(seatbelt_profile(&plan), Err(SeatbeltError::Character { .. })));
    }

    #[test]
    fn what_macos_cannot_do_is_refused() {
        let mut moved = plan(Mode::ReadOnly);
        moved.binds.push(Bind { host: "/a".into(), inside: "/b".into(), writable: false });
        assert_eq!(seatbelt_profile(&moved), Err(SeatbeltError::Moved { host: "/a".into(), inside: "/b".into() }));
        let mut overlay = plan(Mode::ReadOnly);
        let at = |name: &str| PathBuf::from("/Users/ada").join(name);
        overlay.workspace =
            Mount::Overlay { lower: at("l"), upper: at("u"), work: at("w"), inside: "/workspace".into() };
        assert_eq!(seatbelt_profile(&overlay), Err(SeatbeltError::Overlay));
        let mut senseless = plan(Mode::ReadOnly);
        senseless.cwd = "relative".into();
        assert!(matches!(seatbelt_profile(&senseless), Err(SeatbeltError::Plan(_))));
    }

    #[test]
    fn globs_mean_the_same_as_elsewhere() {
        let cases = [
            ("*.key", "[^/]*\\.key"),
            ("**/.env", "(.*/)?\\.env"),
            ("a/**/b", "a/(.*/)?b"),
            ("**/**/b", "(.*/)?(.*/)?b"),
            ("a**b", "a[^/]*b"),
            ("{a,b*}/c,d", "(a|b[^/]*)/c,d"),
            ("[!a-c]?[x/]", "[^/a-c][^/][x]"),
            ("[]x]", "[]x]"),
            ("a\\*b", "a\\*b"),
            ("a(b", "a\\(b"),
        ];
        for (glob, expected) in cases {
            assert_eq!(glob_regex(glob), expected, "{glob}");
        }
    }
}
