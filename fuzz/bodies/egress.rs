//! Reads what programs inside a sandbox and hosts outside say to the door between them.
//!
//! The first byte chooses the reader, the second the size of the pieces.

use adj_egress::parsers::{
    BodyDecoder, Framing, Parsed, RequestHead, ResponseHead, Scrubber, Step, absolute_form, authority, head_end,
    parse_greeting, parse_request, read_hello, second_hello, server_retries, strict_path,
};
use bytes::BytesMut;

pub fn run(data: &[u8]) {
    let [reader, piece, data @ ..] = data else { return };
    let piece = usize::from(*piece).max(1);
    match reader {
        b'r' => request(data),
        b'a' => response(data),
        b'c' => body(Framing::Chunked, data, piece),
        b's' => socks(data),
        b't' => hello(data),
        b'u' => targets(data),
        _ => scrubbing(data, piece),
    }
}

/// A head that was read means the same when it is written down in the plainest way.
fn request(data: &[u8]) {
    let Ok(Some(end)) = head_end(data) else { return };
    let Ok(mut head) = RequestHead::parse(&data[..end]) else { return };
    let framing = head.body();
    let mut text = format!("{} {} HTTP/1.{}\r\n", head.method, head.target, u8::from(head.is_new)).into_bytes();
    head.headers.write_to(&mut text);
    text.extend_from_slice(b"\r\n");
    assert_eq!(head_end(&text), Ok(Some(text.len())), "what is written ends elsewhere");
    let again = RequestHead::parse(&text).expect("what was read can be written");
    assert_eq!(again, head);
    assert_eq!(again.body(), framing);
    if head.headers.strip_hop_by_hop().is_ok() {
        assert!(!head.headers.has("Connection") && !head.headers.has("Transfer-Encoding"));
        assert_eq!(head.body(), Ok(Framing::Empty), "the framing was left");
    }
}

fn response(data: &[u8]) {
    let Ok(Some(end)) = head_end(data) else { return };
    let Ok(head) = ResponseHead::parse(&data[..end]) else { return };
    assert!((100..600).contains(&head.status));
    if head.body("HEAD").is_ok() {
        assert_eq!(head.body("HEAD"), Ok(Framing::Empty));
    }
}

/// The size of the pieces makes no difference.
fn body(framing: Framing, data: &[u8], piece: usize) {
    let decode = |piece: usize| {
        let (mut decoder, mut buffer, mut whole) = (BodyDecoder::new(framing), BytesMut::new(), Vec::new());
        for piece in data.chunks(piece) {
            buffer.extend_from_slice(piece);
            while let Step::Data(data) = decoder.step(&mut buffer)? {
                assert!(!data.is_empty(), "an empty piece would end the body for the next reader");
                whole.extend_from_slice(&data);
            }
        }
        decoder.end().map(|()| (whole, buffer))
    };
    let (whole, pieces) = (decode(data.len().max(1)), decode(piece));
    assert_eq!(whole.is_ok(), pieces.is_ok());
    if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
        assert_eq!(whole, pieces);
    }
}

fn socks(data: &[u8]) {
    if let Ok(Parsed::Done(_, length)) = parse_greeting(data) {
        assert!(length <= data.len());
    }
    if let Ok(Parsed::Done(request, length)) = parse_request(data) {
        assert_eq!(
            parse_request(&data[..length]),
            Ok(Parsed::Done(request, length)),
            "what follows makes a difference"
        );
        assert_eq!(parse_request(&data[..length - 1]), Ok(Parsed::NeedsMore));
    }
}

fn hello(data: &[u8]) {
    if let Ok(Some((hello, length))) = read_hello(data) {
        assert_eq!(read_hello(&data[..length]), Ok(Some((hello, length))), "what follows makes a difference");
        assert_eq!(read_hello(&data[..length - 1]), Ok(None));
    }
    // Neither may bring us down.
    let _ = (server_retries(data), second_hello(data));
}

fn targets(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok((to, target)) = absolute_form(text) {
        assert!(target.starts_with('/') && to.port > 0);
        assert!(!to.host.contains(['/', '@', '?', '#']), "{:?}", to.host);
        if strict_path(&target, true).is_ok() {
            let path = target.split('?').next().unwrap_or_default();
            assert!(!path.contains("..;") && !path.split('/').any(|segment| segment == ".."), "{path}");
        }
    }
    if let Ok(to) = authority(text, None) {
        assert_eq!(authority(&format!("{}:{}", to.host, to.port), None), Ok(to));
    }
}

/// The first line is the secret, the rest a stream that may hold it.
fn scrubbing(data: &[u8], piece: usize) {
    let Some((Ok(secret), text)) =
        data.iter().position(|byte| *byte == b'\n').map(|end| (std::str::from_utf8(&data[..end]), &data[end + 1..]))
    else {
        return;
    };
    if secret.is_empty() || secret.contains('*') {
        return;
    }
    let scrub = |piece: usize| {
        let mut scrubber = Scrubber::new([secret]);
        let mut out: Vec<u8> = text.chunks(piece).flat_map(|piece| scrubber.push(piece)).collect();
        out.extend(scrubber.flush());
        out
    };
    let whole = scrub(text.len().max(1));
    assert_eq!(whole.len(), text.len());
    assert_eq!(whole, scrub(piece), "the size of the pieces makes a difference");
    assert!(!whole.windows(secret.len()).any(|window| window == secret.as_bytes()), "the secret is still there");
}
