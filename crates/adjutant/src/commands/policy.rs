//! `adjutant policy`: what holds here, whether the files are good, and why something is decided as it is.

use super::{folder_of, print};
use crate::{
    cli::{CheckArgs, ExplainArgs, LayerArg, PlaceArgs, PolicyCommand},
    confinement::{self, Asked, place, policy_at},
    failure::{Code, Failure, Result},
    words::{count, harmless, one_line},
};
use adj_domain::{Destination, NetworkRequest, Ruling, Timestamp, Verdict};
use adj_policy::{CheckOutput, Context, Explanation, Layer, LayerKind, Policy, RuleFile, Saying, Word};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path, process::ExitCode};

pub fn policy(command: PolicyCommand) -> Result<ExitCode> {
    match command {
        PolicyCommand::Show { place, json } => show(&place, json),
        PolicyCommand::Check(args) if !args.rules.is_empty() => check_command(&args),
        PolicyCommand::Check(args) => check(&args),
        PolicyCommand::Explain(args) => explain(&args),
        PolicyCommand::Test { place } => test(&place),
    }
}

fn here(args: &PlaceArgs) -> Result<Policy> {
    policy_at(&folder_of(args.cd.as_deref())?)
}

fn show(args: &PlaceArgs, json: bool) -> Result<ExitCode> {
    let explanation = here(args)?.explain();
    if json {
        print(&format!("{}\n", serde_json::to_string(&explanation).expect("an explanation is plain data")))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::from("Layers, each narrowed by the next\n");
    for layer in &explanation.layers {
        let file = layer.file.as_deref().unwrap_or(match layer.layer {
            LayerKind::BuiltIn => "what holds where nobody says anything",
            _ => "no policy file, rules only",
        });
        text.push_str(&format!("  {:<14} {file}\n", layer.layer.as_str()));
        for rules in &layer.rule_files {
            let effect = if rules.without_effect { "; those that allow have no effect in this layer" } else { "" };
            text.push_str(&format!("  {:<14} {} ({}{effect})\n", "", rules.file, count(rules.rules, "rule")));
        }
    }
    text.push_str("\nWhat holds\n");
    for key in &explanation.keys {
        text.push_str(&format!("  {} = {}\n", key.key, one_line(&key.effective, 300)));
        for said in &key.said {
            text.push_str(&format!("      {}: {}\n", said_where(said), one_line(&said.value, 300)));
        }
    }
    text.push_str("\nProfiles\n");
    for (name, layer) in &explanation.profiles {
        text.push_str(&format!("  {name:<24} {layer}\n"));
    }
    text.push_str(&format!("\nFingerprint {}\n", explanation.hash));
    print(&harmless(&text))?;
    Ok(ExitCode::SUCCESS)
}

fn said_where(said: &Saying) -> String {
    let ruling =
        Ruling { file: said.file.clone(), line: said.line, ..Ruling::new(Verdict::Allow, said.layer.as_str(), "") };
    place(&ruling)
}

fn check(args: &CheckArgs) -> Result<ExitCode> {
    if args.files.is_empty() {
        let explanation = here(&args.place)?.explain();
        let mut text = String::new();
        for layer in &explanation.layers {
            for file in layer.file.iter().chain(layer.rule_files.iter().map(|rules| &rules.file)) {
                text.push_str(&format!("ok    {file} ({})\n", layer.layer));
            }
        }
        if text.is_empty() {
            text.push_str("No policy files here; what is built in holds\n");
        }
        for note in without_effect(&explanation) {
            text.push_str(&format!("note  {note}\n"));
        }
        print(&harmless(&text))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    let mut broken = None;
    for file in &args.files {
        match check_file(file, args.layer) {
            Ok((kind, notes)) => {
                text.push_str(&format!("ok    {} ({kind})\n", file.display()));
                notes.iter().for_each(|note| text.push_str(&format!("note  {note}\n")));
            }
            Err(failure) => {
                text.push_str(&format!("bad   {}\n", file.display()));
                broken.get_or_insert(failure);
            }
        }
    }
    print(&harmless(&text))?;
    broken.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Checks one file by itself, as the layer that its place says.
fn check_file(file: &Path, layer: Option<LayerArg>) -> Result<(LayerKind, Vec<String>)> {
    let kind = layer.map_or_else(|| kind_of(file), kind);
    let text = read_file(file)?;
    let layer = if file.extension().is_some_and(|end| end == "rules") {
        let rules = RuleFile::load(file, &text).map_err(broken)?;
        let mut layer = Layer::new(kind, adj_policy::Settings::default());
        layer.rule_files.push(rules.into());
        layer
    } else {
        Layer::parse(kind, file, &text).map_err(broken)?
    };
    Ok((kind, without_effect(&Policy::built_in().with(layer).explain())))
}

fn broken(error: adj_policy::PolicyError) -> Failure {
    Failure {
        code: Code::Usage,
        error: error.into(),
        hint: Some("a file with a mistake is not used at all, so nothing starts".to_owned()),
    }
}

fn kind(layer: LayerArg) -> LayerKind {
    match layer {
        LayerArg::Administrator => LayerKind::Administrator,
        LayerArg::Organisation => LayerKind::Organisation,
        LayerArg::Repository => LayerKind::Repository,
    }
}

fn kind_of(file: &Path) -> LayerKind {
    let path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    if path.ancestors().skip(1).any(|folder| folder.file_name().is_some_and(|name| name == ".adjutant")) {
        LayerKind::Repository
    } else if path.starts_with("/etc/adjutant") || path.file_name().is_some_and(|name| name == "requirements.toml") {
        LayerKind::Administrator
    } else {
        LayerKind::Organisation
    }
}

fn read_file(path: &Path) -> Result<String> {
    use std::io::Read;
    let unusable = |error| Failure::unusable(error, format_args!("cannot read {}", path.display()));
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unusable)?;
    file.take(adj_policy::LARGEST_FILE + 1).read_to_string(&mut text).map_err(unusable)?;
    if text.len() as u64 > adj_policy::LARGEST_FILE {
        return Err(Failure::usage(format!("{} is larger than {} bytes", path.display(), adj_policy::LARGEST_FILE)));
    }
    Ok(text)
}

/// What somebody says in vain.
fn without_effect(explanation: &Explanation) -> Vec<String> {
    let rules = explanation.layers.iter().flat_map(|layer| {
        let useless = layer.rule_files.iter().filter(|rules| rules.without_effect);
        useless.map(|rules| {
            format!("{}: rules that allow have no effect, because a {} only narrows", rules.file, layer.layer)
        })
    });
    let said = explanation.keys.iter().flat_map(|key| {
        let useless = key.said.iter().filter(|said| said.value.ends_with("(no effect)"));
        useless.map(|said| format!("{}: {}: {}", said_where(said), key.key, said.value))
    });
    rules.chain(said).collect()
}

/// What files of rules say of a command, in the JSON that other tools print for the same files.
fn check_command(args: &CheckArgs) -> Result<ExitCode> {
    let mut files = Vec::new();
    for path in &args.rules {
        files.push(RuleFile::load(path, &read_file(path)?).map_err(broken)?);
    }
    let argv: Vec<Word> = args.command.iter().cloned().map(Word::Literal).collect();
    let output = CheckOutput::of(files.iter().map(RuleFile::rules), &argv);
    print(&format!("{}\n", serde_json::to_string(&output).expect("an answer is plain data")))?;
    Ok(ExitCode::SUCCESS)
}

fn test(args: &PlaceArgs) -> Result<ExitCode> {
    // Rules are tested when they are loaded: what loads has kept what its examples promise.
    let explanation = match here(args) {
        Ok(policy) => policy.explain(),
        Err(failure)
            if failure.error.downcast_ref().is_some_and(|error| matches!(error, adj_policy::PolicyError::Rule(_))) =>
        {
            return Err(Failure { code: Code::WorkFailed, ..failure });
        }
        Err(failure) => return Err(failure),
    };
    let files: Vec<_> = explanation.layers.iter().flat_map(|layer| &layer.rule_files).collect();
    let mut text = String::new();
    for file in &files {
        text.push_str(&format!("ok  {} ({})\n", file.file, count(file.rules, "rule")));
    }
    let rules = files.iter().map(|file| file.rules).sum();
    text.push_str(&match files.len() {
        0 => "No files of rules here\n".to_owned(),
        number => format!("{} in {}: every example holds\n", count(rules, "rule"), count(number, "file")),
    });
    print(&harmless(&text))?;
    Ok(ExitCode::SUCCESS)
}

fn explain(args: &ExplainArgs) -> Result<ExitCode> {
    let folder = folder_of(args.place.cd.as_deref())?;
    let asked = Asked::of(&policy_at(&folder)?, &args.confinement)?;
    let approval = confinement::approval(&asked.policy, &args.approval, true)?;
    let network = NetworkRequest { hosts: asked.profile.network.hosts.clone(), ask: asked.profile.network.ask };
    let permissions = BTreeMap::new();
    let context = Context {
        approval,
        mode: asked.profile.mode,
        permissions: &permissions,
        network: &network,
        grants: &[],
        now: Timestamp::now(),
        session: None,
        repository: folder.to_str(),
    };
    let (about, mut voices) = match &args.host {
        Some(host) => {
            let to = destination(host)?;
            (format!("{to}"), vec![asked.policy.host(&to, &context).ruling])
        }
        None => {
            let input = input(args)?;
            let about = crate::board::call(&args.tool, &input);
            (about, asked.policy.explain_call(&args.tool, &input, &context))
        }
    };
    let ruling = voices.pop().expect("the last is what it comes to");
    if args.json {
        let answer = json!({"about": about, "approval": approval, "mode": asked.profile.mode, "voices": voices, "ruling": ruling});
        print(&format!("{answer}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("{about}\n");
    for voice in &voices {
        text.push_str(&format!("  {:<6} {} ({})\n", voice.verdict.to_string(), voice.rule, place(voice)));
    }
    text.push_str(&format!("→ {} {} ({})\n", ruling.verdict, ruling.rule, place(&ruling)));
    if let Some(why) = &ruling.justification {
        text.push_str(&format!("  because: {why}\n"));
    }
    text.push_str(&format!(
        "Asked for: sandbox {}, approval policy {approval}, profile {}. What people granted is left out.\n",
        asked.profile.mode, asked.profile.name
    ));
    print(&harmless(&text))?;
    Ok(ExitCode::SUCCESS)
}

fn destination(text: &str) -> Result<Destination> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().ok().filter(|port| *port > 0)),
        None => (text, Some(443)),
    };
    let port = port.ok_or_else(|| Failure::usage(format!("{text:?} has no port from 1 to 65535 behind its colon")))?;
    let host = adj_domain::host_name(host).map_err(Failure::usage)?;
    Ok(Destination { host, port, method: None, path: None })
}

/// The call that is asked about. Several words are what a shell would have to be told to run exactly these.
fn input(args: &ExplainArgs) -> Result<Value> {
    match (args.tool.as_str(), args.command.as_slice()) {
        ("bash", []) => Err(Failure::usage("there is no command to explain")
            .hint("put it behind two hyphens: adjutant policy explain -- git push; or name a --tool or a --host")),
        ("bash", [script]) => Ok(json!({"command": script})),
        ("bash", words) => Ok(json!({"command": words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")})),
        (_, []) => Ok(json!({})),
        (tool, _) => Err(Failure::usage(format!("the tool {tool} takes no command"))),
    }
}

/// A word as a shell has to be given it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_a_shell_as_they_are() {
        for (word, expected) in [("git", "git"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("", "''"), ("$x", "'$x'")] {
            assert_eq!(quoted(word), expected);
        }
    }

    #[test]
    fn a_place_says_whose_file_it_is() {
        for (path, expected) in [
            ("/etc/adjutant/requirements.toml", LayerKind::Administrator),
            ("/r/.adjutant/policy.toml", LayerKind::Repository),
            ("/r/.adjutant/rules/a.rules", LayerKind::Repository),
            ("/home/me/.config/adjutant/policy.toml", LayerKind::Organisation),
            ("requirements.toml", LayerKind::Administrator),
        ] {
            assert_eq!(kind_of(Path::new(path)), expected, "{path}");
        }
    }
}
