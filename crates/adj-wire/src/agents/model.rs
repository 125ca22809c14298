//! Which model an agent uses, and how hard it thinks.

use crate::read::{Invalid, Node};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A model as the client names it; whoever serves the request finds it in the gateway's catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<Effort>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    Low,
    Medium,
    High,
    #[serde(rename = "xhigh")]
    ExtraHigh,
    Max,
}

impl Effort {
    pub const ALL: [Self; 5] = [Self::Low, Self::Medium, Self::High, Self::ExtraHigh, Self::Max];

    /// The word that the gateway takes too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::ExtraHigh => "xhigh",
            Self::Max => "max",
        }
    }
}

impl Model {
    /// A name alone, or an object.
    pub(super) fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        if node.value.is_string() {
            return Ok(Self { id: read_id(node)?, effort: None });
        }
        let fields = node.object()?;
        if let Some(speed) = fields.get("speed")
            && !speed.word(&[("standard", true), ("fast", false)])?
        {
            return Err(speed.unsupported("fast inference is"));
        }
        fields.refuse("inference_geo", "a region for inference is")?;
        let words = Effort::ALL.map(|effort| (effort.as_str(), effort));
        let effort = fields.get("effort").map(|effort| match effort.value {
            Value::Object(_) => effort.object()?.kind(&words),
            _ => effort.word(&words),
        });
        Ok(Self { id: read_id(&fields.need("id")?)?, effort: effort.transpose()? })
    }

    /// The effort is always there: where nobody chose one, it is the vendors' own.
    pub(super) fn answer(&self) -> Value {
        let effort = self.effort.unwrap_or(Effort::High);
        json!({
            "id": self.id,
            "effort": {"type": effort.as_str()},
            "speed": "standard",
            "inference_geo": null,
        })
    }
}

fn read_id(node: &Node<'_>) -> Result<String, Invalid> {
    let id = node.text_of(1..=256)?;
    if id.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(node.wrong("is not a model's name"));
    }
    Ok(id.to_owned())
}
