//! Decodes a vendor's stream: whole and cut into pieces it means the same, and a broken one is never an answer.
//!
//! The first byte chooses the wire (`a`: Messages, `c`: chat, `g`: Gemini, else Responses), the second the size of the pieces.

use adj_domain::ModelAnswer;
use adj_providers::{Accumulator, Dialect, ModelEvent, ProviderError, StreamDecoder, anthropic, chat, gemini, openai};

pub fn run(data: &[u8]) {
    let [wire, piece, stream @ ..] = data else { return };
    let piece = usize::from(*piece).max(1);
    match wire {
        b'a' => check::<anthropic::Messages>(stream, piece),
        b'c' => check::<chat::Chat>(stream, piece),
        b'g' => check::<gemini::GenerateContent>(stream, piece),
        _ => check::<openai::Responses>(stream, piece),
    }
}

fn check<D: Dialect>(stream: &[u8], piece: usize) {
    let whole = decode::<D>([stream]);
    let pieces = decode::<D>(stream.chunks(piece));
    // An error drops what its own piece had brought until then, so only streams without one are comparable to the event.
    if let (Ok(whole), Ok(pieces)) = (&whole, &pieces) {
        assert_eq!(whole, pieces, "the size of the pieces makes a difference");
    }
    assert_eq!(whole.is_ok(), pieces.is_ok(), "the size of the pieces decides whether the stream can be read");
    if let Ok((events, ended)) = whole {
        let is_finished = events.iter().any(|event| matches!(event, ModelEvent::Finished { .. }));
        assert_eq!(ended.is_ok(), is_finished, "only the vendor's own end ends an answer");
        let answer = accumulate(events);
        assert!(ended.is_ok() || answer.is_err(), "a stream that broke off became an answer");
    }
}

type Decoded = (Vec<ModelEvent>, Result<(), ProviderError>);

fn decode<'a, D: Dialect>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Decoded, ProviderError> {
    let mut decoder = StreamDecoder::<D>::new();
    let mut events = Vec::new();
    for piece in pieces {
        events.extend(decoder.push(piece)?);
    }
    let ended = decoder.finish().map(|last| events.extend(last));
    Ok((events, ended))
}

fn accumulate(events: Vec<ModelEvent>) -> Result<ModelAnswer, ProviderError> {
    let mut accumulator = Accumulator::new();
    for event in events {
        accumulator.push(event)?;
    }
    accumulator.finish()
}
