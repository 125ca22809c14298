//! `adjutant secret`: what the vault holds, and how something gets into it.

use super::print;
use crate::{
    cli::{SecretCommand, SetArgs},
    failure::{Failure, Result},
    wiring,
    words::{count, one_line},
};
use adj_domain::{Secret, Timestamp};
use adj_vault::{Entry, Place, Vault};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::{
    io::{BufRead, IsTerminal, Read, Write},
    process::ExitCode,
};

/// Longest value that is read; longer ones are no keys.
const LONGEST_VALUE: usize = 64 * 1024;

pub fn secret(command: SecretCommand) -> Result<ExitCode> {
    wiring::forbid_core_dumps()?;
    let mut vault = wiring::vault(&wiring::state_dir()?)?;
    match command {
        SecretCommand::Set(args) => set(&mut vault, args)?,
        SecretCommand::List { json } => list(&vault, json)?,
        SecretCommand::Show { name, json } => {
            let Some(entry) = vault.entry(name.as_str()) else { return Err(unknown(name.as_str())) };
            print(&if json { line(entry) } else { described(entry) })?;
        }
        SecretCommand::Remove { name } => {
            if !vault.remove(name.as_str()).map_err(wiring::vault_failure)? {
                return Err(unknown(name.as_str()));
            }
            print(&format!("Removed {name}\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn unknown(name: &str) -> Failure {
    Failure::usage(format!("there is no secret {name}")).hint("`adjutant secret list` shows what there is")
}

fn set(vault: &mut Vault, args: SetArgs) -> Result<()> {
    let place = match (args.basic, args.body) {
        (true, _) => Place::BasicPassword,
        (_, true) => Place::Body,
        _ => Place::Header { name: args.header },
    };
    let entry = Entry {
        name: args.name.clone(),
        env: args.env,
        hosts: args.host,
        place,
        git: args.git,
        note: args.note,
        created: Timestamp::now(),
    };
    // Before anybody types a value for nothing.
    entry.check().map_err(Failure::usage)?;
    let value = Secret::parse(&format!("the value of {}", args.name), read_value(args.name.as_str())?)
        .map_err(Failure::usage)?;
    let shown = described(&entry);
    let replaced = vault.set(entry, value).map_err(wiring::vault_failure)?;
    let key = vault.key_place().map(|place| format!("; the vault's key lies in {place}")).unwrap_or_default();
    print(&format!("{} {}{key}\n{shown}", if replaced { "Replaced" } else { "Stored" }, args.name))
}

/// The value: one line typed without being shown, or all of standard input without the line break at its end.
fn read_value(name: &str) -> Result<String> {
    let stdin = std::io::stdin();
    let mut bytes = Vec::with_capacity(LONGEST_VALUE + 2);
    if stdin.is_terminal() {
        let _ = write!(std::io::stderr(), "Value of {name} (not shown): ");
        let hidden = Hidden::of(&stdin)?;
        let read = stdin.lock().take(LONGEST_VALUE as u64 + 2).read_until(b'\n', &mut bytes);
        drop(hidden);
        let _ = writeln!(std::io::stderr());
        read?;
    } else {
        stdin.lock().take(LONGEST_VALUE as u64 + 2).read_to_end(&mut bytes)?;
    }
    if bytes.ends_with(b"\n") {
        bytes.pop();
    }
    if bytes.ends_with(b"\r") {
        bytes.pop();
    }
    if bytes.len() > LONGEST_VALUE {
        return Err(Failure::usage(format!("the value of {name} is longer than {LONGEST_VALUE} bytes")));
    }
    if bytes.is_empty() {
        return Err(Failure::usage(format!("there is no value for {name}"))
            .hint(format!("pipe it in: adjutant secret set {name} … < FILE; or type it on a terminal")));
    }
    String::from_utf8(bytes).map_err(|_| Failure::usage(format!("the value of {name} is not text")))
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden(Termios);

impl Hidden {
    fn of(stdin: &std::io::Stdin) -> Result<Self> {
        let before = tcgetattr(stdin).map_err(std::io::Error::from)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(stdin, OptionalActions::Flush, &quiet).map_err(std::io::Error::from)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that went away needs no mending.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

fn list(vault: &Vault, json: bool) -> Result<()> {
    let entries = vault.list();
    if json {
        return print(&entries.into_iter().map(line).collect::<String>());
    }
    if entries.is_empty() {
        return print("No secrets yet; `adjutant secret set NAME --host HOST` stores one\n");
    }
    let widest = entries.iter().map(|entry| entry.name.as_str().len()).max().unwrap_or(0).min(32);
    let mut text = String::new();
    for entry in entries {
        let hosts: Vec<String> = entry.hosts.iter().map(ToString::to_string).collect();
        let hosts = match hosts.as_slice() {
            [first, rest @ ..] if rest.len() > 2 => format!("{first} and {}", count(rest.len(), "more host")),
            all => all.join(", "),
        };
        let env = entry.env.as_ref().map_or("-", |env| env.as_str());
        let note = entry.note.as_deref().map(|note| format!("  {}", one_line(note, 60))).unwrap_or_default();
        text.push_str(&format!("{:<widest$}  {:<20}  {hosts}  ({}){note}\n", entry.name.as_str(), env, place(entry)));
    }
    print(&text)
}

fn line(entry: &Entry) -> String {
    format!("{}\n", serde_json::to_string(entry).expect("an entry is plain data"))
}

fn place(entry: &Entry) -> String {
    let place = match &entry.place {
        Place::Header { name } => format!("header {name}"),
        Place::BasicPassword => "password of basic authentication".to_owned(),
        Place::Body => "body".to_owned(),
    };
    if entry.git { format!("{place}, git") } else { place }
}

fn described(entry: &Entry) -> String {
    let hosts: Vec<String> = entry.hosts.iter().map(ToString::to_string).collect();
    let mut text = format!("  for       {}\n  in        {}\n", hosts.join(", "), place(entry));
    if let Some(env) = &entry.env {
        text.push_str(&format!("  variable  {env} (holds the placeholder)\n"));
    }
    if let Some(note) = &entry.note {
        text.push_str(&format!("  note      {}\n", one_line(note, 200)));
    }
    text.push_str(&format!("  since     {}\n", super::when(entry.created)));
    text
}
