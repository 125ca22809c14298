//! Blocks of messages and results, as clients write them and as the domain keeps them.

use crate::{
    abilities::Abilities,
    read::{Invalid, Node, Object},
};
use adj_domain::Content;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const MOST_BLOCKS: usize = 1_000;
const PLAIN_TEXT: &str = "text/plain";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    Text {
        text: String,
    },
    Image {
        source: Source,
    },
    Document {
        source: Source,
        #[serde(default)]
        title: Option<String>,
    },
    SearchResult {
        source: String,
        title: String,
        content: Vec<Block>,
        citations: Citations,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Citations {
    pub enabled: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Source {
    Base64 { media_type: String, data: String },
    Text { media_type: String, data: String },
    Url { url: String },
    File { file_id: String },
}

/// Where blocks stand; it decides which kinds there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Message,
    Result,
    System,
}

/// A file that a block names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedFile {
    pub name: String,
    pub media_type: String,
    pub bytes: Vec<u8>,
}

/// The blocks as the domain has them. `load` finds the files that they name.
pub(super) fn contents(
    blocks: &[Block],
    mut load: impl FnMut(&str) -> Option<LoadedFile>,
) -> Result<Vec<Content>, Invalid> {
    blocks.iter().map(|block| block.content(&mut load)).collect()
}

impl Block {
    /// The file that it names.
    pub fn file_id(&self) -> Option<&str> {
        match self {
            Self::Image { source: Source::File { file_id } }
            | Self::Document { source: Source::File { file_id }, .. } => Some(file_id),
            Self::Text { .. } | Self::Image { .. } | Self::Document { .. } | Self::SearchResult { .. } => None,
        }
    }

    fn content(&self, load: &mut impl FnMut(&str) -> Option<LoadedFile>) -> Result<Content, Invalid> {
        let mut loaded = |id: &str| {
            load(id).ok_or_else(|| Invalid::new("file_id", format!("there is no file {:?}", crate::read::cut(id))))
        };
        Ok(match self {
            Self::Text { text } => Content::text(text),
            Self::Image { source } => match source {
                Source::Base64 { media_type, data } | Source::Text { media_type, data } => {
                    Content::Image { media_type: media_type.clone(), data: data.clone() }
                }
                Source::Url { url } => Content::ImageUrl { url: url.clone() },
                Source::File { file_id } => {
                    let file = loaded(file_id)?;
                    if !IMAGES.contains(&file.media_type.as_str()) {
                        return Err(Invalid::new("file_id", format!("{file_id} is no image")));
                    }
                    Content::Image { media_type: file.media_type, data: STANDARD.encode(file.bytes) }
                }
            },
            Self::Document { source, title } => {
                let (media_type, data, name) = match source {
                    Source::Base64 { media_type, data } => (media_type.clone(), data.clone(), None),
                    Source::Text { media_type, data } => (media_type.clone(), STANDARD.encode(data), None),
                    Source::File { file_id } => {
                        let file = loaded(file_id)?;
                        (file.media_type, STANDARD.encode(file.bytes), Some(file.name))
                    }
                    Source::Url { .. } => return Err(Invalid::new("source", URL_DOCUMENT)),
                };
                Content::Document { media_type, data, name: title.clone().or(name) }
            }
            Self::SearchResult { source, title, content, .. } => {
                let texts = content.iter().filter_map(|block| match block {
                    Self::Text { text } => Some(text.as_str()),
                    Self::Image { .. } | Self::Document { .. } | Self::SearchResult { .. } => None,
                });
                let texts: Vec<&str> = texts.collect();
                Content::text(format!("{title}\n{source}\n\n{}", texts.join("\n\n")))
            }
        })
    }
}

/// A block of the log, as clients read it.
pub(super) fn answer(content: &Content) -> Value {
    match content {
        Content::Text { text } => json!({"type": "text", "text": text}),
        Content::Image { media_type, data } => {
            json!({"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}})
        }
        Content::ImageUrl { url } => json!({"type": "image", "source": {"type": "url", "url": url}}),
        Content::Document { media_type, data, name } => {
            let text = || String::from_utf8(STANDARD.decode(data).ok()?).ok();
            let source = match (media_type == PLAIN_TEXT).then(text).flatten() {
                Some(text) => json!({"type": "text", "media_type": PLAIN_TEXT, "data": text}),
                None => json!({"type": "base64", "media_type": media_type, "data": data}),
            };
            json!({"type": "document", "source": source, "title": name, "context": null})
        }
    }
}

pub(super) fn answers(contents: &[Content]) -> Value {
    contents.iter().map(answer).collect()
}

const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];
const URL_DOCUMENT: &str = "documents by URL are not supported by this server";

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Image,
    Document,
    SearchResult,
    Redacted,
}

