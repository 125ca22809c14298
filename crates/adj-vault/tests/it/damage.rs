//! Whatever is done to the files: a clear error, and nothing is overwritten.

use crate::support::{CANARY, Home, entry, secret};
use adj_vault::{KeyError, VaultError};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
};

/// The vault does not open, an open one cannot be changed, and the file stays as it is.
fn check_refused(home: &Home, context: &str) -> VaultError {
    let before = fs::read(home.file("secrets")).expect("it is there");
    let error = home.open().expect_err(context);
    let message = format!("{error} {error:?}");
    assert!(!message.contains(CANARY), "{context}: {message}");
    assert_eq!(fs::read(home.file("secrets")).expect("it is there"), before, "{context}");
    error
}

#[test]
fn every_changed_byte_is_noticed() {
    let home = Home::with_canary();
    let mut vault = home.open().expect("it opens");
    let good = fs::read(home.file("secrets")).expect("it is there");
    assert!(good.len() > 200, "there is something to change");
    for at in 0..good.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            fs::write(home.file("secrets"), &bad).expect("ours");
            let error = check_refused(&home, &format!("byte {at} ^ {flip:#x}"));
            let is_expected = match (at, &error) {
                (0..=7, VaultError::NotAVault { .. }) => true,
                (8, VaultError::Format { found, .. }) => *found == bad[8],
                (9, VaultError::Damaged { .. } | VaultError::Key(KeyError::OtherPlace { .. })) => true,
                (10.., VaultError::Locked { .. }) => true,
                _ => false,
            };
            assert!(is_expected, "byte {at} ^ {flip:#x}: {error:?}");
        }
        if at % 50 == 0 {
            vault.set(entry("new"), secret("another-value")).expect_err("it would overwrite what may be mended");
            vault.remove("token").expect_err("it would overwrite what may be mended");
        }
    }
    fs::write(home.file("secrets"), good).expect("ours");
    home.open().expect("it is good again");
}

#[test]
fn every_cut_is_noticed() {
    let home = Home::with_canary();
    let good = fs::read(home.file("secrets")).expect("it is there");
    for length in 0..good.len() {
        fs::write(home.file("secrets"), &good[..length]).expect("ours");
        let error = check_refused(&home, &format!("cut at {length}"));
        assert!(matches!(error, VaultError::Damaged { .. } | VaultError::Locked { .. }), "cut at {length}: {error:?}");
    }
    fs::write(home.file("secrets"), [good.as_slice(), b"\0"].concat()).expect("ours");
    assert!(matches!(check_refused(&home, "a byte more"), VaultError::Locked { .. }));
}

#[test]
fn a_key_is_never_made_for_a_vault_that_has_one() {
    let home = Home::with_canary();
    let key = fs::read(home.file("key")).expect("it is there");
    fs::remove_file(home.file("key")).expect("ours");
    let error = check_refused(&home, "the key is gone");
    assert!(error.to_string().contains("key is missing"), "{error}");
    assert!(!home.file("key").exists());

    fs::rename(home.file("secrets"), home.vault.with_file_name("away")).expect("ours");
    let mut fresh = home.open().expect("an empty vault");
    fs::rename(home.vault.with_file_name("away"), home.file("secrets")).expect("ours");
    let error = fresh.set(entry("new"), secret(CANARY)).expect_err("the vault came back meanwhile");
    assert!(matches!(error, VaultError::Key(KeyError::NoFile { .. })), "{error:?}");
    assert!(!home.file("key").exists());

    fs::write(home.file("key"), [7; 32]).expect("ours");
    fs::set_permissions(home.file("key"), Permissions::from_mode(0o600)).expect("ours");
    assert!(matches!(check_refused(&home, "another key"), VaultError::Locked { .. }));
    fs::write(home.file("key"), key).expect("ours");
    home.open().expect("the right key is back");
}

#[test]
fn a_crash_before_the_rename_changes_nothing() {
    let home = Home::with_canary();
    let good = fs::read(home.file("secrets")).expect("it is there");
    for (name, content) in [(".part-0000000000000001", &good[..good.len() / 2]), (".part-0000000000000002", &good)] {
        fs::write(home.file(name), content).expect("ours");
    }
    let mut vault = home.open().expect("what a writer left behind is ignored");
    assert_eq!(vault.list().len(), 1);
    assert_eq!(home.names().len(), 5, "reading changes nothing");
    vault.set(entry("new"), secret("another-value")).expect("the next writer");
    assert_eq!(home.names(), ["key", "lock", "secrets"]);
    assert_eq!(home.open().expect("it opens").list().len(), 2);
}

#[test]
fn a_crash_before_the_first_vault_leaves_its_key_usable() {
    let home = Home::with_canary();
    fs::remove_file(home.file("secrets")).expect("ours");
    let key = fs::read(home.file("key")).expect("it is there");
    home.open().expect("an empty vault").set(entry("new"), secret(CANARY)).expect("a first secret");
    assert_eq!(fs::read(home.file("key")).expect("it is there"), key);
    home.open().expect("it opens");
}
