//! Policy folders on disk: whose they have to be, and what is not followed.

use adj_domain::{ApprovalPolicy::OnRequest, Verdict};
use adj_policy::{LARGEST_FILE, LayerKind, MOST_RULE_FILES, Policy, Sources};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use crate::world::Call;

struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let home = Self { folder: tempfile::tempdir().expect("a folder can be made") };
        for name in ["administrator/rules", "organisation/rules", "repository/.adjutant/rules", "elsewhere"] {
            let path = home.path(name);
            fs::create_dir_all(&path).expect("a folder can be made");
        }
        for name in ["administrator", "administrator/rules"] {
            home.permit(name, 0o755);
        }
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).expect("a file can be written");
        self.permit(name, 0o644);
    }

    fn permit(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("it is ours");
    }

    fn sources(&self) -> Sources {
        let owner = fs::metadata(self.folder.path()).expect("the folder is there").uid();
        Sources {
            administrator: self.path("administrator"),
            administrator_owner: owner,
            organisation: Some(self.path("organisation")),
        }
    }

    /// The policy, or what is wrong with it, without the folder that is different every time.
    fn load(&self) -> Result<Policy, String> {
        let loaded = Policy::load(&self.sources()).and_then(|policy| policy.with_repository(&self.path("repository")));
        let folder = format!("{}/", self.folder.path().display());
        loaded.map_err(|error| error.to_string().replace(&folder, ""))
    }

    fn complaint(&self) -> String {
        self.load().expect_err("something is wrong")
    }
}

#[test]
fn every_layer_is_found_where_it_lies() {
    let home = Home::new();
    let policy = home.load().expect("nothing is there yet");
    assert_eq!(policy.layers().len(), 1);
    assert_eq!(policy.hash(), Policy::built_in().hash());

    home.write("administrator/requirements.toml", "longest_grant = \"8h\"");
    home.write("administrator/rules/b.rules", "prefix_rule(pattern = [\"git\", \"push\"], decision = \"forbidden\")\n");
    home.write("administrator/rules/notes.txt", "no rules at all");
    home.write("organisation/policy.toml", "[tools]\nwrite = \"always_ask\"");
    home.write("repository/.adjutant/rules/a.rules", "\nprefix_rule(pattern = [\"make\"], decision = \"prompt\")\n");
    let policy = home.load().expect("the files are good");
    let kinds: Vec<LayerKind> = policy.layers().iter().map(|layer| layer.kind).collect();
    let all = [LayerKind::BuiltIn, LayerKind::Administrator, LayerKind::Organisation, LayerKind::Repository];
    assert_eq!(kinds, all);
    let call = Call::new(OnRequest);
    let cases = [
        ("git push", Verdict::Deny, "administrator/rules/b.rules", 1),
        ("cd x && make all", Verdict::Ask, "repository/.adjutant/rules/a.rules", 2),
    ];
    for (command, verdict, file, line) in cases {
        let ruling = call.bash(&policy, command);
        assert_eq!(ruling.verdict, verdict, "{ruling:?}");
        assert_eq!(ruling.file, Some(home.path(file).display().to_string()), "{ruling:?}");
        assert_eq!(ruling.line, Some(line), "{ruling:?}");
    }
    let explained = policy.explain();
    assert_eq!(explained.layers[3].rule_files.len(), 1);
    assert_ne!(policy.hash(), Policy::built_in().hash());
}

#[test]
fn rules_about_hosts_come_from_the_same_files() {
    let home = Home::new();
    let rules = r#"
network_rule(host = "forge.example.org", protocol = "https", decision = "prompt", justification = "ours")
network_rule(host = "paste.example.org", protocol = "https", decision = "deny")
network_rule(host = "open.example.org", protocol = "https", decision = "allow")
"#;
    home.write("organisation/rules/hosts.rules", rules);
    let policy = home.load().expect("the rules are good");
    let call = Call::new(OnRequest).with_hosts(&["forge.example.org", "paste.example.org"], false);
    let cases = [
        ("forge.example.org:443", Verdict::Ask),
        ("paste.example.org:443", Verdict::Deny),
        ("open.example.org:443", Verdict::Deny),
    ];
    for (to, expected) in cases {
        let found = call.host(&policy, to);
        assert_eq!(found.ruling.verdict, expected, "{to}: {found:?}");
    }
}

