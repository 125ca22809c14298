//! `adjutant secret …`

use adj_domain::HostRule;
use adj_vault::{EnvName, HeaderName, SecretName};
use clap::{Args, Subcommand};

/// Keep keys and tokens out of agents' reach, and usable all the same
///
/// Inside a sandbox a secret is a placeholder. The door to the network puts the value in its place: for the hosts that the
/// secret names, in the header or body that it names, and nowhere else. Values are encrypted at rest and never shown.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  adjutant secret set github --host github.com --host api.github.com --env GITHUB_TOKEN --git\n  \
                        pass show api | adjutant secret set api --host api.example.com --env API_TOKEN\n  \
                        adjutant secret list"
)]
pub enum SecretCommand {
    Set(SetArgs),
    /// List the secrets, without their values
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show one secret, without its value
    Show {
        name: SecretName,
        /// Print it as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Remove a secret
    Remove {
        name: SecretName,
    },
}

/// Store a secret, or replace one
///
/// The value is read from standard input, or asked for on a terminal without being shown. It is never an argument, where
/// other processes could see it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  adjutant secret set github --host github.com --host api.github.com --env GITHUB_TOKEN --git\n  \
                        adjutant secret set search --host api.example.org --header x-api-key --env SEARCH_KEY < key.txt\n  \
                        adjutant secret set mirror --host mirror.example.org:8443 --basic --env MIRROR_PASSWORD"
)]
pub struct SetArgs {
    /// What it is called
    pub name: SecretName,
    /// A host that the value may be sent to: example.org, example.org:8443, *.example.org; may be repeated
    #[arg(long, value_name = "HOST[:PORT]", required = true)]
    pub host: Vec<HostRule>,
    /// The variable that holds the placeholder inside
    #[arg(long, value_name = "VARIABLE")]
    pub env: Option<EnvName>,
    /// The header in which the placeholder is replaced
    #[arg(long, value_name = "NAME", default_value = "authorization", conflicts_with_all = ["basic", "body"])]
    pub header: HeaderName,
    /// Replace it as the password of basic authentication instead
    #[arg(long, conflicts_with = "body")]
    pub basic: bool,
    /// Replace it in the body of requests instead
    #[arg(long)]
    pub body: bool,
    /// Git over HTTPS uses it as the password for these hosts too
    #[arg(long)]
    pub git: bool,
    /// A note, shown in lists
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
}
