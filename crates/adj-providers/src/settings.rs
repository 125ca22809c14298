//! Which vendors there are, out of the variables that vendors' own tools use.

use crate::{HttpProvider, Provider, Secret, SecretError, Timeouts, http::Credentials};
use adj_domain::ModelRef;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// The protocols that are spoken over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WireKind {
    /// OpenAI's Responses API.
    #[serde(rename = "responses")]
    OpenAi,
    /// Anthropic's Messages API.
    #[serde(rename = "messages")]
    Anthropic,
    /// Google's generateContent API.
    #[serde(rename = "generate_content")]
    Gemini,
    /// The chat completions API.
    #[serde(rename = "chat")]
    Chat,
}

/// All that is needed to reach one vendor.
#[derive(Debug, Clone)]
pub struct VendorSettings {
    pub wire: WireKind,
    pub base_url: Url,
    pub credentials: Credentials,
    /// The model that is meant when a vendor is named without one.
    pub default_model: Option<String>,
}

impl VendorSettings {
    /// Whether it is a server of this machine's own.
    fn is_local(&self) -> bool {
        let host = self.base_url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    Key(#[from] SecretError),
    #[error("{name} is not the address of a vendor: {problem}")]
    BaseUrl { name: String, problem: String },
    #[error(
        "the account {account} is one at {vendor}, which is not known (known: {}); others have `wire` and `base_url`",
        known()
    )]
    Vendor { account: String, vendor: String },
}

fn known() -> String {
    KNOWN.map(|known| known.name).join(", ")
}

/// A further key at a vendor, or a vendor that has no variables of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account<'a> {
    /// It is called by this name.
    pub name: &'a str,
    /// A vendor that is known.
    pub vendor: Option<&'a str>,
    /// Without one: what it speaks, and where it is.
    pub wire: Option<WireKind>,
    pub base_url: Option<&'a str>,
    /// The variable that holds the key; that of the vendor, if it has one and none is named.
    pub key_env: Option<&'a str>,
}

/// The vendors that are set up, by name.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub vendors: BTreeMap<String, VendorSettings>,
    pub timeouts: Timeouts,
}

/// One vendor as its variables describe it.
struct Known {
    name: &'static str,
    wire: WireKind,
    key: &'static str,
    /// Another variable for the same key, for want of the first.
    other_key: Option<&'static str>,
    /// A second variable, whose key is shown as a bearer token.
    token: Option<&'static str>,
    base_url: &'static str,
    default_base_url: Option<&'static str>,
    model: &'static str,
    default_model: Option<&'static str>,
}

/// In the order in which a default is looked for.
const KNOWN: [Known; 7] = [
    Known {
        name: "anthropic",
        wire: WireKind::Anthropic,
        key: "ANTHROPIC_API_KEY",
        other_key: None,
        token: Some("ANTHROPIC_AUTH_TOKEN"),
        base_url: "ANTHROPIC_BASE_URL",
        default_base_url: Some("https://api.anthropic.com"),
        model: "ANTHROPIC_MODEL",
        default_model: Some("claude-sonnet-4-5"),
    },
    Known {
        name: "openai",
        wire: WireKind::OpenAi,
        key: "OPENAI_API_KEY",
        other_key: None,
        token: None,
        base_url: "OPENAI_BASE_URL",
        default_base_url: Some("https://api.openai.com/v1"),
        model: "OPENAI_MODEL",
        default_model: Some("gpt-5.5"),
    },
    Known {
        name: "gemini",
        wire: WireKind::Gemini,
        key: "GEMINI_API_KEY",
        other_key: Some("GOOGLE_API_KEY"),
        token: None,
        base_url: "GEMINI_BASE_URL",
        default_base_url: Some("https://generativelanguage.googleapis.com"),
        model: "GEMINI_MODEL",
        default_model: Some("gemini-3.8-flash"),
    },
    Known {
        name: "openai-chat",
        wire: WireKind::Chat,
        key: "OPENAI_COMPATIBLE_API_KEY",
        other_key: None,
        token: None,
        base_url: "OPENAI_COMPATIBLE_BASE_URL",
        default_base_url: None,
        model: "OPENAI_COMPATIBLE_MODEL",
        default_model: None,
    },
    Known {
        name: "deepseek",
        wire: WireKind::Chat,
        key: "DEEPSEEK_API_KEY",
        other_key: None,
        token: None,
        base_url: "DEEPSEEK_BASE_URL",
        default_base_url: Some("https://api.deepseek.com/v1"),
        model: "DEEPSEEK_MODEL",
        default_model: Some("deepseek-chat"),
    },
    Known {
        name: "openrouter",
        wire: WireKind::Chat,
        key: "OPENROUTER_API_KEY",
        other_key: None,
        token: None,
        base_url: "OPENROUTER_BASE_URL",
        default_base_url: Some("https://openrouter.ai/api/v1"),
        model: "OPENROUTER_MODEL",
        default_model: None,
    },
    Known {
        name: "vllm",
        wire: WireKind::Chat,
        key: "VLLM_API_KEY",
        other_key: None,
        token: None,
        base_url: "VLLM_BASE_URL",
        default_base_url: None,
        model: "VLLM_MODEL",
        default_model: None,
    },
];

