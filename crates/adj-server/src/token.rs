//! Tokens that people make for programs: kept as hashes in one private file, and looked at anew whenever that changes.
//!
//! The hash is a fast one on purpose. A slow one would keep somebody from guessing what people think up; these are 256 bits out of
//! the system's randomness, which nobody guesses at any speed.

use crate::gate::{Caller, Who};
use adj_domain::{Secret, Timestamp};
use adj_vault::{Existing, Folder, FolderError};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio_util::sync::CancellationToken;

const FILE: &str = "tokens";
const PREFIX: &str = "adj_";
/// Hexadecimal digits of a token.
const DIGITS: usize = 64;
const MAX_FILE_BYTES: usize = 1024 * 1024;
const MAX_TOKENS: usize = 1000;
const MAX_NAME_CHARS: usize = 64;

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everything, the daemon itself among it.
    Admin,
    /// Agents, sessions and what belongs to them.
    Api,
    /// The work of one environment's machines.
    Environment,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin => "admin",
            Self::Api => "api",
            Self::Environment => "environment",
        })
    }
}

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub scope: Scope,
    /// Of its text, which is nowhere.
    hash: String,
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Token {
    pub fn is_expired(&self, at: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= at)
    }
}

/// A token that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    pub name: Option<String>,
    pub scope: Scope,
    pub expires_at: Option<Timestamp>,
}

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("the file of tokens {} is damaged", path.display())]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error("the file of tokens {} has format {found}; this build reads format 1", path.display())]
    Format { path: PathBuf, found: u32 },
    #[error("there are {MAX_TOKENS} tokens already")]
    Full,
    #[error("a token's name has 1 to {MAX_NAME_CHARS} characters, and no control characters")]
    Name,
    #[error("the system gives no random bytes")]
    Randomness(#[source] getrandom::Error),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: u32,
    tokens: Vec<Token>,
}

/// The file of tokens, as people change it.
#[derive(Debug, Clone)]
pub struct TokenFile {
    folder: PathBuf,
}

impl TokenFile {
    /// The file in this private folder, which need not be there yet.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// All tokens, oldest first.
    pub fn list(&self) -> Result<Vec<Token>, TokenError> {
        match Folder::open(&self.folder)? {
            Some(folder) => read(&folder),
            None => Ok(Vec::new()),
        }
    }

    /// Makes a token. Its text is handed out here and never again.
    pub fn create(&self, new: NewToken, now: Timestamp) -> Result<(Token, Secret), TokenError> {
        let is_name =
            |name: &String| (1..=MAX_NAME_CHARS).contains(&name.chars().count()) && !name.chars().any(char::is_control);
        if !new.name.as_ref().is_none_or(is_name) {
            return Err(TokenError::Name);
        }
        let folder = Folder::make(&self.folder)?;
        let _lock = folder.lock()?;
        let mut tokens = read(&folder)?;
        if tokens.len() >= MAX_TOKENS {
            return Err(TokenError::Full);
        }
        let mut random = [0; 48];
        getrandom::fill(&mut random).map_err(TokenError::Randomness)?;
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let text = format!("{PREFIX}{}", hex(&random[..DIGITS / 2]));
        let token = Token {
            id: format!("tok_{}", hex(&random[DIGITS / 2..][..8])),
            name: new.name,
            scope: new.scope,
            hash: blake3::hash(text.as_bytes()).to_hex().to_string(),
            created_at: now,
            expires_at: new.expires_at,
        };
        tokens.push(token.clone());
        write(&folder, tokens)?;
        Ok((token, Secret::parse("a new token", text).expect("hexadecimal digits are what a key is made of")))
    }

    /// Ends a token; says whether there was one of this id.
    pub fn revoke(&self, id: &str) -> Result<bool, TokenError> {
        let Some(folder) = Folder::open(&self.folder)? else { return Ok(false) };
        let _lock = folder.lock()?;
        let mut tokens = read(&folder)?;
        let before = tokens.len();
        tokens.retain(|token| token.id != id);
        if tokens.len() == before {
            return Ok(false);
        }
        write(&folder, tokens)?;
        Ok(true)
    }
}

