use crate::support::{CANARY, Home, assert_no_canary, entry, secret};
use adj_vault::{Entry, KeyPlace, Place, Vault, VaultError};
use std::{
    collections::HashSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    thread,
};

#[test]
fn secrets_come_back_as_they_went_in() {
    let home = Home::new();
    let mut vault = home.open().expect("an empty vault");
    assert!(vault.list().is_empty() && vault.key_place().is_none());
    assert!(!vault.remove("token").expect("nothing to remove"));
    assert!(!home.vault.exists(), "nothing is made before there is something to keep");

    let full = Entry {
        env: Some("TOKEN".parse().expect("the variable is good")),
        hosts: vec!["*.example.org:8443".parse().expect("a rule"), "example.org".parse().expect("a rule")],
        place: Place::BasicPassword,
        git: true,
        note: Some("für die Prüfung".into()),
        ..entry("token")
    };
    let odd = r#"q"u\o'te{}$(x)\u0041"#;
    assert!(!vault.set(full.clone(), secret(CANARY)).expect("a first secret"));
    assert!(!vault.set(entry("other"), secret(odd)).expect("a second one"));
    for vault in [&vault, &home.open().expect("it opens again")] {
        assert_eq!(vault.list(), [&entry("other"), &full]);
        assert_eq!(vault.entry("token"), Some(&full));
        assert_eq!(vault.secret("token").map(|secret| secret.expose()), Some(CANARY));
        assert_eq!(vault.secret("other").map(|secret| secret.expose()), Some(odd));
        assert_eq!(vault.secret("none"), None);
        assert_eq!(vault.key_place(), Some(KeyPlace::File));
    }
    assert_eq!(home.names(), ["key", "lock", "secrets"]);
    for (name, mode) in [("", 0o700), ("key", 0o600), ("lock", 0o600), ("secrets", 0o600)] {
        let found = fs::metadata(home.file(name)).expect("it is there").permissions().mode();
        assert_eq!(found & 0o7777, mode, "{name}");
    }

    assert!(vault.set(entry("token"), secret("another-value")).expect("a new value"));
    assert!(vault.remove("other").expect("it was there"));
    assert!(!vault.remove("other").expect("it is gone"));
    let vault = home.open().expect("it opens again");
    assert_eq!(vault.list(), [&entry("token")]);
    assert_eq!(vault.secret("token"), Some(&secret("another-value")));
}

#[test]
fn the_value_is_seen_nowhere() {
    let home = Home::with_canary();
    let mut vault = home.open().expect("it opens");
    assert_eq!(vault.secret("token").map(|secret| secret.expose()), Some(CANARY), "the canary lives");
    assert_no_canary(home.vault.parent().expect("it has one"));

    let noted = |note: &str| Entry { note: Some(note.into()), ..entry("token") };
    let placeholder = vault.placeholder("sesn_1", "token").expect("it is there");
    let mut said = vec![format!("{vault:?} {vault:#?} {:?} {placeholder}", vault.list())];
    let attempts = [
        vault.set(noted(&format!("is {CANARY}")), secret(CANARY)),
        vault.set(Entry { hosts: vec![], ..entry("x") }, secret(CANARY)),
        vault.set(entry("short"), secret(&CANARY[..7])),
        vault.set(entry("nested"), secret(&placeholder)),
    ];
    said.extend(attempts.into_iter().map(|attempt| {
        let error = attempt.expect_err("it is refused");
        format!("{error} {error:?}")
    }));
    fs::write(home.file("key"), [7; 32]).expect("ours");
    let error = home.open().expect_err("the key is another");
    said.push(format!("{error} {error:?}"));
    for text in said {
        assert!(!text.contains(CANARY), "{text}");
    }
}

