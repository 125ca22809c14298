//! Files: what is known of them beside their bytes.

use crate::{
    query::{Limits, Paging, Query},
    read::Invalid,
    record::{Stamp, time},
};
use adj_domain::{BlobHash, SessionId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

/// What a store keeps of a file beside its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSpec {
    pub filename: String,
    pub mime_type: String,
    pub size_bytes: u64,
    pub blob: BlobHash,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The session that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

impl FileSpec {
    pub fn answer(&self, stamp: &Stamp) -> Value {
        json!({
            "id": stamp.id,
            "type": "file",
            "filename": self.filename,
            "mime_type": self.mime_type,
            "size_bytes": self.size_bytes,
            "created_at": time(stamp.created_at),
            "downloadable": true,
            "expires_at": self.expires_at.map(time),
            "scope": self.session.as_ref().map(|session| json!({"type": "session", "id": session})),
        })
    }
}

/// A file's name as it may be kept: a name, and no path.
pub fn file_name(text: &str) -> Result<String, Invalid> {
    let is_name =
        !["", ".", ".."].contains(&text) && !text.contains(['/', '\\']) && !text.chars().any(char::is_control);
    match is_name && text.chars().count() <= 255 {
        true => Ok(text.to_owned()),
        false => Err(Invalid::new("file", "must have a name of 1 to 255 characters that is no path")),
    }
}

/// A part's media type as it may be kept.
pub fn media_type(text: Option<&str>) -> String {
    let is_plain = |text: &&str| {
        let is_word = |c: char| c.is_ascii_graphic() || c == ' ';
        text.len() <= 255 && text.contains('/') && text.chars().all(is_word)
    };
    text.filter(is_plain).unwrap_or("application/octet-stream").to_owned()
}

/// The field `expires_in_seconds` of an upload.
pub fn expires_in(text: &str) -> Result<Duration, Invalid> {
    match text.parse() {
        Ok(seconds @ 3_600..=7_776_000) => Ok(Duration::from_secs(seconds)),
        _ => Err(Invalid::new("expires_in_seconds", "must be a whole number, 3600 to 7776000")),
    }
}

/// Which files are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilesQuery {
    Page {
        paging: Paging,
        session: Option<SessionId>,
    },
    /// These, in no pages.
    Ids(Vec<String>),
}

impl FilesQuery {
    pub fn read(query: &Query) -> Result<Self, Invalid> {
        let ids = query.list("ids", 100)?;
        if ids.is_empty() {
            let session = query.text("scope_id")?.map(str::parse).transpose();
            let session = session.map_err(|error| Invalid::new("scope_id", format!("is no session: {error}")))?;
            return Ok(Self::Page { paging: query.paging(Limits::LONG)?, session });
        }
        for name in ["page", "limit"] {
            if query.text(name)?.is_some() {
                return Err(Invalid::new(name, "cannot be given together with ids"));
            }
        }
        Ok(Self::Ids(ids))
    }
}
