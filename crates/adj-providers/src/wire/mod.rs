//! The vendors' own protocols, one module each: a pure encoder and a decoder.

pub mod anthropic;
pub mod chat;
pub mod gemini;
pub mod openai;

/// A request in a vendor's own words, without address and credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The path below the vendor's base URL, with its query if it needs one.
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Encoded {
    fn new(path: impl Into<String>, body: &serde_json::Value) -> Self {
        let headers = vec![("content-type", "application/json".to_owned()), ("accept", "text/event-stream".to_owned())];
        Self { path: path.into(), headers, body: body.to_string().into_bytes() }
    }
}

/// Returns a reasoning record, if this vendor and model may see it.
fn own_reasoning<'a>(item: &'a adj_domain::Item, request: &adj_domain::ModelRequest) -> Option<&'a serde_json::Value> {
    match item {
        adj_domain::Item::Reasoning { vendor, model, payload }
            if *vendor == request.model.vendor && *model == request.model.name =>
        {
            Some(payload)
        }
        _ => None,
    }
}

/// Whether an item is reasoning that led to nothing (the answer was cut while the model thought): vendors refuse to see it
/// without what it led to.
fn is_loose_reasoning(items: &[adj_domain::Item], place: usize) -> bool {
    use adj_domain::Item;
    let mut rest = items[place..].iter().skip_while(|item| matches!(item, Item::Reasoning { .. }));
    matches!(items[place], Item::Reasoning { .. })
        && !matches!(rest.next(), Some(Item::Assistant { .. } | Item::ToolCall { .. }))
}

/// Asks in words for an answer that fits a schema, where a vendor cannot be told of it in any other way.
fn schema_in_words(schema: &serde_json::Value) -> String {
    format!("\n\nYour last message must be one JSON value, and nothing else, that fits this JSON Schema: {schema}")
}

/// A call's input as vendors take it back: always an object, even where the model wrote something else.
fn object_input(input: &serde_json::Value) -> serde_json::Value {
    if input.is_object() { input.clone() } else { serde_json::json!({"input": input}) }
}

/// What was asked for and this wire has no words for: it is refused, never dropped.
fn not_expressible(what: &str, request: &adj_domain::ModelRequest) -> crate::ProviderError {
    let message = format!("the model {} cannot be asked for {what}: its vendor's API has no such field", request.model);
    crate::ProviderError::new(adj_domain::FailureKind::InvalidRequest, message)
}

/// The text of a document that is no more than text.
fn plain_text(data: &str) -> Result<String, crate::ProviderError> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(data).ok();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| {
        let message = "a document of plain text is not base64 of UTF-8";
        crate::ProviderError::new(adj_domain::FailureKind::InvalidRequest, message)
    })
}
