//! All layers together: loading them, and what they agree on.

use crate::{
    PolicyError,
    files::{Trust, load},
    layer::{Layer, LayerKind},
    limits::{Limit, LimitValue, Written},
    settings::{Said, Settings},
};
use adj_domain::{ApprovalPolicy, Limit as Budget, Ruling, SandboxMode, Span, Unit, Verdict};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt::Display,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Where the layers lie that hold for every session on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Holds `requirements.toml` and `rules/`.
    pub administrator: PathBuf,
    /// Who has to own the administrator's files.
    pub administrator_owner: u32,
    /// Holds `policy.toml` and `rules/`.
    pub organisation: Option<PathBuf>,
}

impl Sources {
    /// `/etc/adjutant`, owned by root, and the user's own folder of settings.
    pub fn of_machine(organisation: Option<PathBuf>) -> Self {
        Self { administrator: PathBuf::from("/etc/adjutant"), administrator_owner: 0, organisation }
    }
}

/// What is allowed. A decision is the strictest of what its layers say, so that one more layer never allows more.
///
/// Two things spare somebody a question, and nothing else does: an `allow` rule or `always_allow` of a trusted layer (and of the agent's
/// definition) answers the approval policy's question, never another layer's; a grant answers any question. Neither lifts a denial.
#[derive(Debug, Clone)]
pub struct Policy {
    layers: Arc<[Layer]>,
}

/// A path or glob that the sandbox masks or protects, and who says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathRule {
    pub pattern: String,
    pub layer: LayerKind,
    pub file: Option<String>,
    pub line: Option<u32>,
}

/// The least that anybody permits of something, and who that is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EffectiveLimit {
    pub limit: Limit,
    pub value: LimitValue,
    pub layer: LayerKind,
    pub file: Option<String>,
    pub line: Option<u32>,
}

