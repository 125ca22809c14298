//! The worker of the tests: a request is a word and its argument, each answered by a thread of its own.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adj_sandbox::{Frame, WorkerChannel};

pub fn work(channel: WorkerChannel) -> i32 {
    let cancelled = Arc::new(Mutex::new(HashSet::new()));
    while let Some(frame) = channel.recv() {
        match frame {
            Frame::Cancel { call } => drop(cancelled.lock().expect("never poisoned").insert(call)),
            Frame::Request { call, body } => {
                let (channel, cancelled) = (channel.clone(), Arc::clone(&cancelled));
                std::thread::spawn(move || {
                    let text = String::from_utf8(body).expect("tests speak UTF-8");
                    let (word, argument) = text.split_once(' ').unwrap_or((&text, ""));
                    let is_cancelled = || cancelled.lock().expect("never poisoned").contains(&call);
                    let mut answer = answer(word, argument, is_cancelled);
                    if let Some(reached) = channel.reached(call) {
                        answer += &format!(" [{reached}]");
                    }
                    channel.reply(call, answer.into_bytes()).expect("a supervisor");
                });
            }
        }
    }
    0
}

fn answer(word: &str, argument: &str, is_cancelled: impl Fn() -> bool) -> String {
    match word {
        "echo" => argument.to_owned(),
        "shell" => {
            let output = Command::new("/bin/bash").args(["-c", argument]).output().expect("bash");
            let streams = [output.stdout, output.stderr].concat();
            format!("{}{}", String::from_utf8_lossy(&streams), output.status)
        }
        // Leaves a mark for each time it was really executed.
        "mark" => {
            let file = OpenOptions::new().append(true).create(true).open("marks");
            file.and_then(|mut file| file.write_all(b"x")).expect("a writable workspace");
            std::thread::sleep(Duration::from_millis(300));
            "marked".to_owned()
        }
        "wait" => {
            while !is_cancelled() {
                std::thread::sleep(Duration::from_millis(5));
            }
            "cancelled".to_owned()
        }
        "die" => std::process::exit(9),
        "large" => "x".repeat(argument.parse().expect("a number")),
        other => panic!("unknown word {other}"),
    }
}
