//! The settings file of a user: `adjutant/config.toml` in the XDG configuration directory.

use crate::failure::{Failure, Result};
use adj_domain::ModelRef;
use etcetera::BaseStrategy;
use serde::Deserialize;
use std::path::PathBuf;

/// What can be set. An unknown key is an error that names file and line.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserSettings {
    /// The model to use when none is named: `vendor/name`.
    pub model: Option<ModelRef>,
    /// The playbook of scripted models.
    pub playbook: Option<PathBuf>,
    /// A file of certificates in PEM that the door to the network trusts beside the public ones: a company's own authority.
    pub extra_roots: Option<PathBuf>,
    /// Vendors that a subscription pays for: what their models cost is counted, and is no money.
    #[serde(default)]
    pub subscriptions: Vec<String>,
    /// Where a new vault's key goes: `auto`, `file` or `keyring`.
    #[serde(default)]
    pub vault_key: VaultKey,
}

/// Where the key of the vault lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VaultKey {
    /// With the system's keyring if it answers, else in a file.
    #[default]
    Auto,
    File,
    Keyring,
}

impl UserSettings {
    /// Reads the file, if there is one.
    pub fn load() -> Result<Self> {
        let Some(path) = path() else { return Ok(Self::default()) };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => {
                return Err(Failure::unusable(error, format_args!("cannot read the settings file {}", path.display())));
            }
        };
        toml::from_str(&text).map_err(|error| {
            Failure::unusable(error, format_args!("the settings file {} cannot be used", path.display()))
        })
    }
}

/// Where the file is looked for.
pub fn path() -> Option<PathBuf> {
    Some(folder()?.join("config.toml"))
}

/// Where the user's own entries for the catalogue of models are looked for.
pub fn models_path() -> Option<PathBuf> {
    Some(folder()?.join("models.toml"))
}

fn folder() -> Option<PathBuf> {
    let xdg = etcetera::base_strategy::Xdg::new().ok()?;
    Some(xdg.config_dir().join("adjutant"))
}
