//! The pairs that clients hang on resources, and how an update changes them.

use crate::{
    error::ErrorCode,
    read::{Change, Invalid, Node, Object},
};
use std::collections::BTreeMap;

pub type Metadata = BTreeMap<String, String>;

const MOST_PAIRS: usize = 16;
const LONGEST_KEY: usize = 64;
const LONGEST_VALUE: usize = 512;

/// What an empty text does to a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Empty {
    IsValue,
    Deletes,
}

/// Pairs to write, and (`None`) to delete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetadataPatch(BTreeMap<String, Option<String>>);

impl MetadataPatch {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn apply(&self, current: &Metadata) -> Result<Metadata, Invalid> {
        let mut metadata = current.clone();
        for (key, value) in &self.0 {
            match value {
                Some(value) => metadata.insert(key.clone(), value.clone()),
                None => metadata.remove(key),
            };
        }
        check_count(metadata.len(), "metadata")?;
        Ok(metadata)
    }
}

/// The pairs of a resource that is created.
pub(crate) fn read(body: &Object<'_>) -> Result<Metadata, Invalid> {
    let Some(node) = body.get("metadata") else { return Ok(Metadata::new()) };
    let pairs = node.object()?;
    let read = |(key, value): (&str, Node<'_>)| Ok((checked_key(key, &value)?, checked_value(&value)?));
    let metadata = pairs.entries().map(read).collect::<Result<Metadata, Invalid>>()?;
    check_count(metadata.len(), &node.path)?;
    Ok(metadata)
}

pub(crate) fn read_patch(body: &Object<'_>, empty: Empty) -> Result<MetadataPatch, Invalid> {
    let node = match body.change("metadata") {
        Change::Keep | Change::Clear => return Ok(MetadataPatch::default()),
        Change::Set(node) => node,
    };
    let pairs = node.object()?;
    let read = |(key, value): (&str, Node<'_>)| {
        let deletes = value.value.is_null() || (empty == Empty::Deletes && value.value == "");
        let written = if deletes { None } else { Some(checked_value(&value)?) };
        Ok((checked_key(key, &value)?, written))
    };
    Ok(MetadataPatch(pairs.entries().map(read).collect::<Result<_, Invalid>>()?))
}

fn checked_key(key: &str, value: &Node<'_>) -> Result<String, Invalid> {
    match key.chars().count() {
        1..=LONGEST_KEY => Ok(key.to_owned()),
        0 => Err(value.wrong("an empty key").with_code(ErrorCode::InvalidMetadata)),
        _ => {
            let outer = value.path.split('.').next().unwrap_or_default();
            let why = format!("a key may have {LONGEST_KEY} characters at most");
            Err(Invalid::new(outer, why).with_code(ErrorCode::InvalidMetadata))
        }
    }
}

fn checked_value(value: &Node<'_>) -> Result<String, Invalid> {
    let text = value.text_of(0..=LONGEST_VALUE).map_err(|invalid| invalid.with_code(ErrorCode::InvalidMetadata))?;
    Ok(text.to_owned())
}

fn check_count(count: usize, path: &str) -> Result<(), Invalid> {
    if count > MOST_PAIRS {
        let why = format!("has {count} pairs, and may have {MOST_PAIRS} at most");
        return Err(Invalid::new(path, why).with_code(ErrorCode::InvalidMetadata));
    }
    Ok(())
}
