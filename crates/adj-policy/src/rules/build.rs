//! What the functions of a file of rules do: they check what they are given and note it.

use super::{
    Decision, Fault, NetworkRule, Rule, RuleSet,
    evaluate::{Value, shown},
    examples,
};
use crate::command::Word;
use std::{collections::BTreeSet, path::PathBuf};

/// The most that all rules of a file may hold, in bytes of their words.
const MAX_KEPT_BYTES: usize = 16 * 1024 * 1024;

/// A command that has to match its rule, or must not.
struct Example {
    rule: usize,
    argv: Vec<String>,
    is_to_match: bool,
    at: usize,
}

/// Collects rules and their examples.
pub(super) struct Builder {
    set: RuleSet,
    examples: Vec<Example>,
    /// Where lines end.
    newlines: Vec<usize>,
    kept_bytes: usize,
}

impl Builder {
    pub(super) fn new(text: &str) -> Self {
        let newlines = text.match_indices('\n').map(|(at, _)| at).collect();
        Self { set: RuleSet::default(), examples: Vec::new(), newlines, kept_bytes: 0 }
    }

    pub(super) fn call(&mut self, name: &str, given: Vec<(Option<&str>, Value)>, at: usize) -> Result<(), Fault> {
        match name {
            "prefix_rule" => {
                let names = ["pattern", "decision", "match", "not_match", "justification"];
                self.prefix_rule(arguments(name, names, given, at)?, at)
            }
            "host_executable" => self.host_executable(arguments(name, ["name", "paths"], given, at)?, at),
            "network_rule" => {
                let names = ["host", "protocol", "decision", "justification"];
                self.network_rule(arguments(name, names, given, at)?, at)
            }
            _ => {
                let known = "prefix_rule, host_executable, network_rule";
                Err(Fault::new(at, format!("there is no function \"{}\" here ({known})", shown(name))))
            }
        }
    }

    /// Tests the examples, now that every `host_executable` is known.
    pub(super) fn finish(self) -> Result<RuleSet, Fault> {
        for example in &self.examples {
            let argv: Vec<Word> = example.argv.iter().map(|word| Word::Literal(word.clone())).collect();
            if self.set.example_matches(example.rule, &argv) != example.is_to_match {
                let problem = if example.is_to_match { "does not match" } else { "matches" };
                let list = if example.is_to_match { "match" } else { "not_match" };
                let command = shown(&example.argv.join(" "));
                return Err(Fault::new(
                    example.at,
                    format!("the example `{command}` in \"{list}\" {problem} the rule"),
                ));
            }
        }
        Ok(self.set)
    }

    fn line(&self, at: usize) -> u32 {
        u32::try_from(1 + self.newlines.partition_point(|newline| *newline < at)).unwrap_or(u32::MAX)
    }

    fn keep(&mut self, bytes: usize, at: usize) -> Result<(), Fault> {
        self.kept_bytes += bytes + 32;
        if self.kept_bytes > MAX_KEPT_BYTES {
            return Err(Fault::new(at, format!("the rules hold more than {} MiB", MAX_KEPT_BYTES / 1024 / 1024)));
        }
        Ok(())
    }

    fn prefix_rule(&mut self, given: [Option<Value>; 5], at: usize) -> Result<(), Fault> {
        let [pattern, decision, matching, not_matching, justification] = given;
        let Some(pattern) = pattern else { return Err(Fault::new(at, "\"pattern\" is missing")) };
        let mut words = Vec::new();
        for alternatives in items("pattern", &pattern, at)? {
            let alternatives = match alternatives {
                Value::Text(word) => vec![word.to_string()],
                list => texts("a word of \"pattern\"", list, at)?,
            };
            if alternatives.is_empty() {
                return Err(Fault::new(at, "a word of \"pattern\" has no alternatives"));
            }
            self.keep(alternatives.iter().map(|word| word.len() + 32).sum(), at)?;
            words.push(alternatives);
        }
        if words.is_empty() {
            return Err(Fault::new(at, "\"pattern\" is empty"));
        }
        let decision = decision.map_or(Ok(Decision::Allow), |decision| as_decision(&decision, &[], at))?;
        let justification = self.justification(justification, at)?;
        let line = self.line(at);
        let rule = self.set.add(Rule { pattern: words, decision, justification, line }, at)?;
        for (list, is_to_match) in [(matching, true), (not_matching, false)] {
            let name = if is_to_match { "match" } else { "not_match" };
            let Some(list) = list else { continue };
            for example in items(name, &list, at)? {
                let argv = match example {
                    Value::Text(text) => match examples::split(text) {
                        Some(argv) => argv,
                        None => {
                            let problem =
                                format!("the example `{}` in \"{name}\" has a quote that is not closed", shown(text));
                            return Err(Fault::new(at, problem));
                        }
                    },
                    list => texts("an example", list, at)?,
                };
                if argv.is_empty() {
                    return Err(Fault::new(at, format!("an example in \"{name}\" is empty")));
                }
                self.keep(argv.iter().map(|word| word.len() + 32).sum(), at)?;
                self.examples.push(Example { rule, argv, is_to_match, at });
            }
        }
        Ok(())
    }

