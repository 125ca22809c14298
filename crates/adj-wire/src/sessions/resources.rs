//! What is brought into a session's tree: files and repositories.

use crate::{
    abilities::Abilities,
    page,
    read::{Invalid, Node, Object},
    record::time,
};
use adj_domain::{Secret, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const MOST: usize = 500;
const UPLOADS: &str = "/mnt/session/uploads";

/// A resource that is asked for. Its token is for whoever clones, and is kept nowhere near the resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewResource {
    pub source: ResourceSource,
    pub mount_path: String,
    pub token: Option<Secret>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum ResourceSource {
    #[serde(rename = "file")]
    File { file_id: String },
    #[serde(rename = "github_repository")]
    Repository {
        url: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        checkout: Option<Checkout>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Checkout {
    Branch { name: String },
    Commit { sha: String },
}

/// A resource as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// `sesrsc_…`
    pub id: String,
    pub source: ResourceSource,
    pub mount_path: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Resource {
    pub fn answer(&self) -> Value {
        let mut answer = serde_json::to_value(&self.source).expect("a source is an object with string keys");
        if let ResourceSource::Repository { checkout: None, .. } = self.source {
            answer["checkout"] = Value::Null;
        }
        answer["id"] = self.id.clone().into();
        answer["mount_path"] = self.mount_path.clone().into();
        answer["created_at"] = time(self.created_at);
        answer["updated_at"] = time(self.updated_at);
        answer
    }

    /// What its deletion answers.
    pub fn deleted(id: &str) -> Value {
        page::deleted("session_resource_deleted", id)
    }
}

/// Reads the body of `POST /v1/sessions/{id}/resources`, which takes files only.
pub fn add_resource(body: &Value, can: Abilities) -> Result<NewResource, Invalid> {
    let resource = read_resource(&Node::root(body), can)?;
    match resource.source {
        ResourceSource::File { .. } => Ok(resource),
        ResourceSource::Repository { .. } => {
            Err(Invalid::new("type", "must be file: repositories come with the session"))
        }
    }
}

/// Reads the body of `POST /v1/sessions/{id}/resources/{id}`: a repository's new token.
pub fn rotate_token(body: &Value, can: Abilities) -> Result<Secret, Invalid> {
    let fields = Node::root(body).object()?;
    let node = fields.need("authorization_token")?;
    if !can.repositories {
        return Err(node.unsupported("repositories as resources are"));
    }
    read_token(&node)
}

pub(super) fn read_resources(list: &Node<'_>, can: Abilities) -> Result<Vec<NewResource>, Invalid> {
    let mut resources: Vec<NewResource> = Vec::new();
    for entry in list.list_up_to(MOST)? {
        let resource = read_resource(&entry, can)?;
        if resources.iter().any(|known| known.mount_path == resource.mount_path) {
            return Err(entry.wrong(format!("{:?} is taken by another resource", resource.mount_path)));
        }
        resources.push(resource);
    }
    Ok(resources)
}

#[derive(Clone, Copy)]
enum Kind {
    File,
    Repository,
    MemoryStore,
}

fn read_resource(entry: &Node<'_>, can: Abilities) -> Result<NewResource, Invalid> {
    let fields = entry.object()?;
    let kinds = [("file", Kind::File), ("github_repository", Kind::Repository), ("memory_store", Kind::MemoryStore)];
    match fields.kind(&kinds)? {
        Kind::MemoryStore => Err(entry.unsupported("memory stores are")),
        Kind::File if !can.files => Err(entry.unsupported("files as resources are")),
        Kind::Repository if !can.repositories => Err(entry.unsupported("repositories as resources are")),
        Kind::File => {
            let file_id = fields.need("file_id")?.text_of(1..=128)?.to_owned();
            let mount_path = read_mount_path(&fields)?.unwrap_or_else(|| format!("{UPLOADS}/{file_id}"));
            Ok(NewResource { source: ResourceSource::File { file_id }, mount_path, token: None })
        }
        Kind::Repository => {
            let node = fields.need("url")?;
            let url = node.text_of(1..=2_048)?;
            let name = repository_name(url)
                .ok_or_else(|| node.wrong("must be such as https://github.com/owner/repository"))?;
            let mount_path = read_mount_path(&fields)?.unwrap_or_else(|| format!("/workspace/{name}"));
            let checkout = fields.get("checkout").map(|node| read_checkout(&node)).transpose()?;
            let token = fields.get("authorization_token").map(|node| read_token(&node)).transpose()?;
            Ok(NewResource { source: ResourceSource::Repository { url: url.to_owned(), checkout }, mount_path, token })
        }
    }
}

/// The last part of the path of an https URL that holds no login.
fn repository_name(url: &str) -> Option<&str> {
    let (host, path) = url.strip_prefix("https://")?.split_once('/')?;
    let name = path.trim_end_matches('/').rsplit('/').next()?;
    let name = name.strip_suffix(".git").unwrap_or(name);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_host = !host.is_empty() && host.chars().all(|c| is_plain(c) || c == ':');
    let is_path = path.chars().all(|c| is_plain(c) || c == '/') && !path.split('/').any(|part| part == "..");
    let is_name = !name.is_empty() && name != "." && !name.starts_with('-');
    (is_host && is_path && is_name).then_some(name)
}

fn read_checkout(node: &Node<'_>) -> Result<Checkout, Invalid> {
    let fields = node.object()?;
    if fields.kind(&[("branch", true), ("commit", false)])? {
        let node = fields.need("name")?;
        let name = node.text_of(1..=255)?;
        // Nothing that git could take for an option.
        if name.starts_with('-') || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(node.wrong("is no branch's name"));
        }
        return Ok(Checkout::Branch { name: name.to_owned() });
    }
    let node = fields.need("sha")?;
    let sha = node.text_of(7..=64)?;
    if !sha.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(node.wrong("is no commit's hash"));
    }
    Ok(Checkout::Commit { sha: sha.to_owned() })
}

fn read_mount_path(fields: &Object<'_>) -> Result<Option<String>, Invalid> {
    let Some(node) = fields.get("mount_path") else { return Ok(None) };
    let path = node.text_of(1..=1_024)?;
    let is_part = |part: &str| !["", ".", ".."].contains(&part) && !part.chars().any(char::is_control);
    match path.strip_prefix('/') {
        Some(rest) if rest.trim_end_matches('/').split('/').all(is_part) => Ok(Some(path.to_owned())),
        _ => Err(node.wrong("must be an absolute path without . and ..")),
    }
}

fn read_token(node: &Node<'_>) -> Result<Secret, Invalid> {
    let text = node.text_of(1..=4_096)?;
    // The error's own words might show what it is.
    Secret::parse("authorization_token", text.to_owned()).map_err(|_| node.wrong("is no token"))
}

/// What the list of a session's resources is.
pub(super) fn answers(resources: &[Resource]) -> Value {
    json!(resources.iter().map(Resource::answer).collect::<Vec<_>>())
}
