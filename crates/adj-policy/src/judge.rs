//! Whether a tool call may run: what every layer says of it, of each command in its line, and what that comes to.
//!
//! Must not know: how a call is carried out or a person asked.

use crate::{
    Policy,
    command::{Parsed, SimpleCommand, Word, is_known_safe, parse},
    context::{Context, first_strictest, granted},
    document::shown,
    layer::Layer,
    settings::ToolSetting,
};
use adj_domain::{ApprovalPolicy, GrantSubject, Ruling, SandboxMode, Verdict};
use serde_json::Value;

/// Tools that only look.
const HARMLESS: [&str; 3] = ["read", "glob", "grep"];
/// Tools that change files without running a command.
const CHANGES: [&str; 3] = ["write", "edit", "apply_patch"];
/// The tool whose `command` is a command line.
const SHELL: &str = "bash";

/// What everybody said, and what that comes to.
struct Hearing {
    voices: Vec<Ruling>,
    ruling: Ruling,
}

impl Policy {
    /// Decides about a tool call.
    pub fn tool(&self, tool: &str, input: &Value, context: &Context<'_>) -> Ruling {
        self.hear(tool, input, context).ruling
    }

    /// Everything that is said of a tool call; the last is what it comes to.
    pub fn explain_call(&self, tool: &str, input: &Value, context: &Context<'_>) -> Vec<Ruling> {
        let Hearing { mut voices, ruling } = self.hear(tool, input, context);
        voices.push(ruling);
        voices
    }

    /// What holds for a tool as a whole; `None` where nobody whose word counts speaks of it.
    pub(crate) fn tool_setting(&self, tool: &str) -> Option<ToolSetting> {
        let said = self.layers().iter().filter_map(|layer| effective_setting(layer, tool));
        said.max()
    }

    fn hear(&self, tool: &str, input: &Value, context: &Context<'_>) -> Hearing {
        let (approval, allowed) = self.approval(context.approval);
        let mode = self.mode(context.mode);
        let mut voices = vec![mode.clone()];
        if approval != context.approval || allowed.verdict == Verdict::Deny {
            voices.push(allowed);
        }
        if context.mode == SandboxMode::ReadOnly && CHANGES.contains(&tool) {
            let rule = format!("sandbox read-only: \"{tool}\" changes files");
            voices.push(Ruling::new(Verdict::Deny, "built-in", rule));
        }
        voices.extend(self.layers().iter().filter_map(|layer| said_of_tool(layer, tool)));
        let permission = context.permissions.get(tool).map(|permission| ToolSetting::from(*permission));
        voices.extend(
            permission.map(|setting| Ruling::new(verdict(setting), "agent", format!("tools.{tool}: {setting}"))),
        );
        let general = first_strictest(&voices);
        if general.verdict == Verdict::Deny {
            return Hearing { voices, ruling: general };
        }

        let context = &Context { approval, ..*context };
        let is_spared = self.tool_setting(tool).max(permission) == Some(ToolSetting::AlwaysAllow);
        let asks = approval == ApprovalPolicy::Untrusted && !is_spared;
        let ruling = if tool == SHELL {
            self.hear_commands(input, context, asks, &general, &mut voices)
        } else if asks && !HARMLESS.contains(&tool) {
            let rule = format!("approval policy untrusted: \"{}\" is not known to be harmless", shown(tool));
            voices.push(Ruling::new(Verdict::Ask, "call", rule));
            first_strictest(&voices)
        } else {
            general
        };
        let ruling =
            self.settle(ruling, context, |subject| matches!(subject, GrantSubject::Tool { name } if name == tool));
        Hearing { voices, ruling }
    }