const KINDS: [(&str, Kind); 5] = [
    ("text", Kind::Text),
    ("image", Kind::Image),
    ("document", Kind::Document),
    ("search_result", Kind::SearchResult),
    ("redacted", Kind::Redacted),
];

pub(super) fn read_blocks(list: &Node<'_>, place: Place, can: Abilities) -> Result<Vec<Block>, Invalid> {
    list.list_up_to(MOST_BLOCKS)?.iter().map(|entry| read_block(entry, place, can)).collect()
}

fn read_block(entry: &Node<'_>, place: Place, can: Abilities) -> Result<Block, Invalid> {
    let fields = entry.object()?;
    let kind = fields.kind(&KINDS)?;
    match (kind, place) {
        (Kind::Text, _) => {
            let node = fields.need("text")?;
            match node.text()? {
                "" => Err(node.wrong("must not be empty")),
                text => Ok(Block::Text { text: text.to_owned() }),
            }
        }
        (_, Place::System) => Err(entry.wrong("must be a text block")),
        (Kind::Redacted, _) => Err(entry.wrong("redacted blocks cannot be sent")),
        (Kind::SearchResult, Place::Message) => Err(entry.wrong("search results belong into results of tools")),
        (Kind::Image, _) => Ok(Block::Image { source: read_source(&fields, Kind::Image, can)? }),
        (Kind::Document, _) => {
            fields.refuse("context", "the context of a document is")?;
            let title = fields.get("title").map(|node| node.text_of(0..=500)).transpose()?;
            Ok(Block::Document {
                source: read_source(&fields, Kind::Document, can)?,
                title: title.filter(|title| !title.is_empty()).map(str::to_owned),
            })
        }
        (Kind::SearchResult, Place::Result) => read_search_result(&fields),
    }
}

fn read_search_result(fields: &Object<'_>) -> Result<Block, Invalid> {
    let read_text = |entry: &Node<'_>| {
        let block = entry.object()?;
        block.kind(&[("text", ())])?;
        Ok(Block::Text { text: block.need("text")?.text()?.to_owned() })
    };
    let enabled = match fields.get("citations") {
        Some(node) => node.object()?.get("enabled").map_or(Ok(false), |node| node.boolean())?,
        None => false,
    };
    Ok(Block::SearchResult {
        source: fields.need("source")?.text()?.to_owned(),
        title: fields.need("title")?.text()?.to_owned(),
        content: fields.need("content")?.list_up_to(MOST_BLOCKS)?.iter().map(read_text).collect::<Result<_, _>>()?,
        citations: Citations { enabled },
    })
}

#[derive(Clone, Copy)]
enum SourceKind {
    Base64,
    Text,
    Url,
    File,
}

fn read_source(block: &Object<'_>, of: Kind, can: Abilities) -> Result<Source, Invalid> {
    let node = block.need("source")?;
    let fields = node.object()?;
    let kinds = [
        ("base64", SourceKind::Base64),
        ("text", SourceKind::Text),
        ("url", SourceKind::Url),
        ("file", SourceKind::File),
    ];
    match (fields.kind(&kinds)?, of) {
        (SourceKind::Base64, _) => {
            let media_type = fields.need("media_type")?;
            let name = media_type.text_of(1..=255)?;
            if matches!(of, Kind::Image) && !IMAGES.contains(&name) {
                return Err(media_type.wrong(format!("must be one of {}", IMAGES.join(", "))));
            }
            let data = fields.need("data")?;
            let text = data.text()?;
            if text.is_empty() || STANDARD.decode(text).is_err() {
                return Err(data.wrong("is not base64"));
            }
            Ok(Source::Base64 { media_type: name.to_owned(), data: text.to_owned() })
        }
        (SourceKind::Text, Kind::Document) => {
            fields.need("media_type")?.word(&[(PLAIN_TEXT, ())])?;
            let data = fields.need("data")?.text()?.to_owned();
            Ok(Source::Text { media_type: PLAIN_TEXT.to_owned(), data })
        }
        (SourceKind::Text, _) => Err(node.wrong("an image is no text")),
        (SourceKind::Url, Kind::Image) => {
            let url = fields.need("url")?;
            let text = url.text_of(1..=8_192)?;
            if !text.starts_with("https://") && !text.starts_with("http://") {
                return Err(url.wrong("must be an http or https URL"));
            }
            Ok(Source::Url { url: text.to_owned() })
        }
        (SourceKind::Url, _) => Err(node.wrong(URL_DOCUMENT)),
        (SourceKind::File, _) if !can.files => Err(node.unsupported("files in messages are")),
        (SourceKind::File, _) => Ok(Source::File { file_id: fields.need("file_id")?.text_of(1..=128)?.to_owned() }),
    }
}
