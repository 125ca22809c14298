//! What somebody inside is told when something is refused, and how a connection ends.

use crate::{body::BodyError, head::HeadError};
use adj_domain::{Destination, Ruling, Verdict};
use std::io;

/// A no, with the words for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub status: u16,
    pub text: String,
}

/// Why a connection is over.
#[derive(Debug)]
pub(crate) enum Stop {
    /// An answer is still owed.
    Refused(Refusal),
    /// The connection itself is broken, or an answer has begun.
    Gone,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<HeadError> for Refusal {
    fn from(error: HeadError) -> Self {
        let status = if matches!(error, HeadError::TooLong | HeadError::TooManyHeaders) { 431 } else { 400 };
        Self::new(status, error.to_string())
    }
}

impl From<HeadError> for Stop {
    fn from(error: HeadError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        Self::new(400, error.to_string())
    }
}

impl Refusal {
    pub(crate) fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    pub(crate) fn denied(to: &Destination, ruling: &Ruling) -> Self {
        let mut text = format!("{to} was refused.\nrule: {}\nlayer: {}\n", ruling.rule, ruling.layer);
        if let Some(file) = &ruling.file {
            let line = ruling.line.map(|line| format!(":{line}")).unwrap_or_default();
            text.push_str(&format!("file: {file}{line}\n"));
        }
        if let Some(justification) = &ruling.justification {
            text.push_str(&format!("why: {justification}\n"));
        }
        if ruling.verdict == Verdict::Ask {
            text.push_str("Nobody answered the question whether it may be reached.\n");
        }
        Self { status: 403, text }
    }

    /// A whole answer after which the connection ends.
    pub(crate) fn answer(&self) -> Vec<u8> {
        // Hosts and rules are other people's words: no control characters, so that they stay words.
        let text: String =
            self.text.chars().filter(|character| !character.is_control() || *character == '\n').collect();
        let text = format!("adjutant: {}\n", text.trim_end());
        let reason = match self.status {
            400 => "Bad Request",
            403 => "Forbidden",
            413 => "Content Too Large",
            431 => "Request Header Fields Too Large",
            501 => "Not Implemented",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            _ => "Gateway Timeout",
        };
        format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
            self.status,
            text.len()
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_who_said_no_to_what() {
        let to = Destination { host: "a\r\nb".to_owned(), port: 443, method: None, path: None };
        let ruling = Ruling {
            file: Some("/etc/adjutant/requirements.toml".to_owned()),
            line: Some(7),
            justification: Some("mirrors only".to_owned()),
            ..Ruling::new(Verdict::Deny, "administrator", "deny a.test")
        };
        let answer = String::from_utf8(Refusal::denied(&to, &ruling).answer()).expect("it is text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("there is a body");
        assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        assert_eq!(
            body,
            "adjutant: a\nb:443 was refused.\nrule: deny a.test\nlayer: administrator\n\
             file: /etc/adjutant/requirements.toml:7\nwhy: mirrors only\n"
        );
    }
}
