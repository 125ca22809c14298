//! What the builder asks for: specialists, what each does, and who waits for whom.

use crate::id::StepId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A plan of specialists. One that exists is valid: names are unique, dependencies exist, and there is no cycle.
///
/// Fields that this build does not know are passed over, as in everything stored; what a builder may answer is said
/// more strictly by [`Blueprint::schema`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Draft", into = "Draft")]
pub struct Blueprint {
    summary: String,
    /// In an order in which each comes after what it depends on.
    specialists: Vec<Specialist>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Specialist {
    pub id: StepId,
    pub title: String,
    pub task: String,
    #[serde(default)]
    pub depends_on: Vec<StepId>,
    /// A command that checks this part alone, instead of the run's gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Draft {
    #[serde(default)]
    summary: String,
    specialists: Vec<Specialist>,
}

/// Why a blueprint cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlueprintError {
    #[error("there are no specialists")]
    Empty,
    #[error("two specialists are called \"{0}\"")]
    Duplicate(StepId),
    #[error("the name \"{0}\" belongs to the squad itself")]
    Reserved(StepId),
    #[error("\"{step}\" depends on \"{on}\", which does not exist")]
    UnknownDependency { step: StepId, on: StepId },
    #[error("these specialists wait for each other: {}", .0.iter().map(StepId::as_str).collect::<Vec<_>>().join(", "))]
    Cycle(Vec<StepId>),
}

impl TryFrom<Draft> for Blueprint {
    type Error = BlueprintError;

    fn try_from(mut draft: Draft) -> Result<Self, BlueprintError> {
        if draft.specialists.is_empty() {
            return Err(BlueprintError::Empty);
        }
        // Each dependency's report goes into the prompt: named a thousand times, it still goes there once.
        for specialist in &mut draft.specialists {
            let mut seen = BTreeSet::new();
            specialist.depends_on.retain(|on| seen.insert(on.clone()));
        }
        let mut names = BTreeSet::new();
        for specialist in &draft.specialists {
            if ["planner", "researcher", "builder", "combined"].contains(&specialist.id.as_str()) {
                return Err(BlueprintError::Reserved(specialist.id.clone()));
            }
            if !names.insert(specialist.id.clone()) {
                return Err(BlueprintError::Duplicate(specialist.id.clone()));
            }
        }
        for specialist in &draft.specialists {
            if let Some(on) = specialist.depends_on.iter().find(|on| !names.contains(on)) {
                return Err(BlueprintError::UnknownDependency { step: specialist.id.clone(), on: on.clone() });
            }
        }
        Ok(Self { summary: draft.summary, specialists: in_order(draft.specialists)? })
    }
}

impl From<Blueprint> for Draft {
    fn from(blueprint: Blueprint) -> Self {
        Self { summary: blueprint.summary, specialists: blueprint.specialists }
    }
}

/// Sorts by dependency, keeping the given order wherever it is free.
fn in_order(mut waiting: Vec<Specialist>) -> Result<Vec<Specialist>, BlueprintError> {
    let mut done = BTreeSet::new();
    let mut ordered = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        match waiting.iter().position(|specialist| specialist.depends_on.iter().all(|on| done.contains(on))) {
            Some(index) => {
                let specialist = waiting.remove(index);
                done.insert(specialist.id.clone());
                ordered.push(specialist);
            }
            None => {
                return Err(BlueprintError::Cycle(waiting.into_iter().map(|specialist| specialist.id).collect()));
            }
        }
    }
    Ok(ordered)
}

impl Blueprint {
    pub fn new(summary: impl Into<String>, specialists: Vec<Specialist>) -> Result<Self, BlueprintError> {
        Draft { summary: summary.into(), specialists }.try_into()
    }

    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// The specialists, each after those it depends on.
    pub fn specialists(&self) -> &[Specialist] {
        &self.specialists
    }

    /// The JSON Schema of a blueprint with at most `most` specialists.
    pub fn schema(most: u32) -> Value {
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Blueprint",
            "type": "object",
            "required": ["specialists"],
            "additionalProperties": false,
            "properties": {
                "summary": {"type": "string", "description": "One sentence: what will be built"},
                "specialists": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": most,
                    "items": {
                        "type": "object",
                        "required": ["id", "title", "task"],
                        "additionalProperties": false,
                        "properties": {
                            "id": {
                                "type": "string",
                                "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$",
                                "description": "A short name, unique in this blueprint"
                            },
                            "title": {"type": "string", "minLength": 1, "maxLength": 120},
                            "task": {
                                "type": "string",
                                "minLength": 1,
                                "description": "Everything the specialist has to know: files, behaviour, how it is tested"
                            },
                            "depends_on": {
                                "type": "array",
                                "items": {"type": "string"},
                                "description": "Names of specialists whose results this one builds on; none: it starts at once"
                            },
                            "check": {
                                "type": "string",
                                "description": "A shell command that checks this part alone, when the whole test cannot pass yet"
                            }
                        }
                    }
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_counts_once() {
        let text = r#"{"specialists":[{"id":"a","title":"t","task":"t"},
            {"id":"b","title":"t","task":"t","depends_on":["a","a","a"]}]}"#;
        let blueprint: Blueprint = serde_json::from_str(text).unwrap();
        assert_eq!(blueprint.specialists()[1].depends_on, ["a".parse().unwrap()]);
    }

    fn parse(text: &str) -> Result<Vec<String>, String> {
        serde_json::from_str::<Blueprint>(text)
            .map(|blueprint| blueprint.specialists().iter().map(|s| s.id.to_string()).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_blueprint_that_exists_can_be_carried_out() {
        let one = |id: &str, on: &str| format!(r#"{{"id":"{id}","title":"t","task":"t","depends_on":[{on}]}}"#);
        let cases = [
            (format!("[{},{}]", one("b", r#""a""#), one("a", "")), Ok("a b")),
            (format!("[{},{}]", one("a", ""), one("b", "")), Ok("a b")),
            (format!("[{},{}]", one("a", r#""b""#), one("b", r#""a""#)), Err("wait for each other: a, b")),
            (format!("[{}]", one("a", r#""a""#)), Err("wait for each other: a")),
            (format!("[{}]", one("a", r#""z""#)), Err("\"z\", which does not exist")),
            (format!("[{},{}]", one("a", ""), one("a", "")), Err("two specialists are called \"a\"")),
            (format!("[{}]", one("builder", "")), Err("belongs to the squad itself")),
            (format!("[{}]", one("../x", "")), Err("is not a step name")),
            ("[]".to_owned(), Err("no specialists")),
        ];
        for (specialists, expected) in cases {
            let found = parse(&format!(r#"{{"specialists":{specialists}}}"#));
            match expected {
                Ok(order) => assert_eq!(found.map(|ids| ids.join(" ")), Ok(order.to_owned()), "{specialists}"),
                Err(part) => assert!(found.as_ref().is_err_and(|e| e.contains(part)), "{specialists}: {found:?}"),
            }
        }
    }
}
