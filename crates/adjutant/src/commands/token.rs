//! `adjutant token`: who may ask the daemon.

use super::{print, when};
use crate::{
    cli::{ScopeArg, TokenCommand},
    failure::{Failure, Result},
    wiring,
    words::one_line,
};
use adj_domain::Timestamp;
use adj_server::{NewToken, Scope, Token, TokenError, TokenFile};
use serde_json::json;
use std::{io::Write, process::ExitCode};

pub fn token(command: TokenCommand) -> Result<ExitCode> {
    wiring::forbid_core_dumps()?;
    let file = TokenFile::new(&wiring::daemon_folder(&wiring::state_dir()?));
    match command {
        TokenCommand::Create { name, scope, expires } => {
            let scope = match scope {
                ScopeArg::Admin => Scope::Admin,
                ScopeArg::Api => Scope::Api,
                ScopeArg::Environment => Scope::Environment,
            };
            let now = Timestamp::now();
            let new = NewToken { name, scope, expires_at: expires.map(|expires| now + expires.0) };
            let (token, text) = file.create(new, now).map_err(failure)?;
            print(&format!("{}\n", text.expose()))?;
            let end =
                token.expires_at.map_or_else(|| "until it is revoked".to_owned(), |end| format!("until {}", when(end)));
            // When standard error is gone, there is nobody left to tell.
            let _ = writeln!(
                std::io::stderr(),
                "Made {} (scope {}, good {end}). It is not shown again",
                token.id,
                token.scope
            );
        }
        TokenCommand::List { json } => {
            let tokens = file.list().map_err(failure)?;
            print(&if json { lines(&tokens) } else { table(&tokens, Timestamp::now()) })?;
        }
        TokenCommand::Revoke { id } => {
            if !file.revoke(&id).map_err(failure)? {
                return Err(Failure::usage(format!("there is no token {:?}", one_line(&id, 80)))
                    .hint("`adjutant token list` shows what there is"));
            }
            print(&format!("Revoked {id}\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn failure(error: TokenError) -> Failure {
    let hint = match &error {
        TokenError::Damaged { .. } => Some("nobody is let in with a token until the file is mended, or moved away"),
        TokenError::Full => Some("`adjutant token revoke ID` makes room"),
        _ => None,
    };
    let failure = Failure { code: crate::failure::Code::Usage, error: error.into(), hint: None };
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn lines(tokens: &[Token]) -> String {
    let line = |token: &Token| {
        let Token { id, name, scope, created_at, expires_at, .. } = token;
        json!({"id": id, "name": name, "scope": scope, "created_at": created_at, "expires_at": expires_at})
    };
    tokens.iter().map(|token| format!("{}\n", line(token))).collect()
}

fn table(tokens: &[Token], now: Timestamp) -> String {
    if tokens.is_empty() {
        return "No tokens yet; `adjutant token create` makes one\n".to_owned();
    }
    let row = |token: &Token| {
        let end = match token.expires_at {
            None => "until it is revoked".to_owned(),
            Some(end) if token.is_expired(now) => format!("expired {}", when(end)),
            Some(end) => format!("until {}", when(end)),
        };
        let name = token.name.as_deref().map(|name| format!("  {}", one_line(name, 64))).unwrap_or_default();
        let scope = token.scope.to_string();
        format!("{}  {scope:<11}  since {}, {end}{name}\n", token.id, when(token.created_at))
    };
    tokens.iter().map(row).collect()
}
