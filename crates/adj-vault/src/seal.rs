//! The bytes of a vault's file.
//!
//! Format 1, integers little-endian:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `adjvault` |
//! | 8 | 1 | the format: 1 |
//! | 9 | 1 | where the key lies: 1 the key file, 2 the system keyring |
//! | 10 | 16 | the vault's id |
//! | 26 | 24 | the nonce, random for each write |
//! | 50 | n | the content, encrypted with XChaCha20-Poly1305; all bytes before it are authenticated with it |
//! | 50 + n | 16 | the tag |
//!
//! The content: the placeholders' salt (32 bytes), the length of a JSON array (4 bytes), the array of [`Entry`], then for each entry in its order the
//! length of its value (4 bytes) and the value. The key is random, so nothing is derived from a password. Values are kept out of the JSON because a JSON
//! parser copies what it unescapes into memory that nobody overwrites.

use crate::{
    entry::{Entry, SecretName},
    key::{Key, KeyPlace, VaultId},
};
use adj_domain::Secret;
use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"adjvault";
pub(crate) const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 50;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const SALT_BYTES: usize = 32;

pub(crate) const MAX_FILE_BYTES: usize = 32 * 1024 * 1024;
pub(crate) const MAX_ENTRIES: usize = 1000;

/// What is known before the key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub place: KeyPlace,
    pub id: VaultId,
}

/// What a vault holds.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub salt: Zeroizing<[u8; SALT_BYTES]>,
    pub secrets: BTreeMap<SecretName, (Entry, Secret)>,
}

/// Why bytes are no vault that we can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    NotAVault,
    Format(u8),
    /// Cut off, or against the format.
    Damaged,
    /// Changed, or locked with another key; nobody can tell which.
    Locked,
}

pub(crate) fn read_header(bytes: &[u8]) -> Result<Header, Unreadable> {
    let magic = bytes.get(..MAGIC.len()).ok_or(Unreadable::Damaged)?;
    if magic != MAGIC {
        return Err(Unreadable::NotAVault);
    }
    match bytes.get(MAGIC.len()) {
        Some(&FORMAT) => {}
        Some(other) => return Err(Unreadable::Format(*other)),
        None => return Err(Unreadable::Damaged),
    }
    if bytes.len() < HEADER_BYTES + TAG_BYTES {
        return Err(Unreadable::Damaged);
    }
    let place = match bytes[9] {
        1 => KeyPlace::File,
        2 => KeyPlace::Keyring,
        _ => return Err(Unreadable::Damaged),
    };
    let id = bytes[10..26].try_into().expect("16 bytes were cut");
    Ok(Header { place, id: VaultId::from_bytes(id) })
}

/// Decrypts a file in place and takes the content out. The caller has read the header.
pub(crate) fn open(bytes: &mut [u8], key: &Key) -> Result<Content, Unreadable> {
    if bytes.len() < HEADER_BYTES + TAG_BYTES {
        return Err(Unreadable::Damaged);
    }
    let (header, rest) = bytes.split_at_mut(HEADER_BYTES);
    let (content, tag) = rest.split_at_mut(rest.len() - TAG_BYTES);
    let nonce: [u8; NONCE_BYTES] = header[HEADER_BYTES - NONCE_BYTES..].try_into().expect("24 bytes were cut");
    let tag: [u8; TAG_BYTES] = (&*tag).try_into().expect("16 bytes were cut");
    cipher(key)
        .decrypt_inout_detached(&XNonce::from(nonce), header, (&mut *content).into(), &Tag::from(tag))
        .map_err(|_| Unreadable::Locked)?;
    read_content(content).ok_or(Unreadable::Damaged)
}

/// Makes a file; nothing where it would be larger than a file may be.
pub(crate) fn seal(
    header: Header,
    nonce: [u8; NONCE_BYTES],
    key: &Key,
    content: &Content,
) -> Option<Zeroizing<Vec<u8>>> {
    let entries: Vec<&Entry> = content.secrets.values().map(|(entry, _)| entry).collect();
    let entries = serde_json::to_vec(&entries).expect("an entry has only text for keys");
    let values: usize = content.secrets.values().map(|(_, secret)| 4 + secret.expose().len()).sum();
    let length = HEADER_BYTES + SALT_BYTES + 4 + entries.len() + values + TAG_BYTES;
    if length > MAX_FILE_BYTES {
        return None;
    }
    // The exact length at once: a buffer that grew would leave copies of the values behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    bytes.extend_from_slice(MAGIC);
    bytes.push(FORMAT);
    bytes.push(match header.place {
        KeyPlace::File => 1,
        KeyPlace::Keyring => 2,
    });
    bytes.extend_from_slice(header.id.as_bytes());
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(&content.salt[..]);
    let length_of = |part: &[u8]| u32::try_from(part.len()).expect("less than the whole file").to_le_bytes();
    bytes.extend_from_slice(&length_of(&entries));
    bytes.extend_from_slice(&entries);
    for (_, secret) in content.secrets.values() {
        bytes.extend_from_slice(&length_of(secret.expose().as_bytes()));
        bytes.extend_from_slice(secret.expose().as_bytes());
    }
    let (header, rest) = bytes.split_at_mut(HEADER_BYTES);
    let tag = cipher(key).encrypt_inout_detached(&XNonce::from(nonce), header, rest.into());
    let tag = tag.expect("a file is far shorter than the cipher's limit");
    bytes.extend_from_slice(&tag);
    debug_assert_eq!(bytes.len(), length);
    Some(bytes)
}