fn read(folder: &Folder) -> Result<Vec<Token>, TokenError> {
    let Some(bytes) = folder.read(FILE, MAX_FILE_BYTES)? else { return Ok(Vec::new()) };
    let damaged = |source| TokenError::Damaged { path: folder.path_of(FILE), source };
    let content: Content = serde_json::from_slice(&bytes).map_err(damaged)?;
    match content.format {
        1 => Ok(content.tokens),
        found => Err(TokenError::Format { path: folder.path_of(FILE), found }),
    }
}

fn write(folder: &Folder, tokens: Vec<Token>) -> Result<(), TokenError> {
    let text = serde_json::to_vec_pretty(&Content { format: 1, tokens }).expect("tokens are plain data");
    Ok(folder.write(FILE, &text, Existing::Replace)?)
}

/// The tokens in force, as a server sees them.
pub struct Tokens {
    file: TokenFile,
    path: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    mark: Option<Mark>,
    /// `None` where the file cannot be read: then nobody is let in.
    tokens: Option<Vec<(blake3::Hash, Token)>>,
    /// Those with which something may be under way.
    used: HashMap<String, CancellationToken>,
}

/// What tells one version of a file from another: each is a new file that takes the old one's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Absent,
    File { inode: u64, length: u64, changed: (i64, i64) },
    Unreadable(io::ErrorKind),
}

/// Whether what was shown is a token in force.
#[derive(Debug)]
pub(crate) enum Checked {
    Good(Caller),
    No,
    /// The file of tokens cannot be read.
    Unknown,
}

impl Tokens {
    /// The tokens in the file of this private folder.
    pub fn new(folder: &Path) -> Self {
        Self { file: TokenFile::new(folder), path: folder.join(FILE), seen: Mutex::default() }
    }

    pub(crate) fn check(&self, shown: &str) -> Checked {
        // Whatever has another length is none, and need not be hashed.
        if shown.len() != PREFIX.len() + DIGITS {
            return Checked::No;
        }
        let now = Timestamp::now();
        let mut seen = self.look(now);
        let Some(tokens) = &seen.tokens else { return Checked::Unknown };
        let hash = blake3::hash(shown.as_bytes());
        // Hashes compare in constant time, and all of them are compared.
        let found = tokens.iter().fold(None, |found, (held, token)| if *held == hash { Some(token) } else { found });
        let Some(token) = found.filter(|token| !token.is_expired(now)) else { return Checked::No };
        let (id, scope) = (token.id.clone(), token.scope);
        let revoked = seen.used.entry(id.clone()).or_default().clone();
        Checked::Good(Caller { who: Who::Token(id), scope, revoked })
    }

    /// Ends what is under way with tokens that were revoked, or have expired.
    pub(crate) fn sweep(&self) {
        let now = Timestamp::now();
        let mut seen = self.look(now);
        let Seen { tokens, used, .. } = &mut *seen;
        let tokens = tokens.as_deref().unwrap_or_default();
        used.retain(|id, revoked| {
            let is_good = tokens.iter().any(|(_, token)| token.id == *id && !token.is_expired(now));
            if !is_good {
                revoked.cancel();
            }
            is_good
        });
    }

    /// What the file says now.
    fn look(&self, now: Timestamp) -> MutexGuard<'_, Seen> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before the file is read: what changes in between is seen the next time.
        let mark = mark(&self.path);
        if seen.mark == Some(mark) {
            return seen;
        }
        seen.mark = Some(mark);
        seen.tokens = match self.file.list() {
            Ok(tokens) => {
                let hashed = |token: Token| Some((blake3::Hash::from_hex(&token.hash).ok()?, token));
                Some(tokens.into_iter().filter_map(hashed).filter(|(_, token)| !token.is_expired(now)).collect())
            }
            Err(error) => {
                tracing::error!("nobody with a token is let in: {error}");
                None
            }
        };
        seen
    }
}

