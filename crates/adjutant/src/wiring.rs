//! Puts the rooms together: where the state is, which models there are, one engine.

use crate::{
    cassettes::{self, Vendors},
    cli::ModelArgs,
    failure::{Code, Failure, Result},
    settings::{UserSettings, VaultKey},
};
use adj_client::Start;
use adj_domain::{Event, LogId, ModelRef, Run, RunId, SandboxMode, Session, SessionId};
use adj_engine::{Engine, Parts, Upstream};
use adj_gateway::{
    Arrangements, Catalogue, Failover, Gateway, RetryPolicy,
    arrangements::{AccountEntry, ROUTE},
    endpoint::HomeRoute,
    failover::MOST_TARGETS,
};
use adj_policy::{Policy, Sources};
use adj_providers::{Account, Provider, Recorder, Script, Settings};
use adj_sandbox::Launcher;
use adj_store::{NodeId, SqliteStore, Store};
use adj_vault::{KeyError, KeySource, Keys, SystemKeyring, Vault, VaultError};
use adj_workspace::Layout;
use anyhow::Context;
use etcetera::BaseStrategy;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// The folder of all state: `ADJUTANT_HOME`, or `adjutant` in the XDG state directory.
pub fn state_dir() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("ADJUTANT_HOME").filter(|home| !home.is_empty()) {
        let home = PathBuf::from(home);
        return Ok(std::path::absolute(&home).with_context(|| format!("cannot use {}", home.display()))?);
    }
    let xdg = etcetera::base_strategy::Xdg::new()
        .map_err(|error| Failure::usage(error).hint("set ADJUTANT_HOME to a folder for the state"))?;
    let state = xdg.state_dir().expect("the XDG strategy has a state directory");
    Ok(state.join("adjutant"))
}

/// The user's home, if there is one.
pub fn home_dir() -> Option<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute())
}

/// Opens the store for writing.
pub fn open_store(state: &Path) -> Result<Arc<SqliteStore>> {
    let store = SqliteStore::open(state)?;
    crash_after(&store);
    Ok(Arc::new(store))
}

/// Opens the store for looking only.
pub fn open_store_read_only(state: &Path) -> Result<Arc<SqliteStore>> {
    match SqliteStore::open_read_only(state) {
        Ok(store) => Ok(Arc::new(store)),
        Err(error @ adj_store::OpenError::Missing { .. }) => {
            Err(Failure::usage(error).hint("nothing was run yet; `adjutant run --demo` is a start"))
        }
        Err(error) => Err(error.into()),
    }
}

/// For crash tests: `ADJUTANT_CRASH_AFTER=N` kills this process right after its N-th durable write.
fn crash_after(store: &SqliteStore) {
    let wanted = std::env::var("ADJUTANT_CRASH_AFTER").ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(wanted) = wanted {
        store.set_after_commit(Box::new(move |written| {
            if written >= wanted {
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            }
        }));
    }
}

/// Which models can be called, and which one is meant.
#[derive(Debug)]
pub struct Models {
    pub gateway: Gateway,
    pub model: ModelRef,
    /// Writes down what is asked and answered, if that is wanted.
    pub recorder: Option<Recorder>,
}

