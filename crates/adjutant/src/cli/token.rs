//! `adjutant token …`

use clap::{Subcommand, ValueEnum};
use std::{str::FromStr, time::Duration};

/// Make and revoke the tokens that programs show to the daemon
///
/// A token is printed once, when it is made; what is kept is its hash, in a file that only you can read. A token that is revoked
/// is refused from then on, also by a daemon that is running.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  ANTHROPIC_API_KEY=$(adjutant token create --name notebook)\n  \
                        adjutant token create --scope admin --expires 12h\n  adjutant token list")]
pub enum TokenCommand {
    /// Make a token and print it
    Create {
        /// What it is for, shown in lists
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// What it is good for
        #[arg(long, value_enum, value_name = "SCOPE", default_value_t = ScopeArg::Api)]
        scope: ScopeArg,
        /// How long it is good, as in 30d or 12h (default: until it is revoked)
        #[arg(long, value_name = "TIME")]
        expires: Option<Expires>,
    },
    /// List the tokens, oldest first
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token
    Revoke {
        /// The token's id (tok_…)
        id: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScopeArg {
    /// Everything, the daemon itself among it
    Admin,
    /// Agents, sessions and what belongs to them
    Api,
    /// The work of one environment's machines
    Environment,
}

/// A time in minutes, hours, days or weeks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expires(pub Duration);

const LONGEST: u64 = 10 * 366 * 24 * 3600;

impl FromStr for Expires {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = text.strip_suffix(['m', 'h', 'd', 'w']).and_then(|number| {
            let unit = match text.as_bytes().last()? {
                b'm' => 60,
                b'h' => 3600,
                b'd' => 24 * 3600,
                _ => 7 * 24 * 3600,
            };
            number.parse::<u64>().ok()?.checked_mul(unit)
        });
        match seconds {
            Some(seconds @ 1..=LONGEST) => Ok(Self(Duration::from_secs(seconds))),
            _ => {
                Err("expected a number of minutes, hours, days or weeks up to ten years, as 90m, 12h, 30d or 4w"
                    .to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_an_end() {
        for (text, expected) in [
            ("90m", Some(5400)),
            ("12h", Some(43_200)),
            ("30d", Some(2_592_000)),
            ("4w", Some(2_419_200)),
            ("0d", None),
            ("30", None),
            ("d", None),
            ("-1d", None),
            ("99999999999999999999d", None),
            ("600w", None),
        ] {
            assert_eq!(text.parse::<Expires>().ok().map(|time| time.0.as_secs()), expected, "{text}");
        }
    }
}