    /// Judges each command of a line by itself; `general` is what holds for the tool, and so for each of them.
    fn hear_commands(
        &self,
        input: &Value,
        context: &Context<'_>,
        asks: bool,
        general: &Ruling,
        voices: &mut Vec<Ruling>,
    ) -> Ruling {
        let parsed = match input.get("command").and_then(Value::as_str) {
            Some(script) => parse(script),
            None => Parsed::Unknown { why: "there is no command".to_owned(), commands: Vec::new() },
        };
        let mut results = Vec::new();
        let mut spared = None;
        for command in parsed.commands() {
            let result = self.hear_command(command, context, asks, general, voices);
            // What spares a question is worth telling, though not stricter than the rest.
            if result.verdict == Verdict::Allow && result != *general && spared.is_none() {
                spared = Some(result.clone());
            }
            results.push(result);
        }
        if let Parsed::Unknown { why, .. } = &parsed {
            results.push(general.clone());
            let why = shown(why);
            let unknown = self.layers().iter().filter(|layer| layer.restricts_commands()).map(|layer| {
                layer.ruling(
                    Verdict::Ask,
                    None,
                    format!("the command line cannot be read ({why}), and might hide what a rule is about"),
                )
            });
            let mut unknown: Vec<Ruling> = unknown.collect();
            if asks {
                let rule = format!("approval policy untrusted: the command line cannot be read ({why})");
                unknown.push(Ruling::new(Verdict::Ask, "call", rule));
            }
            voices.extend(unknown.iter().cloned());
            results.extend(unknown);
        }
        if results.is_empty() {
            return general.clone();
        }
        let strictest = first_strictest(&results);
        if strictest.verdict == Verdict::Allow { spared.unwrap_or(strictest) } else { strictest }
    }

    fn hear_command(
        &self,
        command: &SimpleCommand,
        context: &Context<'_>,
        asks: bool,
        general: &Ruling,
        voices: &mut Vec<Ruling>,
    ) -> Ruling {
        let mut said = vec![general.clone()];
        let mut spared = None;
        for layer in self.layers() {
            if let Some(might) = layer.rule_might(command) {
                voices.push(might.clone());
                said.push(might);
            }
            let Some((verdict, mut ruling)) = layer.rule_on(command) else { continue };
            if verdict > Verdict::Allow {
                said.push(ruling.clone());
            } else if !layer.kind.is_trusted() {
                ruling
                    .rule
                    .push_str(" (no effect: only an administrator's or an organisation's rule spares a question)");
            } else if !is_plain(command) {
                ruling.rule.push_str(" (no effect: the command writes files or sets variables besides)");
            } else if spared.is_none() {
                spared = Some(ruling.clone());
            }
            voices.push(ruling);
        }
        let is_harmless = is_known_safe(command) || (command.wraps && is_plain(command));
        if asks && !is_harmless && spared.is_none() {
            let rule = format!("approval policy untrusted: `{}` is not known to be harmless", written(command));
            let ruling = Ruling::new(Verdict::Ask, "call", rule);
            voices.push(ruling.clone());
            said.push(ruling);
        }
        let strictest = first_strictest(&said);
        match strictest.verdict {
            Verdict::Deny => strictest,
            Verdict::Allow => spared.filter(|_| asks).unwrap_or(strictest),
            Verdict::Ask => {
                let grant = self.grant(context, |subject| {
                    matches!(subject, GrantSubject::Command { prefix } if is_plain(command) && begins(command, prefix))
                });
                grant.map_or(strictest, granted)
            }
        }
    }
}

fn verdict(setting: ToolSetting) -> Verdict {
    match setting {
        ToolSetting::AlwaysAllow | ToolSetting::Auto => Verdict::Allow,
        ToolSetting::AlwaysAsk => Verdict::Ask,
        ToolSetting::Deny => Verdict::Deny,
    }
}

/// What a layer's word on a tool is worth: those that are not trusted cannot spare anybody a question.
fn effective_setting(layer: &Layer, tool: &str) -> Option<ToolSetting> {
    let setting = layer.settings.tools.get(tool)?.value;
    (layer.kind.is_trusted() || setting > ToolSetting::AlwaysAllow).then_some(setting)
}

fn said_of_tool(layer: &Layer, tool: &str) -> Option<Ruling> {
    let said = layer.settings.tools.get(tool)?;
    let effect = if effective_setting(layer, tool).is_some() { "" } else { " (no effect)" };
    Some(layer.ruling(verdict(said.value), said.line, format!("tools.{}: {}{effect}", shown(tool), said.value)))
}

/// Whether a command does nothing besides: rules and grants speak of its words only.
fn is_plain(command: &SimpleCommand) -> bool {
    let is_nowhere = |word: &Word| word.literal() == Some("/dev/null");
    command.sets.is_empty() && command.writes.iter().all(is_nowhere)
}

/// Whether a command begins with exactly these words, all of them known.
fn begins(command: &SimpleCommand, prefix: &[String]) -> bool {
    !prefix.is_empty()
        && prefix.len() <= command.argv.len()
        && prefix.iter().zip(&command.argv).all(|(known, word)| word.literal() == Some(known.as_str()))
}

fn written(command: &SimpleCommand) -> String {
    let words: Vec<String> = command.argv.iter().take(20).map(Word::to_string).collect();
    shown(&words.join(" "))
}