/// Chooses the model: the command line, then `ADJUTANT_MODEL`, then the settings file, then whichever key is in the environment.
/// With `--replay` no vendor is needed. `folder` is what is worked on, `fallbacks` is who answers if the model does not.
pub fn models(args: &ModelArgs, fallbacks: &[ModelRef], folder: &Path) -> Result<Models> {
    let arrangements = own_arrangements()?;
    if let Some(player) = cassettes::player(&args.cassette, folder)? {
        let model = args.model.clone().unwrap_or_else(|| player.model().clone());
        let failover = failover(&arrangements, &model, fallbacks)?;
        let mut vendors = player.providers();
        for target in &failover.targets {
            if !vendors.iter().any(|(vendor, _)| *vendor == target.vendor) {
                vendors.push((target.vendor.clone(), Arc::new(player.clone())));
            }
        }
        let gateway = new_gateway(&arrangements, vendors)?.with_failover(&model, failover);
        return Ok(Models { gateway, model, recorder: None });
    }
    let user = UserSettings::load()?;
    let settings = settings(&arrangements)?;
    let model = match args.model.clone() {
        Some(model) => Some(model),
        None => model_from_env()?.or(user.model).or_else(|| settings.default_model()),
    };
    let Some(model) = model else {
        return Err(Failure::usage("no model is configured").hint(format!(
            "there are three ways out (`adjutant run --demo` needs none of them):\n  \
             - name one: --model vendor/name, or ADJUTANT_MODEL\n  \
             - put a vendor's key or address into the environment: ANTHROPIC_API_KEY, OPENAI_API_KEY,\n    \
             GEMINI_API_KEY, OPENAI_COMPATIBLE_BASE_URL, OLLAMA_HOST …\n  \
             - write model = \"vendor/name\" into {}",
            crate::settings::path().map_or_else(|| "the settings file".to_owned(), |path| path.display().to_string())
        )));
    };
    let failover = failover(&arrangements, &model, fallbacks)?;
    let mut providers = settings.providers();
    match args.playbook.clone().or(user.playbook) {
        Some(path) => providers.push(("scripted".to_owned(), load_script(&path, folder)?)),
        None if failover.targets.iter().any(|target| target.vendor == "scripted") => {
            return Err(Failure::usage(format!("the model {model} plays a playbook, and none was named"))
                .hint("name one with --playbook FILE (or ADJUTANT_PLAYBOOK)"));
        }
        None => {}
    }
    for target in &failover.targets {
        if providers.iter().any(|(vendor, _)| *vendor == target.vendor) {
            continue;
        }
        let account = arrangements.accounts.iter().find(|account| account.name == target.vendor);
        let hint = match account.and_then(|account| account.key_env.as_deref()) {
            Some(variable) => format!("put the account's key into {variable}"),
            None => vendor_hint(&target.vendor),
        };
        return Err(Failure::usage(format!(
            "no key and no address in the environment for {}, the vendor of the model {target}",
            target.vendor
        ))
        .hint(hint));
    }
    let recorder = cassettes::record(&args.cassette, &model, folder, &mut providers, &settings.keys())?;
    let gateway = new_gateway(&arrangements, providers)?.with_failover(&model, failover);
    let gateway = settings.local_vendors().fold(gateway, Gateway::free);
    let gateway = user.subscriptions.into_iter().fold(gateway, Gateway::on_quota);
    Ok(Models { gateway, model, recorder })
}

/// Every vendor that is set up, for those who do not know yet which models they will be asked for.
#[derive(Debug)]
pub struct Callable {
    pub gateway: Gateway,
    /// The model to take where none is named, if its vendor is set up.
    pub default: Option<ModelRef>,
}

/// What can be called from here. Nothing needs to be set up: then nothing can be.
pub fn callable(folder: &Path) -> Result<Callable> {
    let arrangements = own_arrangements()?;
    let user = UserSettings::load()?;
    let settings = settings(&arrangements)?;
    let mut providers = settings.providers();
    let playbook = std::env::var_os("ADJUTANT_PLAYBOOK").filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(path) = playbook.or(user.playbook) {
        providers.push(("scripted".to_owned(), load_script(&path, folder)?));
    }
    let default = model_from_env()?.or(user.model).or_else(|| settings.default_model());
    let default = default.filter(|model| providers.iter().any(|(vendor, _)| *vendor == model.vendor));
    let mut gateway = new_gateway(&arrangements, providers)?;
    for (name, route) in &arrangements.routes {
        let asked = ModelRef { vendor: ROUTE.to_owned(), name: name.clone() };
        gateway = gateway.with_failover(&asked, route.clone());
    }
    let gateway = settings.local_vendors().fold(gateway, Gateway::free);
    let gateway = user.subscriptions.into_iter().fold(gateway, Gateway::on_quota);
    Ok(Callable { gateway, default })
}

/// The private folder of the state folder's daemon: its seat, its socket, its tokens, its log.
pub fn daemon_folder(state: &Path) -> PathBuf {
    state.join("daemon")
}

