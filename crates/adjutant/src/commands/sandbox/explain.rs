//! `adjutant sandbox explain`: the sandbox in words, with whoever made it so.

use super::{Wanted, limits};
use crate::{
    cli::ExplainSandboxArgs,
    commands::print,
    confinement::place,
    failure::Result,
    wiring,
    words::{harmless, one_line},
};
use adj_domain::{Destination, HostPattern, HostRule, Ruling, SandboxMode, Verdict};
use adj_policy::PathRule;
use adj_sandbox::{GUARDED, HOME, PROTECTED};
use serde::Serialize;
use std::{collections::BTreeMap, process::ExitCode};

/// Everything that there is to say.
#[derive(Debug, Serialize)]
struct Picture {
    mode: SandboxMode,
    profile: String,
    folder: String,
    files: Files,
    environment: Vec<String>,
    network: Network,
    limits: Vec<limits::Held>,
    /// Names of secrets, each with the variable that holds its placeholder.
    secrets: BTreeMap<String, Option<String>>,
}

#[derive(Debug, Serialize)]
struct Files {
    writable: Vec<String>,
    /// Empty at the start and gone at the end.
    private: Vec<String>,
    readable: Vec<String>,
    /// What cannot be seen into.
    hidden: Vec<Said>,
    /// What cannot be changed.
    protected: Vec<Said>,
}

/// A path or pattern, and who says so.
#[derive(Debug, Serialize)]
struct Said {
    what: String,
    said_by: String,
}

#[derive(Debug, Serialize)]
struct Network {
    state: State,
    hosts: Vec<Host>,
    /// What becomes of hosts that are not listed.
    others: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Off,
    Listed,
    /// The machine's own, because there is no sandbox.
    Open,
}

#[derive(Debug, Serialize)]
struct Host {
    host: String,
    verdict: Verdict,
    rule: String,
    said_by: String,
}

