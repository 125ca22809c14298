//! Random neutral requests, for what must come back from a wire as it was.

use adj_domain::{
    AnswerBlock, Caller, Content, EventId, Item, ModelRequest, Purpose, Sampling, SessionId, ToolChoice, ToolSpec,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A small generator (SplitMix64), so that a failing case can be repeated.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((bits ^ (bits >> 31)) % bound as u64) as usize
    }

    fn text(&mut self) -> String {
        let words = ["make", " \"all\"", "\n", "🦀", "é\\u00e9", "</system-reminder>", "\t", "data: x"];
        let text = (0..=self.below(6)).map(|_| words[self.below(words.len())]).collect::<String>();
        format!("x{text}")
    }

    fn contents(&mut self) -> Vec<Content> {
        let mut contents = Vec::new();
        for _ in 0..=self.below(3) {
            contents.push(match self.below(5) {
                0 => Content::Image { media_type: "image/png".to_owned(), data: "aGk=".to_owned() },
                1 => Content::ImageUrl { url: "https://example.com/a.png".to_owned() },
                2 => {
                    Content::Document { media_type: "application/pdf".to_owned(), data: "aGk=".to_owned(), name: None }
                }
                3 => Content::Document {
                    media_type: "text/plain".to_owned(),
                    data: "aGk=".to_owned(),
                    name: Some(self.text()),
                },
                _ => Content::Text { text: self.text() },
            });
        }
        contents
    }

    pub(super) fn request(&mut self) -> ModelRequest {
        let mut items = vec![Item::User { content: self.contents() }];
        for turn in 0..self.below(4) {
            if self.below(2) == 0 {
                items.push(Item::Assistant { text: self.text() });
            }
            let calls = (0..=self.below(3)).map(|call| EventId::derive(&[&turn.to_string(), &call.to_string()]));
            let calls = calls.collect::<Vec<_>>();
            for id in &calls {
                let input = json!({"command": self.text(), "deep": [{"n": self.below(99)}]});
                items.push(Item::ToolCall { id: id.clone(), name: "bash".to_owned(), input });
            }
            for call in calls {
                let is_error = self.below(3) == 0;
                let content = if is_error { vec![Content::Text { text: self.text() }] } else { self.contents() };
                items.push(Item::ToolResult { call, content, is_error });
            }
            if self.below(2) == 0 {
                items.push(Item::User { content: self.contents() });
            }
        }
        let schema = json!({"type": "object", "properties": {"command": {"type": "string"}}});
        let tool = |name: &str| ToolSpec {
            name: name.to_owned(),
            description: "Runs.".to_owned(),
            input_schema: schema.clone(),
        };
        let tool_choice = match self.below(4) {
            0 => ToolChoice::None,
            1 => ToolChoice::Required,
            2 => ToolChoice::Tool("bash".to_owned()),
            _ => ToolChoice::Auto,
        };
        let sampling = Sampling {
            single_call: tool_choice != ToolChoice::None && self.below(2) == 0,
            tool_choice,
            temperature: (self.below(2) == 0).then_some(0.25),
            top_p: (self.below(2) == 0).then_some(0.5),
            top_k: (self.below(2) == 0).then_some(7),
            stop: vec![self.text(); self.below(3)],
        };
        ModelRequest {
            model: "vendor/claude-x".parse().expect("it names a model"),
            purpose: Purpose::Step,
            caller: caller(),
            system: if self.below(3) == 0 { String::new() } else { self.text() },
            items,
            tools: vec![tool("bash"), tool("read")],
            max_output_tokens: 1 + self.below(9000) as u32,
            output_schema: None,
            effort: None,
            sampling,
        }
    }
}

impl Random {
    /// An answer as models give them: thoughts, a text, and then calls with thoughts before them.
    pub(super) fn answer(&mut self) -> Vec<AnswerBlock> {
        let mut blocks = Vec::new();
        let thoughts = |random: &mut Self, blocks: &mut Vec<AnswerBlock>| {
            for _ in 0..random.below(3) {
                blocks
                    .push(AnswerBlock::Reasoning { payload: json!({"thinking": random.text(), "signature": "s+/="}) });
            }
        };
        thoughts(self, &mut blocks);
        if self.below(3) > 0 {
            blocks.push(AnswerBlock::Text { text: self.text() });
        }
        for number in 0..=self.below(3) {
            thoughts(self, &mut blocks);
            let input = Ok(json!({"command": self.text()}));
            blocks.push(AnswerBlock::ToolCall { vendor_call_id: number.to_string(), name: "bash".to_owned(), input });
        }
        blocks
    }
}

fn caller() -> Caller {
    Caller {
        run: None,
        session: SessionId::derive(&["s"]),
        agent: "external".to_owned(),
        role: "external".to_owned(),
        turn: 1,
        step: 0,
    }
}

/// Our ids are made of the caller's; here both are ours, so they are numbered instead.
pub(super) fn numbered(request: &mut ModelRequest) {
    let mut numbers = BTreeMap::new();
    for item in &mut request.items {
        let (Item::ToolCall { id, .. } | Item::ToolResult { call: id, .. }) = item else { continue };
        let next = numbers.len();
        let number = *numbers.entry(id.clone()).or_insert(next);
        *id = EventId::derive(&[&number.to_string()]);
    }
    request.caller = caller();
}

/// Puts something else into some place.
pub(super) fn disturb(value: &mut Value, random: &mut Random) {
    let stranger =
        || [json!(null), json!(-1), json!("x"), json!([]), json!({}), json!([{"type": "text"}]), json!(1e300)];
    if random.below(4) == 0 {
        *value = stranger()[random.below(7)].clone();
        return;
    }
    match value {
        Value::Array(list) if !list.is_empty() => {
            let place = random.below(list.len());
            disturb(&mut list[place], random);
        }
        Value::Object(map) if !map.is_empty() => {
            let place = random.below(map.len());
            if let Some((_, held)) = map.iter_mut().nth(place) {
                disturb(held, random);
            }
        }
        other => *other = stranger()[random.below(7)].clone(),
    }
}