fn cipher(key: &Key) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new_from_slice(key.expose()).expect("a key has 32 bytes")
}

fn read_content(mut rest: &[u8]) -> Option<Content> {
    let mut salt = Zeroizing::new([0; SALT_BYTES]);
    salt.copy_from_slice(rest.split_off(..SALT_BYTES)?);
    let entries: Vec<Entry> = serde_json::from_slice(read_part(&mut rest)?).ok()?;
    if entries.len() > MAX_ENTRIES {
        return None;
    }
    let mut secrets = BTreeMap::new();
    for entry in entries {
        entry.check().ok()?;
        let value = std::str::from_utf8(read_part(&mut rest)?).ok()?;
        let secret = Secret::parse(entry.name.as_str(), value.to_owned()).ok()?;
        if secrets.insert(entry.name.clone(), (entry, secret)).is_some() {
            return None;
        }
    }
    rest.is_empty().then_some(Content { salt, secrets })
}

fn read_part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = rest.split_off(..4)?.try_into().expect("4 bytes were cut");
    rest.split_off(..usize::try_from(u32::from_le_bytes(length)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Place;
    use adj_domain::Timestamp;

    const HEADER: Header = Header { place: KeyPlace::File, id: VaultId::from_bytes([2; 16]) };

    fn key() -> Key {
        Key::from_bytes(&[1; 32]).expect("32 bytes")
    }

    fn content() -> Content {
        let secrets = [("a", "va\\l\"ue-of-a"), ("b", "value-of-b")].map(|(name, value)| {
            let name: SecretName = name.parse().expect("the name is good");
            let entry = Entry {
                name: name.clone(),
                env: None,
                hosts: vec!["api.example.org:8443".parse().expect("the rule is good")],
                place: Place::Body,
                git: false,
                note: None,
                created: Timestamp::UNIX_EPOCH,
            };
            (name, (entry, Secret::parse("test", value.to_owned()).expect("the secret is good")))
        });
        Content { salt: Zeroizing::new([4; 32]), secrets: secrets.into() }
    }

    fn sealed() -> Zeroizing<Vec<u8>> {
        seal(HEADER, [3; 24], &key(), &content()).expect("it is small")
    }

    #[test]
    fn the_format_stays_what_it_is() {
        let mut bytes = sealed();
        assert_eq!(&bytes[..10], b"adjvault\x01\x01");
        // If this changes, users' vaults no longer open: give the format another number, and keep reading this one.
        assert_eq!(
            blake3::hash(&bytes).to_hex().as_str(),
            "312b049dba3f4ff8fcf0792930d80964ec8748a79f404063eb737eecbd6886f3"
        );
        assert_eq!(read_header(&bytes), Ok(HEADER));
        let found = open(&mut bytes, &key()).expect("what was sealed opens");
        assert_eq!(found.salt, content().salt);
        assert_eq!(found.secrets, content().secrets);
    }

    #[test]
    fn another_key_does_not_open_it() {
        let other = Key::from_bytes(&[9; 32]).expect("32 bytes");
        assert_eq!(open(&mut sealed(), &other).expect_err("the key is another"), Unreadable::Locked);
    }

    #[test]
    fn content_is_read_strictly() {
        let mut bytes = sealed();
        open(&mut bytes, &key()).expect("it opens, and is decrypted in place");
        let good = &bytes[HEADER_BYTES..bytes.len() - TAG_BYTES];
        assert!(read_content(good).is_some());
        for length in 0..good.len() {
            assert!(read_content(&good[..length]).is_none(), "cut at {length}");
        }
        assert!(read_content(&[good, b"x"].concat()).is_none(), "something follows");
        let at = good.windows(10).position(|window| window == br#""name":"b""#).expect("it is there");
        let mut doubled = good.to_vec();
        doubled[at + 8] = b'a';
        assert!(read_content(&doubled).is_none(), "two of one name");
    }
}