#[test]
fn what_cannot_be_kept_safe_is_refused() {
    let home = Home::new();
    let mut vault = home.open().expect("an empty vault");
    let with_env = |name: &str| Entry { env: Some("TOKEN".parse().expect("a variable")), ..entry(name) };
    vault.set(with_env("first"), secret(CANARY)).expect("the first to use the variable");
    vault.set(with_env("first"), secret(CANARY)).expect("the same again");
    let cases = [
        (with_env("second"), CANARY, "TOKEN already holds the placeholder of the secret first"),
        (entry("a"), "1234567", "shorter than 8 characters"),
        (entry("a"), "adjph_0123456789", "is itself a placeholder"),
        (entry("password"), "password", "also stands in its name"),
        (Entry { hosts: vec![], ..entry("a") }, CANARY, "names no host"),
    ];
    for (entry, value, words) in cases {
        let error = vault.set(entry, secret(value)).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(home.open().expect("it opens").list().len(), 1);
}

#[test]
fn two_writers_lose_nothing() {
    let home = Home::new();
    thread::scope(|scope| {
        for writer in 0..4 {
            let home = &home;
            scope.spawn(move || {
                let mut vault = home.open().expect("it opens, or is empty");
                for number in 0..8 {
                    vault.set(entry(&format!("w{writer}-{number}")), secret(CANARY)).expect("room for all");
                    if number % 2 == 1 {
                        assert!(vault.remove(&format!("w{writer}-{number}")).expect("ours alone"));
                    }
                }
            });
        }
    });
    let vault = home.open().expect("it opens");
    assert_eq!(vault.list().len(), 4 * 4);
    assert_eq!(home.names(), ["key", "lock", "secrets"]);
}

#[test]
fn a_change_by_another_is_seen_after_reloading() {
    let home = Home::with_canary();
    let mut ours = home.open().expect("it opens");
    let mut theirs = home.open().expect("it opens");
    theirs.set(entry("new"), secret("another-value")).expect("a second secret");
    assert!(ours.secret("new").is_none());
    // The key is not needed again.
    fs::remove_file(home.file("key")).expect("ours");
    ours.reload().expect("it opens");
    assert!(ours.secret("new").is_some());
}

#[test]
fn a_vault_that_was_moved_away_is_not_begun_anew() {
    let home = Home::with_canary();
    let mut vault = home.open().expect("it opens");
    let away = home.vault.with_file_name("away");
    fs::rename(home.file("secrets"), &away).expect("ours");
    assert!(matches!(vault.set(entry("new"), secret(CANARY)), Err(VaultError::Gone { .. })));
    assert!(matches!(vault.remove("token"), Err(VaultError::Gone { .. })));
    assert_eq!(home.names(), ["key", "lock"]);
    // Opened anew it is an empty one, and its key opens the old one still.
    let mut anew = home.open().expect("an empty vault");
    anew.set(entry("new"), secret("another-value")).expect("a first secret");
    fs::rename(&away, home.file("secrets")).expect("ours");
    assert!(home.open().expect("the old one opens").secret("token").is_some());
    assert!(matches!(vault.set(entry("new"), secret("another-value")), Ok(false)));
}

#[test]
fn a_folder_that_others_can_enter_is_refused() {
    let home = Home::with_canary();
    for (name, mode, words) in [("", 0o755, "run `chmod 700 "), ("secrets", 0o644, "run `chmod 600 ")] {
        let path = home.file(name);
        let before = fs::metadata(&path).expect("it is there").permissions();
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("ours");
        let error = home.open().expect_err("others can enter").to_string();
        assert!(error.contains(words), "{error}");
        fs::set_permissions(&path, before).expect("ours");
    }
    home.open().expect("it is private again");
}

#[test]
fn placeholders_outlive_the_process_and_a_new_value() {
    let home = Home::with_canary();
    let mut vault = home.open().expect("it opens");
    vault.set(entry("other"), secret(CANARY)).expect("a second secret");
    let of = |vault: &Vault, session: &str, name: &str| vault.placeholder(session, name).expect("it is there");
    let first = of(&vault, "sesn_1", "token");
    assert_eq!(of(&home.open().expect("it opens"), "sesn_1", "token"), first);
    vault.set(entry("token"), secret("another-value")).expect("a new value");
    assert_eq!(of(&vault, "sesn_1", "token"), first);
    let others = [of(&vault, "sesn_2", "token"), of(&vault, "sesn_1", "other"), {
        let home = Home::with_canary();
        of(&home.open().expect("it opens"), "sesn_1", "token")
    }];
    assert_eq!(others.iter().chain([&first]).collect::<HashSet<_>>().len(), 4);
    assert_eq!(vault.placeholder("sesn_1", "none"), None);
}

#[test]
fn a_process_with_secrets_leaves_no_core() {
    adj_vault::forbid_core_dumps().expect("everybody may");
    let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
    assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, dumpable_behavior};
        assert_eq!(dumpable_behavior().expect("it can be asked"), DumpableBehavior::NotDumpable);
        // What the rest of the program does with its own `/proc` still works.
        let myself = fs::File::open("/proc/self/exe").expect("our own program");
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&myself));
        fs::metadata(&path).expect("our own descriptor");
        let status = std::process::Command::new(&path).arg("--list").stdout(std::process::Stdio::null()).status();
        // The descriptor is closed when a program is executed, after it was found by it.
        assert!(status.expect("it can be executed").success());
    }
    // The vault is of use as before.
    assert!(Home::with_canary().open().expect("it opens").secret("token").is_some());
}
