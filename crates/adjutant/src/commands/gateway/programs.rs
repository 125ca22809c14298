//! How each program is told where its models are.

use super::Files;
use crate::failure::Result;
use adj_domain::Secret;
use anyhow::Context;
use std::{
    ffi::{OsStr, OsString},
    fs::{self, DirBuilder},
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

/// Where models are for a program, and what it shows there.
#[derive(Debug)]
pub struct Door {
    pub address: SocketAddr,
    pub token: Secret,
}

/// What one program is told, and where.
#[derive(Debug, Default)]
pub struct Told {
    /// Before its own arguments.
    pub arguments: Vec<String>,
    pub environment: Vec<(&'static str, OsString)>,
    /// A folder to be removed when the program has ended.
    pub files: Option<Files>,
}

impl Door {
    /// What any program finds that looks where vendors' own clients look.
    fn variables(&self) -> [(&'static str, String); 10] {
        let (base, token) = (format!("http://{}", self.address), self.token.expose());
        let v1 = format!("{base}/v1");
        [
            ("OPENAI_BASE_URL", v1.clone()),
            ("OPENAI_API_KEY", token.to_owned()),
            ("OPENAI_COMPATIBLE_BASE_URL", v1),
            ("OPENAI_COMPATIBLE_API_KEY", token.to_owned()),
            ("ANTHROPIC_BASE_URL", base.clone()),
            ("ANTHROPIC_API_KEY", token.to_owned()),
            ("GOOGLE_GEMINI_BASE_URL", base.clone()),
            ("GEMINI_BASE_URL", base),
            ("GEMINI_API_KEY", token.to_owned()),
            // Or a company's proxy is asked for this very machine.
            ("NO_PROXY", no_proxy()),
        ]
    }

    /// The same for a shell.
    pub fn exports(&self) -> String {
        self.variables().iter().map(|(name, value)| format!("export {name}={value}\n")).collect()
    }
}

fn no_proxy() -> String {
    let own = ["NO_PROXY", "no_proxy"].into_iter().find_map(|name| std::env::var(name).ok());
    match own.filter(|own| !own.is_empty()) {
        Some(own) => format!("{own},127.0.0.1"),
        None => "127.0.0.1".to_owned(),
    }
}

/// What a program is called, without its path.
pub fn name(program: &OsStr) -> String {
    Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned()
}

/// Finds out what this program has to be told. `private` is a folder for files, not made yet.
pub fn told(program: &OsStr, door: &Door, private: &Path) -> Result<Told> {
    let mut told = Told {
        environment: door.variables().into_iter().map(|(name, value)| (name, value.into())).collect(),
        ..Told::default()
    };
    match name(program).as_str() {
        "codex" => told.arguments = codex(door),
        "claude" => {
            // A key that it was not shown before, it asks a person about; a token it does not.
            told.environment.retain(|(name, _)| *name != "ANTHROPIC_API_KEY");
            told.environment.push(("ANTHROPIC_AUTH_TOKEN", door.token.expose().into()));
        }
        "gemini" => gemini(&mut told, private)?,
        _ => {}
    }
    Ok(told)
}

/// Codex reads addresses from its own settings only, which can be given on its command line.
fn codex(door: &Door) -> Vec<String> {
    let provider = format!(
        "model_providers.adjutant={{ name = \"Adjutant\", base_url = \"http://{}/v1\", wire_api = \"responses\", \
         env_key = \"OPENAI_API_KEY\" }}",
        door.address
    );
    ["-c", "model_provider=\"adjutant\"", "-c", &provider].map(str::to_owned).to_vec()
}

/// With an address alone Gemini CLI chooses a way to log in that it then refuses without a terminal; and without this word it
/// starts itself a second time, behind a parent that swallows signals.
fn gemini(told: &mut Told, private: &Path) -> Result<()> {
    const SETTINGS: &str = "GEMINI_CLI_SYSTEM_SETTINGS_PATH";
    told.environment.push(("GEMINI_CLI_NO_RELAUNCH", "true".into()));
    if std::env::var_os(SETTINGS).is_some() {
        // Somebody's own settings of the system stand, and say how to log in.
        return Ok(());
    }
    let make = || {
        DirBuilder::new().recursive(true).mode(0o700).create(private)?;
        let path = private.join("gemini.json");
        fs::write(&path, "{\"security\":{\"auth\":{\"selectedType\":\"gemini-api-key\"}}}\n")?;
        Ok::<_, std::io::Error>(path)
    };
    let path = make().context("cannot write the settings for Gemini CLI")?;
    told.environment.push((SETTINGS, path.into()));
    told.files = Some(private.to_owned());
    Ok(())
}