/// How the daemon of a state folder is started, with these flags. It takes this process's environment with it.
pub fn daemon_start(state: &Path, flags: Vec<String>) -> Result<Start> {
    let words = ["daemon".to_owned(), "--detached".to_owned()].into_iter().chain(flags);
    let mut environment = vec![("ADJUTANT_HOME".into(), state.as_os_str().to_owned())];
    // It stands elsewhere.
    if let Some(playbook) = std::env::var_os("ADJUTANT_PLAYBOOK").filter(|path| !path.is_empty()) {
        environment.push(("ADJUTANT_PLAYBOOK".into(), std::path::absolute(playbook)?.into_os_string()));
    }
    Ok(Start {
        program: std::env::current_exe()?,
        arguments: words.map(Into::into).collect(),
        environment,
        patience: Duration::from_secs(15),
    })
}

/// A gateway to these vendors that knows what the user says of models and accounts.
fn new_gateway(arrangements: &Arrangements, vendors: Vendors) -> Result<Gateway> {
    let mut gateway = Gateway::new(RetryPolicy::default());
    if let Some(catalogue) = own_catalogue()? {
        gateway = gateway.knowing(catalogue);
    }
    for (name, provider) in vendors {
        let limits = arrangements.limits(&name);
        gateway = gateway.with_limits(name, provider, limits);
    }
    for account in &arrangements.accounts {
        if let Some(vendor) = &account.vendor {
            gateway = gateway.priced_as(&account.name, vendor);
        }
    }
    Ok(gateway)
}

/// The models that answer, one after the other.
fn failover(arrangements: &Arrangements, model: &ModelRef, fallbacks: &[ModelRef]) -> Result<Failover> {
    let mut failover = match (model.vendor.as_str(), arrangements.routes.get(&model.name)) {
        (ROUTE, Some(route)) => route.clone(),
        (ROUTE, None) => {
            let known: Vec<&str> = arrangements.routes.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Failure::usage(format!("there is no route named {} (there are: {known})", model.name))
                .hint("a route is [[route]] with name and targets in models.toml beside the settings file"));
        }
        _ => Failover::to(vec![model.clone()]),
    };
    for fallback in fallbacks {
        if fallback.vendor == ROUTE {
            return Err(Failure::usage(format!("--fallback {fallback}: a route has fallbacks and is none")));
        }
        if !failover.targets.contains(fallback) {
            failover.targets.push(fallback.clone());
        }
    }
    if failover.targets.len() > MOST_TARGETS {
        return Err(Failure::usage(format!("more than {MOST_TARGETS} models one after the other")));
    }
    Ok(failover)
}

/// The vendors out of the environment, and the accounts out of the user's file.
pub fn settings(arrangements: &Arrangements) -> Result<Settings> {
    let lookup = |name: &str| std::env::var(name).ok();
    let mut settings = Settings::from_env(&lookup).map_err(Failure::usage)?;
    for account in &arrangements.accounts {
        let AccountEntry { name, vendor, wire, base_url, key_env, limits: _ } = account;
        let account = Account {
            name,
            vendor: vendor.as_deref(),
            wire: *wire,
            base_url: base_url.as_deref(),
            key_env: key_env.as_deref(),
        };
        settings.add(account, &lookup).map_err(Failure::usage)?;
    }
    Ok(settings)
}

/// What the user's file says of accounts and routes.
pub fn own_arrangements() -> Result<Arrangements> {
    let Some((text, file)) = own_models_file()? else { return Ok(Arrangements::default()) };
    Arrangements::parse(&text, &file).map_err(|error| {
        Failure::usage(error).hint(
            "an account is [[account]] with name, vendor and key_env = \"VARIABLE\"; a route is [[route]] with name and \
             targets = [\"vendor/model\", …]",
        )
    })
}

fn own_models_file() -> Result<Option<(String, String)>> {
    let Some(path) = crate::settings::models_path() else { return Ok(None) };
    let file = path.display().to_string();
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((text, file))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::unusable(error, format_args!("cannot read {file}"))),
    }
}

