//! How a question is put to a person, what each answer means, and what may be remembered.
//!
//! Must not know: terminals, or where answers go.

use crate::{
    confinement::{place, policy_at},
    failure::{Failure, Result},
    questions::{About, Question},
    wiring,
    words::one_line,
};
use adj_domain::{EventId, Grant, GrantScope, GrantSubject, Timestamp};
use adj_policy::{Parsed, SimpleCommand, Word, parse};
use serde_json::Value;
use std::{path::Path, time::Duration};

/// How long a permission is remembered unless somebody says otherwise.
const REMEMBERED: Duration = Duration::from_secs(8 * 3600);
/// More commands in one line are not remembered: nobody would read the list.
const MOST_COMMANDS: usize = 10;

/// What a person says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Once,
    Session,
    Repository,
    Deny {
        message: Option<String>,
    },
    /// Nothing now; the question stays.
    Leave,
}

/// The question in full.
pub fn described(question: &Question) -> String {
    let (asks, rest) = match &question.about {
        About::Tool { name, .. } if name == "bash" => ("asks to run a command".to_owned(), ""),
        About::Tool { name, .. } => (format!("asks to use the tool {}", one_line(name, 60)), ""),
        About::Host { .. } => ("asks to reach a host; its command waits".to_owned(), ""),
    };
    let mut text = format!("{} {asks}{rest}\n", one_line(&question.agent, 40));
    for line in question.about.full().lines() {
        text.push_str(&format!("  │ {line}\n"));
    }
    if let Some(why) = &question.why {
        text.push_str(&format!("  why      {} ({})\n", one_line(&why.rule, 400), one_line(&place(why), 300)));
        if let Some(because) = &why.justification {
            text.push_str(&format!("  because  {}\n", one_line(because, 400)));
        }
    }
    if let Some(again) = &question.again {
        text.push_str(&format!("  again    {}\n", one_line(again, 200)));
    }
    text.push_str(&format!("  until    {}, then it is denied\n", crate::commands::when(question.expires_at)));
    text
}

/// The answers that can be given here.
pub fn offered(question: &Question) -> String {
    let once = match &question.about {
        About::Tool { .. } => "yes, this once",
        About::Host { .. } => "yes, for this session, also after it is resumed",
    };
    let mut text = format!("  y  {once}\n");
    let subjects = subjects(&question.about);
    if !subjects.is_empty() {
        let what: Vec<String> = subjects.iter().map(|subject| one_line(&subject.to_string(), 120)).collect();
        let what = what.join("; ");
        text.push_str(&format!("  s  yes, and for the rest of this session: {what}\n"));
        text.push_str(&format!("  r  yes, and on this repository for some hours: {what}\n"));
    }
    text.push_str("  n  no; what follows the n is told to the agent\n");
    if matches!(question.about, About::Tool { .. }) {
        text.push_str("  q  no answer now: stop, and leave it waiting\n");
    }
    text
}

/// Reads an answer; `None` where it is none of those that are offered.
pub fn understood(question: &Question, line: &str) -> Option<Said> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let can_remember = !subjects(&question.about).is_empty();
    match word {
        "y" | "yes" if rest.is_empty() => Some(Said::Once),
        "s" if rest.is_empty() && can_remember => Some(Said::Session),
        "r" if rest.is_empty() && can_remember => Some(Said::Repository),
        "n" | "no" => Some(Said::Deny { message: (!rest.is_empty()).then(|| rest.to_owned()) }),
        "q" if rest.is_empty() && matches!(question.about, About::Tool { .. }) => Some(Said::Leave),
        _ => None,
    }
}

/// What a remembered answer would be about; empty where it would be about more than was seen.
pub fn subjects(about: &About) -> Vec<GrantSubject> {
    match about {
        About::Host { host, port } => vec![GrantSubject::Host { host: host.clone(), port: *port }],
        About::Tool { name, input } if name == "bash" => {
            let Some(script) = input.get("command").and_then(Value::as_str) else { return Vec::new() };
            let Parsed::Commands(commands) = parse(script) else { return Vec::new() };
            let prefixes: Option<Vec<Vec<String>>> = commands.iter().map(prefix).collect();
            let mut prefixes = prefixes.unwrap_or_default();
            prefixes.retain(|prefix| !prefix.is_empty());
            prefixes.dedup();
            if prefixes.len() > MOST_COMMANDS {
                return Vec::new();
            }
            prefixes.into_iter().map(|prefix| GrantSubject::Command { prefix }).collect()
        }
        About::Tool { name, .. } => vec![GrantSubject::Tool { name: name.clone() }],
    }
}

