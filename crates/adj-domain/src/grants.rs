//! Permissions that people gave to be remembered: a log of its own, and its fold.
//!
//! Must not know: what time it is, or which call a grant is good for.

use crate::{event::EventBody, id::EventId, permission::Grant};
use serde::{Deserialize, Serialize};

/// One entry of the log of grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum GrantEvent {
    #[serde(rename = "grant.given")]
    Given { grant: Grant },
    #[serde(rename = "grant.revoked")]
    Revoked { grant_id: EventId, by: String },
}

impl EventBody for GrantEvent {}

/// The grants that were given and not taken back; some may have ended by their own time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    pub head: u64,
    pub standing: Vec<Grant>,
}

impl Grants {
    /// A grant that is given twice stands once; taking back what is not there changes nothing.
    pub fn apply(&mut self, event: &GrantEvent) {
        self.head += 1;
        match event {
            GrantEvent::Given { grant } => {
                if !self.standing.iter().any(|known| known.id == grant.id) {
                    self.standing.push(grant.clone());
                }
            }
            GrantEvent::Revoked { grant_id, .. } => self.standing.retain(|grant| grant.id != *grant_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permission::{GrantScope, GrantSubject};

    #[test]
    fn what_is_taken_back_stands_no_longer() {
        let grant = |name: &str| Grant {
            id: EventId::derive(&[name]),
            subject: GrantSubject::Tool { name: "bash".to_owned() },
            scope: GrantScope::Repository { path: "/r".to_owned() },
            until: "2026-01-02T03:04:05Z".parse().expect("a moment"),
            by: "me".to_owned(),
        };
        let mut grants = Grants::default();
        for name in ["a", "b", "a"] {
            grants.apply(&GrantEvent::Given { grant: grant(name) });
        }
        assert_eq!(grants.standing, [grant("a"), grant("b")]);
        for _ in 0..2 {
            grants.apply(&GrantEvent::Revoked { grant_id: grant("a").id, by: "me".to_owned() });
        }
        assert_eq!((grants.standing, grants.head), (vec![grant("b")], 5));
        let json = serde_json::to_string(&GrantEvent::Given { grant: grant("a") }).expect("plain data");
        assert_eq!(
            json,
            format!(
                r#"{{"type":"grant.given","grant":{{"id":"{}","subject":{{"type":"tool","name":"bash"}},"scope":{{"type":"repository","path":"/r"}},"until":"2026-01-02T03:04:05Z","by":"me"}}}}"#,
                grant("a").id
            )
        );
    }
}