/// The catalogue of models with what the user's file says before it, if there is one.
pub fn own_catalogue() -> Result<Option<Catalogue>> {
    let Some((text, file)) = own_models_file()? else { return Ok(None) };
    Catalogue::builtin().with(&text, &file).map(Some).map_err(|error| {
        Failure::usage(error).hint(
            "an entry is [[model]] with match = \"vendor/name\" and rates = { input = \"3\", output = \"15\" }; \
             without the file the built-in ones hold",
        )
    })
}

/// Where requests of other people's agents go.
pub fn home_route(models: &Models, is_forced: bool) -> HomeRoute {
    let gateway = &models.gateway;
    let vendors: BTreeMap<_, _> = gateway.vendors().map(|vendor| (vendor.to_owned(), gateway.wire(vendor))).collect();
    let mut offered = vec![models.model.to_string()];
    let known = gateway.catalogue().entries().map(|entry| entry.name.trim_end_matches('*'));
    let callable = known.filter(|name| name.split_once('/').is_some_and(|(vendor, _)| vendors.contains_key(vendor)));
    offered.extend(callable.map(str::to_owned));
    offered.dedup();
    HomeRoute { is_forced, model: models.model.clone(), vendors, offered }
}

/// The variables that vendors' keys and addresses are looked for in.
pub fn vendor_variables() -> impl Iterator<Item = &'static str> {
    Settings::variables()
}

fn vendor_hint(vendor: &str) -> String {
    match vendor {
        "anthropic" | "openai" | "gemini" | "deepseek" | "openrouter" => {
            format!("put the key into {}_API_KEY", vendor.to_uppercase())
        }
        "openai-chat" => "put the server's address into OPENAI_COMPATIBLE_BASE_URL".to_owned(),
        "vllm" => "put the server's address into VLLM_BASE_URL".to_owned(),
        "ollama" => "put the server's address into OLLAMA_HOST".to_owned(),
        _ => "vendors without a name of their own are reached as openai-chat/NAME, with OPENAI_COMPATIBLE_BASE_URL"
            .to_owned(),
    }
}

fn model_from_env() -> Result<Option<ModelRef>> {
    let Some(text) = std::env::var_os("ADJUTANT_MODEL").filter(|text| !text.is_empty()) else { return Ok(None) };
    let model = text.to_string_lossy().parse().map_err(|error| Failure::usage(format!("ADJUTANT_MODEL: {error}")))?;
    Ok(Some(model))
}

/// What scripted models play.
fn load_script(path: &Path, folder: &Path) -> Result<Arc<dyn Provider>> {
    let script = Script::load(path, cassettes::places(folder)?, cassettes::timing()).map_err(|error| Failure {
        code: Code::Usage,
        error: error.into(),
        hint: None,
    })?;
    if let Script::Cassette(player) = &script {
        cassettes::tell_of_torn(player, path);
    }
    Ok(script.provider())
}

/// Builds the engine on the state folder.
pub fn engine(state: &Path, gateway: impl Into<Arc<Gateway>>, sandbox: SandboxMode) -> Result<Engine> {
    forbid_core_dumps()?;
    let store = open_store(state)?;
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("no randomness from the system: {error}"))?;
    let layout = match sandbox {
        SandboxMode::DangerFullAccess => Layout::Unconfined,
        SandboxMode::ReadOnly | SandboxMode::WorkspaceWrite => Layout::Overlay,
    };
    let parts = Parts {
        store,
        models: gateway.into(),
        launcher: Launcher::current_exe()?,
        layout,
        state: state.to_owned(),
        policy: policy()?,
        vault: tokio::sync::Mutex::new(vault(state)?),
        home: home_dir(),
        node: NodeId::from_random(random),
    };
    Ok(Engine::with_upstream(parts, upstream()?))
}