/// The least that anybody lets be spent, and who that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveBudget {
    pub span: Span,
    pub budget: Budget,
    pub layer: LayerKind,
    pub file: Option<String>,
    pub line: Option<u32>,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Policy {
    /// What holds where nobody says anything.
    pub fn built_in() -> Self {
        let settings = Settings {
            expire_approvals_after: Some(DAY.into()),
            longest_grant: Some((DAY * 30).into()),
            ..Settings::default()
        };
        Self { layers: Arc::new([Layer::new(LayerKind::BuiltIn, settings)]) }
    }

    /// Loads what the administrator and the organisation say.
    pub fn load(sources: &Sources) -> Result<Self, PolicyError> {
        let owner = Trust::Owner(sources.administrator_owner);
        let administrator = load(LayerKind::Administrator, &sources.administrator, &[], "requirements.toml", owner)?;
        let organisation = match &sources.organisation {
            Some(folder) => load(LayerKind::Organisation, folder, &[], "policy.toml", Trust::User)?,
            None => None,
        };
        Ok(administrator.into_iter().chain(organisation).fold(Self::built_in(), |policy, layer| policy.with(layer)))
    }

    /// Adds what the repository says that is worked on, in its `.adjutant` folder.
    pub fn with_repository(&self, root: &Path) -> Result<Self, PolicyError> {
        let layer = load(LayerKind::Repository, root, &[".adjutant"], "policy.toml", Trust::Stranger)?;
        Ok(layer.map_or_else(|| self.clone(), |layer| self.with(layer)))
    }

    /// Adds what the repository of a folder says there and in the folders above, up to its top: each may narrow what is done in it.
    pub fn with_folder(&self, folder: &Path) -> Result<Self, PolicyError> {
        let top = folder.ancestors().find(|above| above.join(".git").exists()).unwrap_or(folder);
        let folders = folder.ancestors().take_while(|above| above.starts_with(top));
        folders.into_iter().try_fold(self.clone(), |policy, folder| policy.with_repository(folder))
    }

    /// Adds a layer, in its place.
    pub fn with(&self, layer: Layer) -> Self {
        let mut layers = self.layers.to_vec();
        layers.push(layer);
        layers.sort_by_key(|layer| layer.kind);
        Self { layers: layers.into() }
    }

    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Whether commands may run in this mode at all.
    pub fn mode(&self, asked: SandboxMode) -> Ruling {
        let denied = self.refusal("allowed_sandbox_modes", asked, |settings| settings.allowed_sandbox_modes.as_ref());
        denied.unwrap_or_else(|| Ruling::new(Verdict::Allow, "built-in", format!("sandbox {asked}")))
    }

    /// The approval policy that holds: the one asked for where it is permitted; `untrusted` instead of `on-request`, because it allows less.
    ///
    /// Nothing else takes the place of what is not permitted: the ruling is a denial then, and nothing is to be started.
    pub fn approval(&self, asked: ApprovalPolicy) -> (ApprovalPolicy, Ruling) {
        let refusal = |asked| {
            self.refusal("allowed_approval_policies", asked, |settings| settings.allowed_approval_policies.as_ref())
        };
        let stricter = ApprovalPolicy::Untrusted;
        match refusal(asked) {
            None => (asked, Ruling::new(Verdict::Allow, "built-in", format!("approval policy {asked}"))),
            Some(ruling) if asked == ApprovalPolicy::OnRequest && refusal(stricter).is_none() => {
                let rule = format!("{}, so {stricter} holds", ruling.rule);
                (stricter, Ruling { verdict: Verdict::Allow, rule, ..ruling })
            }
            Some(ruling) => (asked, ruling),
        }
    }

    /// Whether a secret may stand in for its placeholder.
    pub fn secret(&self, name: &str) -> Ruling {
        let denied = self.refusal("secrets.allowed", name.to_owned(), |settings| settings.allowed_secrets.as_ref());
        denied.unwrap_or_else(|| Ruling::new(Verdict::Allow, "built-in", format!("secret {name}")))
    }

    /// The limits that anybody sets, each at its lowest.
    pub fn limits(&self) -> Vec<EffectiveLimit> {
        let lowest = |limit: Limit| {
            let said = |layer: &'_ Layer| layer.settings.limits.get(&limit).map(|said| said.value);
            let layer = self.layers.iter().filter(|layer| said(layer).is_some()).min_by_key(|layer| said(layer))?;
            let said = layer.settings.limits.get(&limit)?;
            let Ruling { file, line, .. } = layer.ruling(Verdict::Allow, said.line, "");
            Some(EffectiveLimit { limit, value: said.value, layer: layer.kind, file, line })
        };
        Limit::ALL.into_iter().filter_map(lowest).collect()
    }

    /// What anybody lets be spent at most, each at its lowest.
    pub fn budgets(&self) -> Vec<EffectiveBudget> {
        let mut lowest: BTreeMap<(Span, Unit), EffectiveBudget> = BTreeMap::new();
        for layer in self.layers.iter() {
            for (span, said) in &layer.settings.budget {
                for budget in &said.value {
                    let Ruling { file, line, .. } = layer.ruling(Verdict::Allow, said.line, "");
                    let one = EffectiveBudget { span: *span, budget: budget.clone(), layer: layer.kind, file, line };
                    let kept = lowest.entry((*span, budget.unit.clone())).or_insert_with(|| one.clone());
                    if one.budget.amount < kept.budget.amount {
                        *kept = one;
                    }
                }
            }
        }
        lowest.into_values().collect()
    }

    /// What is masked inside.
    pub fn hidden(&self) -> Vec<PathRule> {
        self.patterns(|settings| &settings.hidden)
    }

    /// What cannot be changed inside.
    pub fn readonly(&self) -> Vec<PathRule> {
        self.patterns(|settings| &settings.readonly)
    }

    fn patterns(&self, of: impl Fn(&Settings) -> &Vec<Said<String>>) -> Vec<PathRule> {
        let rules = self.layers.iter().flat_map(|layer| {
            of(&layer.settings).iter().map(|said| {
                let Ruling { file, line, .. } = layer.ruling(Verdict::Deny, said.line, "");
                PathRule { pattern: said.value.clone(), layer: layer.kind, file, line }
            })
        });
        rules.collect()
    }

    /// How long a question waits for its answer.
    pub fn expire_approvals_after(&self) -> Duration {
        self.shortest(|settings| settings.expire_approvals_after.as_ref())
    }

    /// How long a remembered permission may hold; zero where none may be.
    pub fn longest_grant(&self) -> Duration {
        self.shortest(|settings| settings.longest_grant.as_ref())
    }

    fn shortest(&self, of: impl Fn(&Settings) -> Option<&Said<Duration>>) -> Duration {
        let said = self.layers.iter().filter_map(|layer| of(&layer.settings));
        said.map(|said| said.value).min().unwrap_or_default()
    }

    pub(crate) fn refusal<T: PartialEq + Display>(
        &self,
        key: &str,
        asked: T,
        of: impl Fn(&Settings) -> Option<&Said<Vec<T>>>,
    ) -> Option<Ruling> {
        self.layers.iter().find_map(|layer| {
            let said = of(&layer.settings)?;
            (!said.value.contains(&asked)).then(|| refused(layer, key, &asked, said))
        })
    }

    /// A fingerprint of everything that decides. Comments, justifications and the order of lists do not count in policy files;
    /// a file of rules counts as its text.
    pub fn hash(&self) -> String {
        let mut layers: Vec<String> = self.layers.iter().filter_map(fingerprint).collect();
        layers.sort_unstable();
        let mut hasher = blake3::Hasher::new_derive_key("adjutant 2026 policy v1");
        for layer in layers {
            hasher.update(&(layer.len() as u64).to_le_bytes());
            hasher.update(layer.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

fn refused<T: Display>(layer: &Layer, key: &str, asked: &T, said: &Said<Vec<T>>) -> Ruling {
    let listed: Vec<String> = said.value.iter().take(20).map(T::to_string).collect();
    let asked = crate::document::shown(&asked.to_string());
    let rule = format!("{key}: {asked} is not one of [{}]", listed.join(", "));
    layer.ruling(Verdict::Deny, said.line, rule)
}

/// One layer in a spelling that is the same whenever its decisions are; `None` where it says nothing.
fn fingerprint(layer: &Layer) -> Option<String> {
    let settings = Settings { budget: BTreeMap::new(), ..layer.settings.clone() };
    if settings == Settings::default() && layer.rule_files.is_empty() {
        return None;
    }
    let mut settings = serde_json::to_value(&settings).expect("settings are plain data with texts as keys");
    if let Some(keys) = settings.as_object_mut() {
        keys.values_mut().for_each(in_order);
    }
    let mut rules: Vec<&str> = layer.rule_files.iter().map(|file| file.hash.as_str()).collect();
    rules.sort_unstable();
    // Two layers of one kind that say things apart decide as one that says both, except where lists are ceilings; so they stay apart.
    Some(serde_json::json!([layer.kind, settings, rules]).to_string())
}

/// Every list at the top is a set.
fn in_order(value: &mut serde_json::Value) {
    if let Some(items) = value.as_array_mut() {
        items.sort_by_cached_key(serde_json::Value::to_string);
        items.dedup();
    }
}

impl Display for PathRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.pattern, self.layer)
    }
}

/// A time in the spelling of policy files.
pub(crate) fn written(time: Duration) -> String {
    Written(time).to_string()
}