impl Settings {
    /// Reads the vendors out of an environment. A vendor is set up when its key or its base URL is there; an empty
    /// variable counts as absent.
    pub fn from_env(lookup: &impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let read = |name: &str| lookup(name).filter(|text| !text.trim().is_empty());
        let mut vendors = BTreeMap::new();
        for known in &KNOWN {
            let mut names = [Some(known.key), known.other_key].into_iter().flatten();
            let key = names.find_map(|name| Some((name, read(name)?)));
            let key = key.map(|(name, text)| Secret::parse(name, text)).transpose()?;
            let token = known.token.and_then(|name| Some((name, read(name)?)));
            let token = token.map(|(name, text)| Secret::parse(name, text)).transpose()?;
            let address = read(known.base_url);
            if key.is_none() && token.is_none() && address.is_none() {
                continue;
            }
            let base_url = match (address, known.default_base_url) {
                (Some(address), _) => base_url(known.base_url, &address)?,
                (None, Some(default)) => base_url(known.base_url, default)?,
                // A key for a server that nobody named: the vendor is not set up, which matters only to who wants it.
                (None, None) => continue,
            };
            let credentials = match (key, token) {
                (Some(key), _) if matches!(known.wire, WireKind::Anthropic | WireKind::Gemini) => {
                    Credentials::ApiKey(key)
                }
                (Some(key), _) | (None, Some(key)) => Credentials::Bearer(key),
                (None, None) => Credentials::None,
            };
            let default_model = read(known.model).or_else(|| known.default_model.map(str::to_owned));
            let settings = VendorSettings { wire: known.wire, base_url, credentials, default_model };
            vendors.insert(known.name.to_owned(), settings);
        }
        if let Some(ollama) = ollama(&read)? {
            vendors.insert("ollama".to_owned(), ollama);
        }
        Ok(Self { vendors, timeouts: Timeouts::default() })
    }

    /// Adds an account. It is not set up, and left out, if the variable of its key is absent, or nobody knows its address.
    pub fn add(&mut self, account: Account<'_>, lookup: &impl Fn(&str) -> Option<String>) -> Result<(), SettingsError> {
        let read = |name: &str| lookup(name).filter(|text| !text.trim().is_empty());
        let unknown =
            |vendor: &str| SettingsError::Vendor { account: account.name.to_owned(), vendor: vendor.to_owned() };
        let known = match account.vendor {
            Some(vendor) => Some(KNOWN.iter().find(|known| known.name == vendor).ok_or_else(|| unknown(vendor))?),
            None => None,
        };
        let Some(wire) = account.wire.or_else(|| known.map(|known| known.wire)) else { return Ok(()) };
        let of_vendor =
            known.and_then(|known| read(known.base_url).or_else(|| known.default_base_url.map(str::to_owned)));
        let Some(address) = account.base_url.map(str::to_owned).or(of_vendor) else { return Ok(()) };
        let base_url = base_url(&format!("base_url of the account {}", account.name), &address)?;
        let variables = match (account.key_env, known) {
            (Some(name), _) => vec![name],
            (None, Some(known)) => [Some(known.key), known.other_key].into_iter().flatten().collect(),
            (None, None) => Vec::new(),
        };
        let key = variables.iter().find_map(|name| Some((*name, read(name)?)));
        let credentials = match key.map(|(name, text)| Secret::parse(name, text)).transpose()? {
            Some(key) if matches!(wire, WireKind::Anthropic | WireKind::Gemini) => Credentials::ApiKey(key),
            Some(key) => Credentials::Bearer(key),
            None if variables.is_empty() => Credentials::None,
            None => return Ok(()),
        };
        let settings = VendorSettings { wire, base_url, credentials, default_model: None };
        self.vendors.insert(account.name.to_owned(), settings);
        Ok(())
    }