    fn host_executable(&mut self, given: [Option<Value>; 2], at: usize) -> Result<(), Fault> {
        let [Some(name), Some(paths)] = given else {
            return Err(Fault::new(at, "\"name\" and \"paths\" are both needed"));
        };
        let name = text("name", &name, at)?;
        if name.is_empty() || name.contains(['/', '\\']) {
            return Err(Fault::new(at, format!("\"{}\" is not the bare name of a program", shown(name))));
        }
        let mut listed = BTreeSet::new();
        for path in texts("a path", &paths, at)? {
            self.keep(path.len(), at)?;
            let path = PathBuf::from(path);
            if !path.is_absolute() || path.file_name().is_none_or(|last| last != name) {
                let path = shown(&path.display().to_string());
                return Err(Fault::new(
                    at,
                    format!("\"{path}\" is not an absolute path that ends with \"{}\"", shown(name)),
                ));
            }
            listed.insert(path);
        }
        self.keep(name.len(), at)?;
        self.set.add_host(name.to_owned(), listed);
        Ok(())
    }

    fn network_rule(&mut self, given: [Option<Value>; 4], at: usize) -> Result<(), Fault> {
        let [Some(host), Some(protocol), Some(decision), justification] = given else {
            return Err(Fault::new(at, "\"host\", \"protocol\" and \"decision\" are all needed"));
        };
        let host = text("host", &host, at)?.trim().trim_end_matches('.').to_ascii_lowercase();
        let has_scheme = host.contains("://") || host.contains(['/', '?', '#', '*']);
        if host.is_empty()
            || has_scheme
            || host.chars().any(|character| character.is_whitespace() || character.is_control())
        {
            return Err(Fault::new(at, format!("\"{}\" is not the name of one host", shown(&host))));
        }
        let protocol = match text("protocol", &protocol, at)? {
            "http" => "http",
            "https" | "https_connect" | "http-connect" => "https",
            "socks5_tcp" => "socks5_tcp",
            "socks5_udp" => "socks5_udp",
            other => {
                let known = "http, https, socks5_tcp, socks5_udp";
                return Err(Fault::new(at, format!("\"{}\" is not a protocol ({known})", shown(other))));
            }
        };
        let decision = as_decision(&decision, &["deny"], at)?;
        let justification = self.justification(justification, at)?;
        self.keep(host.len(), at)?;
        let rule = NetworkRule { host, protocol: protocol.to_owned(), decision, justification, line: self.line(at) };
        self.set.add_network(rule, at)
    }

    fn justification(&mut self, given: Option<Value>, at: usize) -> Result<Option<String>, Fault> {
        let Some(given) = given else { return Ok(None) };
        let justification = text("justification", &given, at)?;
        if justification.trim().is_empty() {
            return Err(Fault::new(at, "\"justification\" is empty"));
        }
        self.keep(justification.len(), at)?;
        Ok(Some(justification.to_owned()))
    }
}

/// Puts what is given where it belongs; `None` counts as not given.
fn arguments<const N: usize>(
    function: &str,
    names: [&str; N],
    given: Vec<(Option<&str>, Value)>,
    at: usize,
) -> Result<[Option<Value>; N], Fault> {
    let mut placed = [const { None }; N];
    let mut is_given = [false; N];
    for (position, (name, value)) in given.into_iter().enumerate() {
        let place = match name {
            None => Some(position).filter(|position| *position < N),
            Some(name) => names.iter().position(|known| *known == name),
        };
        let Some(place) = place else {
            let what =
                name.map_or_else(|| "so many arguments".to_owned(), |name| format!("an argument \"{}\"", shown(name)));
            return Err(Fault::new(at, format!("{function} does not take {what} ({})", names.join(", "))));
        };
        if std::mem::replace(&mut is_given[place], true) {
            return Err(Fault::new(at, format!("\"{}\" is given twice", names[place])));
        }
        placed[place] = Some(value).filter(|value| !matches!(value, Value::None));
    }
    Ok(placed)
}

fn as_decision(value: &Value, denials: &[&str], at: usize) -> Result<Decision, Fault> {
    match text("decision", value, at)? {
        "allow" => Ok(Decision::Allow),
        "prompt" => Ok(Decision::Prompt),
        "forbidden" => Ok(Decision::Forbidden),
        other if denials.contains(&other) => Ok(Decision::Forbidden),
        other => Err(Fault::new(at, format!("\"{}\" is not a decision (allow, prompt, forbidden)", shown(other)))),
    }
}

fn items<'v>(name: &str, value: &'v Value, at: usize) -> Result<&'v [Value], Fault> {
    match value {
        Value::List { items, .. } => Ok(items),
        other => Err(Fault::new(at, format!("\"{name}\" is {}, and not a list", other.kind()))),
    }
}

fn text<'v>(name: &str, value: &'v Value, at: usize) -> Result<&'v str, Fault> {
    match value {
        Value::Text(text) => Ok(text),
        other => Err(Fault::new(at, format!("\"{name}\" is {}, and not a text", other.kind()))),
    }
}

fn texts(what: &str, value: &Value, at: usize) -> Result<Vec<String>, Fault> {
    let Value::List { items, .. } = value else {
        return Err(Fault::new(at, format!("{what} is {}", value.kind())));
    };
    let texts = items.iter().map(|item| match item {
        Value::Text(text) => Ok(text.to_string()),
        other => Err(Fault::new(at, format!("{what} holds {}, and not a text", other.kind()))),
    });
    texts.collect()
}