pub fn explain(args: &ExplainSandboxArgs) -> Result<ExitCode> {
    let wanted = Wanted::of(&args.place)?;
    let picture = picture(&wanted, args)?;
    if args.json {
        print(&format!("{}\n", serde_json::to_string(&picture).expect("a picture is plain data")))?;
    } else {
        print(&harmless(&rendered(&picture)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn picture(wanted: &Wanted, args: &ExplainSandboxArgs) -> Result<Picture> {
    let plan = wanted.confined.plan();
    let mut environment: Vec<String> = plan.env.keys().cloned().collect();
    let secrets = match wanted.has_network() {
        true => {
            wiring::forbid_core_dumps()?;
            let state = wiring::state_dir()?;
            wanted.asked.check_secrets(&state)?;
            wanted.confined.secrets(&wiring::vault(&state)?)
        }
        false => BTreeMap::new(),
    };
    environment.extend(secrets.values().flatten().cloned());
    environment.sort();
    environment.dedup();
    Ok(Picture {
        mode: wanted.asked.profile.mode,
        profile: wanted.asked.profile.name.clone(),
        folder: plan.cwd.display().to_string(),
        files: files(wanted),
        environment,
        network: network(wanted),
        limits: limits::held(wanted, &args.place.confinement),
        secrets,
    })
}

fn files(wanted: &Wanted) -> Files {
    let plan = wanted.confined.plan();
    let profile = &wanted.asked.profile;
    let folder = plan.cwd.display().to_string();
    if profile.mode == SandboxMode::DangerFullAccess {
        let all = "everything that you may".to_owned();
        let (writable, readable) = (vec![all.clone()], vec![all]);
        return Files { writable, private: Vec::new(), readable, hidden: Vec::new(), protected: Vec::new() };
    }
    let binds = |writable| plan.binds.iter().filter(move |bind| bind.writable == writable);
    let shown = |bind: &adj_sandbox::Bind| bind.inside.display().to_string();
    let mut writable: Vec<String> = binds(true).map(shown).collect();
    let mut readable = vec!["/usr, /bin, /sbin, /lib* and harmless parts of /etc".to_owned()];
    readable.extend(binds(false).map(shown));
    let is_writable = profile.mode == SandboxMode::WorkspaceWrite;
    if is_writable {
        writable.insert(0, folder)
    } else {
        readable.insert(0, folder)
    }
    let asked = |patterns: &[String]| {
        let said =
            patterns.iter().map(|what| Said { what: what.clone(), said_by: format!("profile {}", profile.name) });
        said.collect::<Vec<_>>()
    };
    let policy = |rules: Vec<PathRule>| {
        rules.into_iter().map(|rule| {
            let ruling =
                Ruling { file: rule.file, line: rule.line, ..Ruling::new(Verdict::Deny, rule.layer.as_str(), "") };
            Said { what: rule.pattern, said_by: place(&ruling) }
        })
    };
    let mut hidden = asked(&profile.hidden);
    hidden.extend(policy(wanted.asked.policy.hidden()));
    let mut protected = asked(&profile.readonly);
    protected.extend(policy(wanted.asked.policy.readonly()));
    if is_writable {
        let names = PROTECTED.iter().chain(&GUARDED).map(|name| (*name).to_owned());
        protected.extend(names.map(|what| Said { what, said_by: "built-in".to_owned() }));
    }
    let private = vec!["/tmp".to_owned(), HOME.to_owned(), "/dev/shm".to_owned()];
    Files { writable, private, readable, hidden, protected }
}

fn network(wanted: &Wanted) -> Network {
    let profile = &wanted.asked.profile;
    let hosts = profile.network.hosts.iter().flat_map(|rule| hosts_of(wanted, rule)).collect();
    let state = match (wanted.has_network(), profile.mode) {
        (true, _) => State::Listed,
        (false, SandboxMode::DangerFullAccess) => State::Open,
        (false, _) => State::Off,
    };
    // A name that nobody can register, so nobody lists it.
    let others = match state {
        State::Open => Verdict::Allow,
        State::Off => Verdict::Deny,
        State::Listed => verdict_on(wanted, "unlisted.invalid".to_owned(), 443).verdict,
    };
    Network { state, hosts, others }
}

/// What becomes of an entry, port by port.
fn hosts_of<'w>(wanted: &'w Wanted, rule: &'w HostRule) -> impl Iterator<Item = Host> + 'w {
    rule.ports.iter().map(move |port| {
        let (shown, tried) = match &rule.host {
            HostPattern::Exact(host) => (host.clone(), host.clone()),
            // One of the names that it covers stands for all; a rule about another may be stricter.
            HostPattern::Below(suffix) => (format!("*.{suffix}"), format!("any.{suffix}")),
        };
        let ruling = verdict_on(wanted, tried, *port);
        let said_by = place(&ruling);
        Host { host: format!("{shown}:{port}"), verdict: ruling.verdict, rule: ruling.rule, said_by }
    })
}

fn verdict_on(wanted: &Wanted, host: String, port: u16) -> Ruling {
    wanted.confined.host(&Destination { host, port, method: None, path: None }).ruling
}

fn rendered(picture: &Picture) -> String {
    let Picture { mode, profile, folder, files, environment, network, limits, secrets } = picture;
    let mut text = format!("mode         {mode} (profile {profile})\nfolder       {folder}\n\nFiles\n");
    let list = |items: &[String]| if items.is_empty() { "nothing".to_owned() } else { items.join(", ") };
    text.push_str(&format!("  writable   {}\n", list(&files.writable)));
    if !files.private.is_empty() {
        text.push_str(&format!("  private    {}: empty at the start, gone at the end\n", list(&files.private)));
    }
    text.push_str(&format!("  readable   {}\n", list(&files.readable)));
    for (word, said) in [("hidden", &files.hidden), ("protected", &files.protected)] {
        // What one speaker says stands in one line.
        let mut by: Vec<(&str, Vec<String>)> = Vec::new();
        for Said { what, said_by } in said {
            match by.last_mut().filter(|(last, _)| last == said_by) {
                Some((_, whats)) => whats.push(one_line(what, 200)),
                None => by.push((said_by, vec![one_line(what, 200)])),
            }
        }
        for (said_by, whats) in by {
            text.push_str(&format!("  {word:<10} {} ({said_by})\n", whats.join(", ")));
        }
    }
    text.push_str(&format!("\nEnvironment\n  {}\n\nNetwork\n", environment.join(" ")));
    match network.state {
        State::Off => text.push_str("  off: nothing can be reached; --allow-host HOST allows one\n"),
        State::Open => text.push_str("  the machine's own: there is no sandbox\n"),
        State::Listed => {
            for host in &network.hosts {
                let rule = one_line(&host.rule, 200);
                text.push_str(&format!(
                    "  {:<6} {:<28} {rule} ({})\n",
                    host.verdict.to_string(),
                    host.host,
                    host.said_by
                ));
            }
            text.push_str(&format!("  {:<6} all others\n", network.others.to_string()));
        }
    }
    text.push_str("\nLimits\n");
    for held in limits {
        text.push_str(&format!(
            "  {:<11} {:<8} {}\n  {:<20} held by: {}\n",
            held.limit.to_string(),
            held.value.to_string(),
            held.set_by,
            "",
            held.held_by
        ));
    }
    text.push_str("\nSecrets\n");
    if secrets.is_empty() {
        text.push_str("  none\n");
    }
    for (name, variable) in secrets {
        match variable {
            Some(variable) => text.push_str(&format!("  {name}: a placeholder in {variable}\n")),
            None => text.push_str(&format!("  {name}: put in at the door\n")),
        }
    }
    text
}