    /// Returns the names of all variables that keys and addresses are read from.
    pub fn variables() -> impl Iterator<Item = &'static str> {
        let of = |known: &Known| [Some(known.key), known.other_key, known.token, Some(known.base_url)];
        KNOWN.iter().flat_map(of).flatten().chain(["OLLAMA_HOST"])
    }

    /// Returns the keys of all vendors: what must stand in no record.
    pub fn keys(&self) -> Vec<Secret> {
        let keys = self.vendors.values().filter_map(|vendor| match &vendor.credentials {
            Credentials::Bearer(key) | Credentials::ApiKey(key) => Some(key.clone()),
            Credentials::None => None,
        });
        keys.collect()
    }

    /// Returns the names of the vendors that are set up.
    pub fn which_vendors(&self) -> Vec<&str> {
        self.vendors.keys().map(String::as_str).collect()
    }

    /// Returns the model to use when none was named: that of the first vendor that is set up and has one.
    pub fn default_model(&self) -> Option<ModelRef> {
        let preferred = KNOWN.iter().map(|known| known.name).chain(["ollama"]);
        preferred.into_iter().find_map(|vendor| {
            let name = self.vendors.get(vendor)?.default_model.clone()?;
            Some(ModelRef { vendor: vendor.to_owned(), name })
        })
    }

    /// Returns the names of the vendors that are servers of this machine's own.
    pub fn local_vendors(&self) -> impl Iterator<Item = &str> {
        self.vendors.iter().filter(|(_, vendor)| vendor.is_local()).map(|(name, _)| name.as_str())
    }

    /// Returns everything that can be called; nothing is connected yet.
    pub fn providers(&self) -> Vec<(String, Arc<dyn Provider>)> {
        self.vendors
            .iter()
            .map(|(name, vendor)| {
                let provider =
                    HttpProvider::new(vendor.wire, vendor.base_url.clone(), vendor.credentials.clone(), self.timeouts);
                (name.clone(), Arc::new(provider) as Arc<dyn Provider>)
            })
            .collect()
    }
}

/// Ollama names its server by host and port, and needs no key.
fn ollama(read: &impl Fn(&str) -> Option<String>) -> Result<Option<VendorSettings>, SettingsError> {
    let Some(host) = read("OLLAMA_HOST") else {
        return Ok(None);
    };
    let host = host.trim().trim_end_matches('/');
    let address = if host.contains("://") { host.to_owned() } else { format!("http://{host}") };
    let mut url = base_url("OLLAMA_HOST", &address)?;
    if url.port().is_none() && !host.contains("://") {
        // The variable's own default port, which is not HTTP's; a URL takes it, because it has a host.
        let _ = url.set_port(Some(11434));
    }
    url.set_path("/v1");
    let default_model = read("OLLAMA_MODEL");
    Ok(Some(VendorSettings { wire: WireKind::Chat, base_url: url, credentials: Credentials::None, default_model }))
}

fn base_url(name: &str, text: &str) -> Result<Url, SettingsError> {
    let wrong = |problem: String| SettingsError::BaseUrl { name: name.to_owned(), problem };
    let url: Url = text.trim().parse().map_err(|error| wrong(format!("{error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong("it must begin with http:// or https://, and name a host".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it must not hold a user name or password".to_owned()));
    }
    Ok(url)
}
