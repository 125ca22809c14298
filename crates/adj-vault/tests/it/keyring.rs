//! Keys in a keyring, of which a script plays the program.

use crate::support::{CANARY, Home, assert_no_canary, entry, secret};
use adj_vault::{
    KeyError, KeyFile, KeyPlace, KeySource, KeyStore, KeyringProgram, Keys, SystemKeyring, Vault, VaultId,
};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Keeps each item in a file, and writes down its arguments and environment as any user of the machine could.
const SECRET_TOOL: &str = r#"#!/bin/sh
here=${0%/*}
echo "$*" >> "$here/arguments"
env >> "$here/environment"
case $1 in
store) cat > "$here/item-$6" ;;
lookup) [ -f "$here/item-$5" ] || exit 1; cat "$here/item-$5" ;;
*) echo "unknown: $1" >&2; exit 2 ;;
esac
"#;

const SECURITY: &str = r#"#!/bin/sh
here=${0%/*}
echo "$*" >> "$here/arguments"
env >> "$here/environment"
case $1 in
-i) read -r order update s service a account w value; [ "$order $update $s $a $w" = "add-generic-password -U -s -a -w" ] || exit 1
    echo "$value" > "$here/item-$account" ;;
find-generic-password) [ -f "$here/item-$5" ] || { echo "could not be found" >&2; exit 44; }; cat "$here/item-$5" ;;
*) exit 2 ;;
esac
"#;

/// A keyring whose program is this script.
struct Fake {
    home: TempDir,
    keyring: SystemKeyring,
}

impl Fake {
    fn new(kind: KeyringProgram, script: &str) -> Fake {
        let home = tempfile::tempdir().expect("a scratch folder");
        let program = home.path().join(kind.name());
        // Another process writes it: a descriptor of ours could be open in a child of another test when the script is executed.
        let mut writer = Command::new("/bin/sh")
            .args(["-c", r#"cat > "$0" && chmod 700 "$0""#])
            .arg(&program)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        writer.stdin.take().expect("it was asked for").write_all(script.as_bytes()).expect("it listens");
        assert!(writer.wait().expect("it ends").success());
        Fake { keyring: SystemKeyring::new(kind, &program).with_patience(Duration::from_secs(20)), home }
    }

    fn items(&self) -> Vec<PathBuf> {
        let paths = fs::read_dir(self.home.path()).expect("ours").map(|entry| entry.expect("an entry").path());
        paths.filter(|path| path.to_string_lossy().contains("/item-")).collect()
    }

    fn keys(&self, source: KeySource, home: &Home) -> Arc<dyn KeyStore> {
        Arc::new(Keys::new(source, &home.vault, Some(self.keyring.clone())))
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.home.path().join(name)).expect("the script writes it")
    }
}

#[test]
fn a_vault_keeps_its_key_in_the_keyring() {
    for (kind, script) in [(KeyringProgram::SecretTool, SECRET_TOOL), (KeyringProgram::Security, SECURITY)] {
        for source in [KeySource::Keyring, KeySource::Auto] {
            let (fake, home) = (Fake::new(kind, script), Home::new());
            let mut vault = Vault::open(&home.vault, fake.keys(source, &home)).expect("an empty vault");
            assert!(fake.items().is_empty(), "{kind:?}: nothing is made before there is something to keep");
            vault.set(entry("token"), secret(CANARY)).expect("a first secret");
            assert_eq!(vault.key_place(), Some(KeyPlace::Keyring), "{kind:?} {source:?}");
            assert_eq!(home.names(), ["lock", "secrets"]);
            for source in [KeySource::Keyring, KeySource::Auto] {
                let vault = Vault::open(&home.vault, fake.keys(source, &home)).expect("it opens again");
                assert!(vault.secret("token").is_some());
            }

            // Neither the value nor the key passes where others see it.
            assert_no_canary(fake.home.path());
            let [item] = fake.items().try_into().expect("one item");
            let key = fs::read_to_string(&item).expect("ours").trim().to_owned();
            assert_eq!(key.len(), 64);
            for name in ["arguments", "environment"] {
                assert!(!fake.read(name).contains(&key), "{kind:?}: {name}");
            }
            assert!(!fake.read("environment").contains("CARGO"), "only what it needs is handed on");

            let error =
                Vault::open(&home.vault, fake.keys(KeySource::File, &home)).expect_err("the file was asked for");
            assert!(error.to_string().contains("lies in the system keyring"), "{error}");
            fs::remove_file(item).expect("ours");
            let error = Vault::open(&home.vault, fake.keys(source, &home)).expect_err("the key is gone");
            assert!(error.to_string().contains("has no key for the vault"), "{error}");
            assert!(fake.items().is_empty() && home.names() == ["lock", "secrets"], "no other key is made");
        }
    }
}

#[test]
fn without_a_keyring_that_works_the_key_lies_in_a_file() {
    let programs = [
        ("no bus", "#!/bin/sh\necho 'Cannot autolaunch D-Bus' >&2; exit 1\n"),
        ("forgets", "#!/bin/sh\n[ $1 = store ] && exec cat > /dev/null; exit 1\n"),
        ("refuses to keep", "#!/bin/sh\n[ $1 = store ] && echo locked >&2; exit 1\n"),
        ("keeps something else", "#!/bin/sh\n[ $1 = store ] && exec cat > /dev/null; echo 00\n"),
        ("talks without end", "#!/bin/sh\nexec yes\n"),
    ];
    for (name, script) in programs {
        let (fake, home) = (Fake::new(KeyringProgram::SecretTool, script), Home::new());
        let fake = Fake { keyring: fake.keyring.with_patience(Duration::from_secs(2)), home: fake.home };
        let keys = Keys::new(KeySource::Keyring, &home.vault, Some(fake.keyring.clone()));
        keys.create(VaultId::from_bytes([1; 16])).expect_err(name);
        let mut vault = Vault::open(&home.vault, fake.keys(KeySource::Auto, &home)).expect("an empty vault");
        vault.set(entry("token"), secret(CANARY)).expect("a first secret");
        assert_eq!(vault.key_place(), Some(KeyPlace::File), "{name}");
        Vault::open(&home.vault, fake.keys(KeySource::Auto, &home)).expect("it opens again");
        let error =
            Vault::open(&home.vault, fake.keys(KeySource::Keyring, &home)).expect_err("the keyring was asked for");
        assert!(error.to_string().contains("lies in the key file"), "{name}: {error}");
    }
    let none = Keys::new(KeySource::Keyring, Path::new("/nowhere"), None);
    assert!(matches!(none.create(VaultId::from_bytes([1; 16])), Err(KeyError::NoKeyring { .. })));
}

#[test]
fn a_vault_in_a_file_opens_where_a_keyring_appears_later() {
    let home = Home::new();
    let mut vault = Vault::open(&home.vault, Arc::new(KeyFile::new(&home.vault))).expect("an empty vault");
    vault.set(entry("token"), secret(CANARY)).expect("a first secret");
    let fake = Fake::new(KeyringProgram::SecretTool, SECRET_TOOL);
    let mut vault = Vault::open(&home.vault, fake.keys(KeySource::Auto, &home)).expect("it opens");
    vault.set(entry("other"), secret("another-value")).expect("a second secret");
    assert_eq!(vault.key_place(), Some(KeyPlace::File));
    assert!(fake.items().is_empty());
}

#[test]
fn errors_of_the_program_say_what_is_known_and_no_key() {
    let echo = "#!/bin/sh\nread -r key; echo \"bad input: $key\" >&2; exit 1\n";
    let cases = [
        ("#!/bin/sh\necho 'no \u{1b}[31mbus' >&2; exit 1\n", "secret-tool failed: no [31mbus"),
        ("#!/bin/sh\nexit 3\n", "secret-tool failed: it said nothing"),
        (echo, "is not shown"),
        ("#!/bin/sh\nexec sleep 100\n", "did not answer within 1 seconds"),
        ("#!/bin/sh\nsleep 100 & exit 1\n", "did not answer within 1 seconds"),
        ("#!/nowhere\n", "cannot run "),
    ];
    for (script, words) in cases {
        let fake = Fake::new(KeyringProgram::SecretTool, script);
        let keyring = fake.keyring.clone().with_patience(Duration::from_secs(1));
        let start = Instant::now();
        let error = keyring.create(VaultId::from_bytes([1; 16])).expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
        assert!(start.elapsed() < Duration::from_secs(30), "it was left running: {words}");
    }
}
