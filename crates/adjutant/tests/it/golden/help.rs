//! The manual of each command, and its completions.

use crate::support::World;

#[test]
fn the_help_of_every_command() {
    let commands: [&[&str]; 41] = [
        &[],
        &["run"],
        &["exec"],
        &["gateway"],
        &["daemon"],
        &["daemon", "start"],
        &["daemon", "status"],
        &["daemon", "stop"],
        &["token"],
        &["token", "create"],
        &["token", "list"],
        &["token", "revoke"],
        &["sandbox"],
        &["sandbox", "explain"],
        &["trace"],
        &["trace", "list"],
        &["trace", "show"],
        &["trace", "export"],
        &["trace", "verify"],
        &["approvals"],
        &["approvals", "list"],
        &["approvals", "show"],
        &["approvals", "allow"],
        &["approvals", "deny"],
        &["approvals", "grants"],
        &["approvals", "revoke"],
        &["budget"],
        &["budget", "show"],
        &["budget", "set"],
        &["budget", "lift"],
        &["policy"],
        &["policy", "show"],
        &["policy", "check"],
        &["policy", "explain"],
        &["policy", "test"],
        &["secret"],
        &["secret", "set"],
        &["secret", "list"],
        &["models"],
        &["doctor"],
        &["completions"],
    ];
    let world = World::new();
    for command in commands {
        let words = [command, &["--help"]].concat();
        let done = world.run(world.home.path(), &words).exits(0);
        assert_eq!(done.err, "", "{words:?}: help is what was asked for");
        insta::assert_snapshot!(["help", &command.join("_")].join("_").trim_end_matches('_'), done.out);
    }
    insta::assert_snapshot!("help_in_short", world.run(world.home.path(), &["run", "-h"]).exits(0).out);
}

/// A word that is listed nowhere here is a command without a golden help.
#[test]
fn no_command_is_forgotten() {
    let world = World::new();
    let listed = |words: &[&str]| {
        let text = world.run(world.home.path(), words).exits(0).out;
        let commands = text.split("Commands:\n").nth(1).expect("there are commands");
        let lines = commands.lines().take_while(|line| line.starts_with("  "));
        lines.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(
        listed(&["--help"]),
        [
            "run",
            "exec",
            "gateway",
            "daemon",
            "token",
            "sandbox",
            "approvals",
            "budget",
            "policy",
            "secret",
            "trace",
            "models",
            "doctor",
            "completions",
            "help"
        ]
    );
    assert_eq!(listed(&["approvals", "--help"]), ["list", "show", "allow", "deny", "grants", "revoke", "help"]);
    assert_eq!(listed(&["budget", "--help"]), ["show", "set", "lift", "help"]);
    assert_eq!(listed(&["daemon", "--help"]), ["start", "status", "stop", "help"]);
    assert_eq!(listed(&["token", "--help"]), ["create", "list", "revoke", "help"]);
    assert_eq!(listed(&["policy", "--help"]), ["show", "check", "explain", "test", "help"]);
    assert_eq!(listed(&["secret", "--help"]), ["set", "list", "show", "remove", "help"]);
    assert_eq!(listed(&["trace", "--help"]), ["list", "show", "export", "verify", "help"]);
}

#[test]
fn shells_can_complete() {
    let world = World::new();
    // What each script says at its beginning, and how it names an option.
    let cases = [
        ("bash", "_adjutant() {", "--include-dirty"),
        ("zsh", "#compdef adjutant", "--include-dirty"),
        ("fish", "# Print an optspec", "include-dirty"),
    ];
    for (shell, start, option) in cases {
        let done = world.run(world.home.path(), &["completions", shell]).exits(0);
        assert!(done.out.starts_with(start), "{shell}: {}", done.out.lines().next().unwrap_or_default());
        assert!(done.out.contains(option), "{shell} completes options");
        assert_eq!(done.err, "", "{shell}");
    }
}
