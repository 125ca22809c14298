//! A model vendor on this machine that answers at once, so that a benchmark measures us and not the network.
//!
//! It speaks as much of the Responses wire as a well-behaved client needs, over HTTP/1.1 with kept connections.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// The longest request that is read.
const LARGEST_REQUEST: usize = 64 << 20;

/// Answers until this program ends.
pub struct Vendor {
    address: SocketAddr,
    answered: Arc<AtomicU64>,
}

impl Vendor {
    /// Starts a vendor that asks for `calls` shell commands, one a turn, and then says that it is done.
    pub fn start(calls: usize) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen on loopback")?;
        let address = listener.local_addr()?;
        let answered = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&answered);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counter = Arc::clone(&counter);
                thread::spawn(move || {
                    if let Err(error) = serve(stream, calls, &counter) {
                        eprintln!("     the benchmark's vendor: {error:#}");
                    }
                });
            }
        });
        Ok(Self { address, answered })
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// How many requests got an answer so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }
}

fn serve(stream: TcpStream, calls: usize, answered: &AtomicU64) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader)? {
        let body = events(&answer(&request, calls));
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n", body.len());
        // Counted before the client can know, so that nobody who has its answer misses it in the count.
        answered.fetch_add(1, Ordering::SeqCst);
        writer.write_all((head + &body).as_bytes())?;
    }
    Ok(())
}

/// Reads one request; `None` when the connection ends between two.
fn read_request(reader: &mut impl BufRead) -> Result<Option<Value>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    ensure!(line.starts_with("POST ") && line.contains("/responses "), "unexpected request {}", line.trim_end());
    let mut length = None;
    loop {
        let mut header = String::new();
        ensure!(reader.read_line(&mut header)? > 0, "a request ends in its head");
        let Some((name, value)) = header.trim_end().split_once(':') else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = Some(value.trim().parse::<usize>().context("a request has a strange length")?),
            "transfer-encoding" => bail!("a request has no known length"),
            _ => {}
        }
    }
    let length = length.context("a request has no length")?;
    ensure!(length <= LARGEST_REQUEST, "a request of {length} bytes is too large");
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body).context("a request is not JSON")?))
}

/// Returns what the vendor answers; it depends on the request alone.
fn answer(request: &Value, calls: usize) -> Value {
    let items = request["input"].as_array().map_or(&[][..], Vec::as_slice);
    let done = items.iter().filter(|item| item["type"] == "function_call_output").count();
    if done < calls {
        json!({
            "type": "function_call", "id": format!("fc_{done}"), "call_id": format!("call_{done}"), "status": "completed",
            "name": "bash", "arguments": json!({ "command": "true" }).to_string(),
        })
    } else {
        json!({
            "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "content": [{ "type": "output_text", "text": "Done.", "annotations": [] }],
        })
    }
}

fn events(item: &Value) -> String {
    let response = |status: &str, output: Value, usage: Value| {
        json!({
            "id": "resp_1", "object": "response", "created_at": 0, "status": status, "model": "bench",
            "output": output, "usage": usage,
        })
    };
    let usage = json!({
        "input_tokens": 1000, "input_tokens_details": { "cached_tokens": 900 },
        "output_tokens": 10, "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": 1010,
    });
    let events = [
        json!({ "type": "response.created", "response": response("in_progress", json!([]), Value::Null) }),
        json!({ "type": "response.output_item.done", "output_index": 0, "item": item }),
        json!({ "type": "response.completed", "response": response("completed", json!([item]), usage) }),
    ];
    let mut text = String::new();
    for (number, mut event) in events.into_iter().enumerate() {
        event["sequence_number"] = number.into();
        let kind = event["type"].as_str().expect("every event has a type");
        text += &format!("event: {kind}\ndata: {event}\n\n");
    }
    text
}

#[cfg(test)]
mod unit {
    use super::*;
    use std::io::Read;

    fn ask(stream: &mut TcpStream, outputs: usize) -> String {
        let input: Vec<Value> = (0..outputs).map(|_| json!({ "type": "function_call_output" })).collect();
        let body = json!({ "input": input }).to_string();
        write!(stream, "POST /v1/responses HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut reader = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while reader.read_line(&mut line).unwrap() > 2 {
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }

    #[test]
    fn it_asks_for_its_calls_and_then_ends_the_turn_on_one_connection() {
        let vendor = Vendor::start(2).unwrap();
        let mut stream = TcpStream::connect(vendor.address).unwrap();
        for (outputs, expected) in [(0, "call_0"), (1, "call_1"), (2, "Done.")] {
            let text = ask(&mut stream, outputs);
            assert!(text.contains(expected) && text.contains("event: response.completed\n"), "{text}");
        }
        assert_eq!(vendor.answered(), 3);
    }
}