fn mark(path: &Path) -> Mark {
    match fs::symlink_metadata(path) {
        Ok(meta) => Mark::File { inode: meta.ino(), length: meta.len(), changed: (meta.ctime(), meta.ctime_nsec()) },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Mark::Absent,
        Err(error) => Mark::Unreadable(error.kind()),
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::fs::PermissionsExt, time::Duration};

    fn new(scope: Scope) -> NewToken {
        NewToken { name: Some("ci".to_owned()), scope, expires_at: None }
    }

    fn id(tokens: &Tokens, shown: &str) -> Option<(String, Scope)> {
        match tokens.check(shown) {
            Checked::Good(Caller { who: Who::Token(id), scope, .. }) => Some((id, scope)),
            _ => None,
        }
    }

    #[test]
    fn a_token_is_good_until_it_is_revoked_and_its_text_is_nowhere() {
        let home = tempfile::tempdir().expect("a scratch folder");
        let folder = home.path().join("daemon");
        let (file, tokens) = (TokenFile::new(&folder), Tokens::new(&folder));
        assert_eq!(file.list().expect("nothing is no error"), []);
        let (one, text) = file.create(new(Scope::Api), Timestamp::now()).expect("it can be made");
        let (two, other) = file.create(new(Scope::Admin), Timestamp::now()).expect("it can be made");
        assert_eq!(id(&tokens, text.expose()), Some((one.id.clone(), Scope::Api)));
        assert_eq!(id(&tokens, other.expose()), Some((two.id.clone(), Scope::Admin)));
        let upper = text.expose().to_uppercase();
        for shown in ["", "adj_", &text.expose()[1..], &upper, &format!("adj_{}", "0".repeat(64)), &one.hash] {
            assert_eq!(id(&tokens, shown), None, "{shown}");
        }
        let kept = fs::read_to_string(folder.join(FILE)).expect("it is there");
        assert!(!kept.contains(&text.expose()[PREFIX.len()..]), "{kept}");
        assert_eq!(fs::metadata(folder.join(FILE)).expect("it is there").permissions().mode() & 0o777, 0o600);

        let Checked::Good(under_way) = tokens.check(text.expose()) else { panic!("the token is good") };
        assert!(file.revoke(&one.id).expect("it can be revoked"));
        assert!(!file.revoke(&one.id).expect("twice is no error"));
        assert_eq!(id(&tokens, text.expose()), None, "at once");
        tokens.sweep();
        assert!(under_way.revoked.is_cancelled());
        assert_eq!(file.list().expect("it can be read"), [two]);
    }

    #[test]
    fn a_token_ends_in_time_and_a_damaged_file_lets_nobody_in() {
        let home = tempfile::tempdir().expect("a scratch folder");
        let folder = home.path().join("daemon");
        let (file, tokens) = (TokenFile::new(&folder), Tokens::new(&folder));
        let soon = Timestamp::now() + Duration::from_millis(300);
        let (_, brief) = file
            .create(NewToken { expires_at: Some(soon), ..new(Scope::Api) }, Timestamp::now())
            .expect("it can be made");
        let (_, lasting) = file.create(new(Scope::Api), Timestamp::now()).expect("it can be made");
        assert!(id(&tokens, brief.expose()).is_some());
        std::thread::sleep(Duration::from_millis(301));
        assert!(id(&tokens, brief.expose()).is_none() && id(&tokens, lasting.expose()).is_some());

        fs::write(folder.join(FILE), "{").expect("our own file");
        assert!(matches!(tokens.check(lasting.expose()), Checked::Unknown));
        assert!(
            matches!(file.create(new(Scope::Api), soon), Err(TokenError::Damaged { .. })),
            "it is not written over"
        );
        for name in ["", "a\nb", &"x".repeat(65)] {
            let wrong = NewToken { name: Some(name.to_owned()), ..new(Scope::Api) };
            assert!(matches!(file.create(wrong, soon), Err(TokenError::Name)), "{name}");
        }
    }
}