/// All words of a command that is nothing but its words.
fn prefix(command: &SimpleCommand) -> Option<Vec<String>> {
    let is_nowhere = |word: &Word| word.literal() == Some("/dev/null");
    let is_plain = command.sets.is_empty() && command.writes.iter().all(is_nowhere);
    let words = command.literal_argv().filter(|_| is_plain)?;
    Some(words.into_iter().map(str::to_owned).collect())
}

/// The permissions that an answer leaves behind, as long as the policy that judges later calls permits.
pub fn grants(question: &Question, scope: &GrantScope, lasts: Option<Duration>, by: &str) -> Result<Vec<Grant>> {
    let subjects = subjects(&question.about);
    if subjects.is_empty() {
        return Err(Failure::usage("nothing of this call can be remembered: it is more than single, plain commands")
            .hint("allow it once, without --remember"));
    }
    let longest = policy_at(Path::new(&question.repository))?.longest_grant();
    if longest.is_zero() {
        return Err(Failure::usage("policy permits no answer to be remembered (longest_grant = 0)")
            .hint("allow it once, without --remember; `adjutant policy show` says who set the limit"));
    }
    if lasts.is_some_and(|lasts| lasts > longest) {
        let longest = adj_policy::LimitValue::Time(longest);
        return Err(Failure::usage(format!("policy permits an answer to be remembered for {longest} at most"))
            .hint(format!("--for {longest}")));
    }
    let lasts = lasts.unwrap_or(REMEMBERED).min(longest);
    let until = Timestamp::now().checked_add(lasts).unwrap_or(Timestamp::MAX);
    let grant = |subject| {
        let id = EventId::from_random(wiring::random()?);
        Ok(Grant { id, subject, scope: scope.clone(), until, by: by.to_owned() })
    };
    subjects.into_iter().map(grant).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn question(about: About) -> Question {
        Question {
            session: "sesn_0123456789abcdefghjk".parse().expect("an id"),
            id: EventId::derive(&["q"]),
            agent: "agent".to_owned(),
            about,
            why: None,
            again: None,
            repository: "/r".to_owned(),
            asked_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::UNIX_EPOCH,
            process: None,
            answered_by: None,
        }
    }

    fn bash(script: &str) -> About {
        About::Tool { name: "bash".to_owned(), input: json!({ "command": script }) }
    }

    #[test]
    fn only_what_was_seen_is_remembered() {
        let cases: [(&str, &[&str]); 7] = [
            ("git push", &["git push"]),
            ("git push origin main", &["git push origin main"]),
            ("cargo build && git push", &["cargo build", "git push"]),
            ("rm $HOME/x", &[]),
            ("echo a > file", &[]),
            ("A=1 make", &[]),
            ("eval \"$x\"", &[]),
        ];
        for (script, expected) in cases {
            let found = subjects(&bash(script)).into_iter().map(|subject| match subject {
                GrantSubject::Command { prefix } => prefix.join(" "),
                other => panic!("{script}: {other:?}"),
            });
            assert_eq!(found.collect::<Vec<_>>(), expected, "{script}");
        }
    }

    #[test]
    fn answers_are_only_those_that_are_offered() {
        let denied = |text: &str| Some(Said::Deny { message: Some(text.to_owned()) });
        let host = About::Host { host: "a.test".to_owned(), port: 443 };
        let cases = [
            (bash("git push"), "y\n", Some(Said::Once)),
            (bash("git push"), " s ", Some(Said::Session)),
            (bash("git push"), "r", Some(Said::Repository)),
            (bash("git push"), "n", Some(Said::Deny { message: None })),
            (bash("git push"), "n  not today ", denied("not today")),
            (bash("git push"), "q", Some(Said::Leave)),
            (bash("git push"), "", None),
            (bash("git push"), "Y", None),
            (bash("git push"), "y please", None),
            (bash("rm $x"), "s", None),
            (host.clone(), "q", None),
            (host, "s", Some(Said::Session)),
        ];
        for (about, line, expected) in cases {
            let context = format!("{about:?} {line:?}");
            assert_eq!(understood(&question(about), line), expected, "{context}");
        }
    }
}
