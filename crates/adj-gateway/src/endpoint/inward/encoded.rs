//! Base64 as clients write it: in either alphabet, with or without padding.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Returns the same in the alphabet, and with the padding, that every vendor reads.
pub(super) fn standard(text: &str) -> String {
    let bare = text.trim_end_matches('=');
    let mut standard = bare.replace('-', "+").replace('_', "/");
    standard.extend(std::iter::repeat_n('=', (4 - bare.len() % 4) % 4));
    standard
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(standard(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_writing_it_is_read() {
        for bytes in [b"".as_slice(), b"?", b"\xfb\xff", b"\xfb\xff\xbf", b"adj1:{}"] {
            let text = encode(bytes);
            let other = text.replace('+', "-").replace('/', "_");
            for written in [&text, &other, other.trim_end_matches('='), text.trim_end_matches('=')] {
                assert_eq!((standard(written), decode(written).as_deref()), (text.clone(), Some(bytes)), "{written}");
            }
        }
        assert_eq!(decode("!"), None);
    }
}
