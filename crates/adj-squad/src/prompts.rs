//! What is said to the members of a run.

use adj_domain::{BlobHash, CoreAgent, Receipt, Run, Specialist, StepId, StepKind};

/// Text for an agent, and whose output it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    pub text: String,
    pub handed: Vec<(StepId, BlobHash, u64)>,
}

/// Fills `{prompt}` and `{STEP}` in one pass: what is filled in is never looked at again, so that an agent's output
/// cannot name a placeholder. Unknown names stay as they are.
pub(crate) fn fill(template: &str, run: &Run) -> Prompt {
    let mut text = String::with_capacity(template.len());
    let mut handed = Vec::new();
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        text.push_str(&rest[..open]);
        rest = &rest[open..];
        let name = rest[1..].split_once('}').map(|(name, _)| name);
        match name.and_then(|name| Some((name, value(name, run)?))) {
            Some((name, value)) => {
                if let (Ok(step), true) = (name.parse::<StepId>(), name != "prompt") {
                    handed.push((step, BlobHash::of(value.as_bytes()), value.len() as u64));
                }
                text.push_str(value);
                rest = &rest[name.len() + 2..];
            }
            None => {
                text.push('{');
                rest = &rest[1..];
            }
        }
    }
    text.push_str(rest);
    Prompt { text, handed }
}

fn value<'a>(name: &str, run: &'a Run) -> Option<&'a str> {
    if name == "prompt" {
        return Some(&run.spec.prompt);
    }
    let agent = run.spec.core.iter().find(|agent| agent.step.as_str() == name)?;
    output(run, agent)
}

/// The last word of a core agent, once it has spoken it.
pub(crate) fn output<'a>(run: &'a Run, agent: &CoreAgent) -> Option<&'a str> {
    let step = run.steps.get(&agent.step)?;
    let last = if agent.follow_up_prompt.is_some() { StepKind::FollowUp } else { StepKind::Plan };
    step.output(StepKind::Repair).or_else(|| step.output(last))
}

/// What a specialist is told at first.
pub(crate) fn task(run: &Run, specialist: &Specialist) -> Prompt {
    let mut text = format!("# Your task: {}\n\n{}\n", specialist.title, specialist.task.trim());
    let mut handed = Vec::new();
    for on in &specialist.depends_on {
        let result = run.steps.get(on).and_then(|step| step.output(StepKind::Build(step.attempts())));
        if let Some(result) = result {
            text.push_str(&format!(
                "\n# Done before you by \"{on}\" (its changes are in your workspace)\n\n{result}\n"
            ));
            handed.push((on.clone(), BlobHash::of(result.as_bytes()), result.len() as u64));
        }
    }
    text.push_str(&format!("\n# The request that all of this serves\n\n{}\n", run.spec.prompt.trim()));
    if let Some(check) = check(run, specialist) {
        text.push_str(&format!("\nYour result will be judged by running: {check}\n"));
    }
    Prompt { text, handed }
}

/// What a specialist is told when its result did not pass.
pub(crate) fn retry(receipt: &Receipt) -> Prompt {
    let exit =
        receipt.exit_code.map_or_else(|| "it was ended by a limit".to_owned(), |code| format!("exit code {code}"));
    Prompt {
        text: format!(
            "Your result was checked with `{}` and did not pass ({exit}). The end of the output:\n\n{}\n\nRepair it.",
            receipt.command, receipt.tail
        ),
        handed: Vec::new(),
    }
}

/// What the builder is told when its blueprint cannot be carried out.
pub(crate) fn repair(errors: &[String]) -> Prompt {
    let list: String = errors.iter().map(|error| format!("- {error}\n")).collect();
    Prompt {
        text: format!("Your blueprint cannot be carried out:\n{list}Answer again with the whole corrected blueprint."),
        handed: Vec::new(),
    }
}

/// The command that judges a specialist's own result.
pub(crate) fn check<'a>(run: &'a Run, specialist: &'a Specialist) -> Option<&'a str> {
    let own = specialist.check.as_deref().filter(|check| !check.trim().is_empty());
    own.or(run.spec.gate.as_ref().map(|gate| gate.command.as_str()))
}
