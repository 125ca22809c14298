//! Who may call: tokens that belong to one session each, and end.

use adj_domain::{Secret, SessionId};
use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const PREFIX: &str = "adjt_";

/// The tokens in force. Only their hashes are kept, under a key of this process, so that neither a look into memory nor the
/// time a comparison takes says anything about a token.
pub struct Tokens {
    key: [u8; 32],
    held: Mutex<HashMap<[u8; 32], Held>>,
}

struct Held {
    session: SessionId,
    until: Instant,
    revoked: CancellationToken,
}

/// What a good token says.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) session: SessionId,
    /// Ends what the caller has under way.
    pub(super) revoked: CancellationToken,
}

impl Tokens {
    /// Without randomness from the system there can be no tokens.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self { key, held: Mutex::default() })
    }

    /// Makes a token with which a session's agent may call until then.
    pub fn issue(&self, session: SessionId, until: Instant) -> Result<Secret, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        let text = format!("{PREFIX}{}", blake3::Hash::from_bytes(random).to_hex());
        let mut held = self.lock();
        let now = Instant::now();
        held.retain(|_, one| one.until > now);
        held.insert(self.hash(&text), Held { session, until, revoked: CancellationToken::new() });
        Ok(Secret::parse("a new token", text).expect("hexadecimal digits are what a key is made of"))
    }

    /// Ends every token of a session, and the answers that are on their way to it.
    pub fn revoke(&self, session: &SessionId) {
        self.lock().retain(|_, held| {
            let stays = held.session != *session;
            if !stays {
                held.revoked.cancel();
            }
            stays
        });
    }

    /// Returns whose token this is, if it is one in force.
    pub(super) fn check(&self, shown: &str) -> Option<Caller> {
        // Whatever has another length is none, and need not be hashed.
        if shown.len() != PREFIX.len() + 64 {
            return None;
        }
        let held = self.lock();
        let found = held.get(&self.hash(shown)).filter(|held| held.until > Instant::now())?;
        Some(Caller { session: found.session.clone(), revoked: found.revoked.clone() })
    }

    fn hash(&self, text: &str) -> [u8; 32] {
        *blake3::keyed_hash(&self.key, text.as_bytes()).as_bytes()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({} in force)", self.lock().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_for_its_session_until_it_ends_or_is_revoked() {
        let tokens = Tokens::new().expect("there is randomness");
        let session = |name| SessionId::derive(&[name]);
        let until = Instant::now() + Duration::from_secs(60);
        let one = tokens.issue(session("one"), until).expect("there is randomness");
        let two = tokens.issue(session("two"), until).expect("there is randomness");
        assert_ne!(one, two);
        let whose = |shown: &str| tokens.check(shown).map(|caller| caller.session);
        assert_eq!(whose(one.expose()), Some(session("one")));
        assert_eq!(whose(two.expose()), Some(session("two")));
        let mut wrong = one.expose().to_owned();
        wrong.pop();
        wrong.push(if one.expose().ends_with('0') { '1' } else { '0' });
        for shown in ["", "adjt_", &one.expose()[1..], &one.expose().to_uppercase(), &wrong, "sk-ant-whatever"] {
            assert_eq!(whose(shown), None, "{shown}");
        }
        let under_way = tokens.check(one.expose()).expect("the token is good").revoked;
        tokens.revoke(&session("one"));
        assert!(under_way.is_cancelled());
        assert_eq!((whose(one.expose()), whose(two.expose())), (None, Some(session("two"))));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(whose(two.expose()), None);
        let three = tokens.issue(session("three"), until + Duration::from_secs(60)).expect("there is randomness");
        let shown = format!("{tokens:?}");
        assert_eq!(shown, "Tokens(1 in force)");
        assert!(!shown.contains(three.expose()));
    }
}
