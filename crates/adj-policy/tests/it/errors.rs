//! Policy files that are wrong: every complaint names the place, and where it can the way out.

use crate::world::{complaint, layer};
use adj_policy::LayerKind::{Administrator, Organisation, Repository};

#[test]
fn complaints_name_file_line_and_column() {
    let wrong = [
        "allowed_sandbox_mode = []",
        "\n\n  longest_grnat = \"8h\"",
        "[network]\nhost = []",
        "[network]\nhosts = [{ host = \"a.org\", port = 443 }]",
        "[network]\nhosts = [{ ports = [443] }]",
        "[network]\nhosts = [{ host = \"a.org\", ports = [70000] }]",
        "[network]\nhosts = [{ host = \"a.org\", methods = [\"get\"] }]",
        "[network]\nhosts = [{ host = \"a.org\", paths = [\"repos\"] }]",
        "[network]\nhosts = [{ host = \"a.org\", private_addresses = [\"10.0.0.1/8\"] }]",
        "[network]\nhosts = [\n  \"pypi.org\",\n  \"10.0.0.1\",\n]",
        "[network]\nhosts = [\"@package\"]",
        "[network]\nhosts = \"pypi.org\"",
        "[network]\nask = \"yes\"",
        "[network]\ndenied_hosts = [\"*\"]",
        "allowed_sandbox_modes = [\"readonly\"]",
        "allowed_approval_policies = [\"always\"]",
        "allowed_profiles = [\"a b\"]",
        "expire_approvals_after = \"10\"",
        "expire_approvals_after = \"0\"",
        "longest_grant = 8",
        "[tools]\nbash = \"ask\"",
        "[limits]\nmemroy = \"2GiB\"",
        "[limits]\nmemory = \"2GB\"",
        "[limits]\nprocesses = 0",
        "[limits]\nwall = 600",
        "[filesystem]\nhidden = [\"../other\"]",
        "[filesystem]\nhidden = [\"a[\"]",
        "[secrets]\nallowed = [\"\"]",
        "[[rules]]\ndecision = \"prompt\"",
        "[[rules]]\npattern = []",
        "[[rules]]\npattern = [\"git\", []]",
        "[[rules]]\npattern = [\"git\", \"\"]",
        "[[rules]]\npattern = [\"git\"]\ndecision = \"deny\"",
        "[profiles.web]\nmode = \"writable\"",
        "[profiles.web]\nread = [\"relative\"]",
        "[profiles.web]\nwrite = [\"/srv/../etc\"]",
        "[profiles.web.network]\ndenied_hosts = []",
        "[profiles.web.env]\n\"A=B\" = \"c\"",
        "[profiles.\"we b\"]",
        "a = 1\na = 2",
        "[network\nhosts = []",
        "ask = tru",
        "\u{1b}]0;title\u{7} = 1",
    ];
    let told: Vec<String> = wrong.iter().map(|text| format!("{text}\n  → {}", complaint(Organisation, text))).collect();
    insta::assert_snapshot!(told.join("\n\n"));
}

#[test]
fn a_repository_cannot_say_what_only_narrows_elsewhere() {
    let wrong = [
        "default_profile = \"danger-full-access\"",
        "[profiles.web]\nread = [\"/\"]",
        "[profiles.web]\nwrite = [\"/\"]",
        "[profiles.web.env]\nPATH = \"/tmp\"",
        "[filesystem]\nhidden = [\"/usr/bin/*\"]",
        "[filesystem]\nreadonly = [\"~/.ssh\"]",
    ];
    let told: Vec<String> = wrong.iter().map(|text| format!("{text}\n  → {}", complaint(Repository, text))).collect();
    insta::assert_snapshot!(told.join("\n\n"));
    for text in wrong {
        layer(Administrator, text);
    }
}

#[test]
fn what_is_too_much_is_refused() {
    let many = vec!["\"a.org\""; 2001].join(", ");
    let told = complaint(Organisation, &format!("[network]\nhosts = [{many}]"));
    assert_eq!(told, "policy.toml:2:9: `network.hosts`: more than 2000 items");
    let deep = format!("tools = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(complaint(Organisation, &deep).starts_with("policy.toml:1:"));
    let long = format!("{} = 1", "k".repeat(100_000));
    assert!(complaint(Organisation, &long).len() < 1_000);
}
