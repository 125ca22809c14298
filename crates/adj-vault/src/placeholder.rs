//! The text that stands for a secret where an agent works.

use crate::entry::SecretName;
use adj_domain::Secret;

/// How every placeholder begins, so that people and scanners see what it is.
pub const PLACEHOLDER_START: &str = "adjph_";

const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The lengths that placeholders have: about that of the secret, for programs that look at the length of a key, without telling it.
const LENGTHS: [usize; 5] = [40, 64, 96, 128, 256];

/// Makes the placeholder of a secret for one session: [`PLACEHOLDER_START`] and letters and digits, at least 40 characters in all.
///
/// The same arguments give the same text, so that a sandbox that is found again after a restart keeps working, also when the value was replaced by
/// another of about its length. Without `salt`, which lies encrypted in the vault, no other session's or secret's placeholder can be found
/// from it, and the value has no part in it. (It never holds the value either, unless that is shorter than any the vault takes.)
pub fn placeholder(session: &str, name: &SecretName, secret: &Secret, salt: &[u8; 32]) -> String {
    let secret = secret.expose();
    let longest = LENGTHS[LENGTHS.len() - 1];
    let length = LENGTHS.into_iter().find(|length| secret.len() <= *length).unwrap_or(longest);
    let key = blake3::derive_key("adjutant vault 1 placeholder", salt);
    let mut text = String::with_capacity(length);
    for attempt in 0..16_u8 {
        let mut hasher = blake3::Hasher::new_keyed(&key);
        // Each part is preceded by its length, so that no two pairs make the same bytes.
        for part in [session, name.as_str()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(&[attempt]);
        let mut bytes = hasher.finalize_xof();
        text.clear();
        text.push_str(PLACEHOLDER_START);
        while text.len() < length {
            let mut byte = [0];
            bytes.fill(&mut byte);
            // 248 is the largest multiple of 62 in a byte: beyond it some letters would come more often.
            if byte[0] < 248 {
                text.push(char::from(LETTERS[usize::from(byte[0] % 62)]));
            }
        }
        if !text.contains(secret) {
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn make(session: &str, name: &str, secret: &str, salt: u8) -> String {
        let secret = Secret::parse(name, secret.to_owned()).expect("the secret is good");
        placeholder(session, &name.parse().expect("the name is good"), &secret, &[salt; 32])
    }

    #[test]
    fn a_placeholder_stays_what_it_is() {
        // Sandboxes outlive the program that made them, so this text may not change from build to build.
        assert_eq!(make("sesn_1", "github", "ghp_0123456789", 7), "adjph_3BNCVbtkNVwsejq1Q8FwppKlJUNwoNdvjU");
    }

    #[test]
    fn a_placeholder_is_about_as_long_as_the_secret() {
        for (secret, expected) in [(8, 40), (40, 40), (41, 64), (64, 64), (93, 96), (128, 128), (129, 256), (9000, 256)]
        {
            assert_eq!(make("s", "n", &"x".repeat(secret), 0).len(), expected, "{secret}");
        }
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(make("ab", "c", "secret-value", 0), make("a", "bc", "secret-value", 0));
    }

    #[test]
    fn a_short_secret_ends_too() {
        for secret in ["a", "adjph_", "0"] {
            assert_eq!(make("s", "n", secret, 0).len(), 40);
        }
    }

    proptest! {
        #[test]
        fn placeholders_differ_and_tell_nothing(
            sessions in proptest::collection::hash_set("[a-z0-9_]{1,20}", 1..5),
            names in proptest::collection::hash_set("[A-Za-z0-9_-]{1,64}", 1..5),
            secret in "[!-~]{8,200}",
            salt in 0_u8..255,
        ) {
            let mut seen = HashSet::new();
            for session in &sessions {
                for name in &names {
                    let text = make(session, name, &secret, salt);
                    prop_assert!(text.starts_with(PLACEHOLDER_START));
                    prop_assert!(text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
                    prop_assert!(!text.contains(&secret));
                    prop_assert_eq!(&text, &make(session, name, &secret, salt));
                    prop_assert_ne!(&text, &make(session, name, &secret, salt + 1));
                    prop_assert!(seen.insert(text), "two of one kind");
                }
            }
        }
    }
}