#[test]
fn an_administrators_files_are_nobody_elses() {
    let home = Home::new();
    home.write("administrator/requirements.toml", "longest_grant = \"8h\"");
    let changes: [(&str, u32); 4] = [
        ("administrator/requirements.toml", 0o664),
        ("administrator/requirements.toml", 0o646),
        ("administrator", 0o775),
        ("administrator/rules", 0o1777),
    ];
    let mut told = Vec::new();
    for (name, mode) in changes {
        let before = fs::metadata(home.path(name)).expect("it is there").mode();
        home.permit(name, mode);
        told.push(home.complaint());
        home.permit(name, before & 0o7777);
    }
    home.load().expect("all is well again");
    let mut sources = home.sources();
    sources.administrator_owner += 1;
    let error = Policy::load(&sources).expect_err("somebody else owns it").to_string();
    assert!(error.contains("mend it with `chown"), "{error}");
    fs::remove_file(home.path("administrator/requirements.toml")).expect("it is ours");
    home.write("elsewhere/mine.toml", "");
    symlink(home.path("elsewhere/mine.toml"), home.path("administrator/requirements.toml"))
        .expect("a link can be made");
    told.push(home.complaint());
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn nothing_of_a_repository_leads_out_of_it() {
    type Change = fn(&Home);
    let changes: [(&str, Change); 8] = [
        ("a link to a file", |home| {
            symlink("../../elsewhere/secret", home.path("repository/.adjutant/policy.toml"))
                .expect("a link can be made");
        }),
        ("a link to nothing", |home| {
            symlink("/nowhere", home.path("repository/.adjutant/policy.toml")).expect("a link can be made");
        }),
        ("a linked folder of rules", |home| {
            fs::remove_dir(home.path("repository/.adjutant/rules")).expect("it is empty");
            symlink("../../elsewhere", home.path("repository/.adjutant/rules")).expect("a link can be made");
        }),
        ("a linked rule file", |home| {
            symlink("/etc/passwd", home.path("repository/.adjutant/rules/x.rules")).expect("a link can be made");
        }),
        ("a linked folder", |home| {
            fs::remove_dir_all(home.path("repository/.adjutant")).expect("it is ours");
            symlink("../elsewhere", home.path("repository/.adjutant")).expect("a link can be made");
        }),
        ("a folder in place of a file", |home| {
            fs::create_dir(home.path("repository/.adjutant/policy.toml")).expect("a folder can be made");
        }),
        ("a pipe in place of a file", |home| {
            let path = home.path("repository/.adjutant/policy.toml");
            let made = std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo is there");
            assert!(made.success());
        }),
        ("a file in place of the folder", |home| {
            fs::remove_dir_all(home.path("repository/.adjutant")).expect("it is ours");
            home.write("repository/.adjutant", "");
        }),
    ];
    let mut told = Vec::new();
    for (name, change) in changes {
        let home = Home::new();
        home.write("elsewhere/secret", "this is what nobody may see");
        change(&home);
        let complaint = home.complaint();
        assert!(!complaint.contains("nobody may see"), "{complaint}");
        told.push(format!("{name}: {complaint}"));
    }
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn the_users_own_folder_may_be_linked() {
    let home = Home::new();
    home.write("elsewhere/policy.toml", "[tools]\nbash = \"deny\"");
    symlink(home.path("elsewhere/policy.toml"), home.path("organisation/policy.toml")).expect("a link can be made");
    let policy = home.load().expect("links are followed here");
    assert_eq!(Call::new(OnRequest).bash(&policy, "ls").verdict, Verdict::Deny);
    fs::remove_file(home.path("elsewhere/policy.toml")).expect("it is ours");
    assert_eq!(home.complaint(), "cannot read organisation/policy.toml", "a policy that went missing is no empty one");
}

#[test]
fn files_are_bounded_and_broken_ones_are_not_left_out() {
    let cases: [(&str, Vec<u8>, &str); 5] = [
        (
            "policy.toml",
            vec![b'#'; LARGEST_FILE as usize + 1],
            "repository/.adjutant/policy.toml is larger than 1048576 bytes",
        ),
        (
            "rules/a.rules",
            vec![b'#'; LARGEST_FILE as usize + 1],
            "repository/.adjutant/rules/a.rules is larger than 1048576 bytes",
        ),
        ("policy.toml", vec![b'#', 0xff], "repository/.adjutant/policy.toml is not UTF-8 text (at byte 1)"),
        (
            "policy.toml",
            b"\n tool = 1".to_vec(),
            "repository/.adjutant/policy.toml:2:2: unknown key `tool`; did you mean `tools`?",
        ),
        ("rules/a.rules", b"\nprefix_rul(pattern = [\"a\"])".to_vec(), "repository/.adjutant/rules/a.rules:2:1: "),
    ];
    for (name, bytes, expected) in cases {
        let home = Home::new();
        home.write(&format!("repository/.adjutant/{name}"), bytes);
        let complaint = home.complaint();
        assert!(complaint.starts_with(expected), "{complaint}");
    }
    let home = Home::new();
    for number in 0..=MOST_RULE_FILES {
        home.write(&format!("repository/.adjutant/rules/{number}.rules"), "");
    }
    assert_eq!(home.complaint(), "repository/.adjutant/rules holds more than 100 files of rules");
    assert!(
        Policy::built_in().with_repository(Path::new("/nowhere/at/all")).is_ok(),
        "a folder that is not there says nothing"
    );
}

#[test]
fn a_folder_is_under_all_that_its_repository_says_above_it() {
    let home = Home::new();
    let inner = home.path("repository/a/b");
    for folder in ["repository/.git", "repository/a/.adjutant", "repository/a/b", ".adjutant"] {
        fs::create_dir_all(home.path(folder)).expect("a folder can be made");
    }
    home.write(".adjutant/policy.toml", "longest_grant = \"1h\"\n");
    home.write("repository/.adjutant/policy.toml", "longest_grant = \"2h\"\n");
    home.write("repository/a/.adjutant/policy.toml", "longest_grant = \"3h\"\n");
    let hours = || Policy::built_in().with_folder(&inner).expect("the files are good").longest_grant().as_secs() / 3600;
    assert_eq!(hours(), 2, "each narrows, up to the top of the repository and not beyond");
    fs::remove_dir(home.path("repository/.git")).expect("it is empty");
    let longest = Policy::built_in().with_folder(&inner).expect("there are none").longest_grant();
    assert_eq!(longest, Policy::built_in().longest_grant(), "without a repository the folder speaks for itself");
}