/// What lies beyond the doors of sandboxes: the user may trust certificates beside the public ones.
pub fn upstream() -> Result<Upstream> {
    let Some(path) = UserSettings::load()?.extra_roots else { return Ok(Upstream::default()) };
    let unusable = |error: anyhow::Error| Failure { code: Code::Usage, error, hint: None };
    let what = || format!("cannot use extra_roots of the settings file, {}", path.display());
    let text = std::fs::read_to_string(&path).with_context(what).map_err(unusable)?;
    match Upstream::check_roots(&text) {
        Ok(()) => Ok(Upstream { extra_roots: text, ..Upstream::default() }),
        Err(error) => Err(unusable(anyhow::Error::new(error).context(what()))),
    }
}

/// What the administrator and the organisation allow.
pub fn policy() -> Result<Policy> {
    let organisation = etcetera::base_strategy::Xdg::new().ok().map(|xdg| xdg.config_dir().join("adjutant"));
    Policy::load(&Sources::of_machine(organisation)).map_err(crate::confinement::unreadable)
}

/// The vault of the state folder.
pub fn vault(state: &Path) -> Result<Vault> {
    let folder = state.join("vault");
    let source = match UserSettings::load()?.vault_key {
        VaultKey::Auto => KeySource::Auto,
        VaultKey::File => KeySource::File,
        VaultKey::Keyring => KeySource::Keyring,
    };
    let keyring = if source == KeySource::File { None } else { SystemKeyring::find() };
    Vault::open(&folder, Arc::new(Keys::new(source, &folder, keyring))).map_err(vault_failure)
}

/// The words for a vault that cannot be used.
pub fn vault_failure(error: VaultError) -> Failure {
    let hint = match &error {
        VaultError::Key(KeyError::NoKeyring { .. } | KeyError::Silent { .. } | KeyError::Refused { .. }) => Some(
            "unlock the keyring, or keep the key of a new vault in a file: vault_key = \"file\" in the settings file",
        ),
        VaultError::Key(KeyError::OtherPlace { .. }) => {
            Some("vault_key in the settings file says where it is looked for")
        }
        VaultError::VariableTaken { .. } => Some("choose another variable with --env, or remove the other secret"),
        _ => None,
    };
    Failure { code: Code::Usage, error: error.into(), hint: hint.map(str::to_owned) }
}

/// From here on nobody reads our memory, and no dump is left of it: secrets are in it.
pub fn forbid_core_dumps() -> Result<()> {
    Ok(adj_vault::forbid_core_dumps().context("cannot protect this process's memory")?)
}

/// Randomness for a new id.
pub fn random() -> Result<[u8; 20]> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness from the system: {error}"))?;
    Ok(bytes)
}

/// Reads all events of a log, without an engine.
pub async fn read_events(store: &dyn Store, log: &LogId) -> Result<Vec<Event>> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        let page = store.read(log, events.last().map_or(0, |event| event.seq), 1000).await?;
        if page.is_empty() {
            return Ok(events);
        }
        events.extend(page);
    }
}

/// Folds a session that an earlier process made.
pub async fn read_session(state: &Path, id: &SessionId) -> Result<Session> {
    let store = open_store_read_only(state)?;
    if store.log(&id.clone().into()).await?.is_none() {
        return Err(adj_engine::EngineError::NoSession(id.clone()).into());
    }
    let mut events = Vec::new();
    for event in read_events(store.as_ref(), &id.clone().into()).await? {
        events.push((event.id.clone(), event.session_event().map_err(anyhow::Error::new)?));
    }
    let session = Session::replay(id, events).map_err(anyhow::Error::new)?;
    session.ok_or_else(|| adj_engine::EngineError::NoSession(id.clone()).into())
}

/// Folds a run that an earlier process made.
pub async fn read_run(state: &Path, id: &RunId) -> Result<Run> {
    let store = open_store_read_only(state)?;
    if store.log(&id.clone().into()).await?.is_none() {
        return Err(adj_squad::SquadError::NoRun(id.clone()).into());
    }
    let mut events = Vec::new();
    for event in read_events(store.as_ref(), &id.clone().into()).await? {
        events.push(event.run_event().map_err(anyhow::Error::new)?);
    }
    let run = Run::replay(id, events).map_err(anyhow::Error::new)?;
    run.ok_or_else(|| adj_squad::SquadError::NoRun(id.clone()).into())
}
