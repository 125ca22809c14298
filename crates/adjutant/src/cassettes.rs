//! Cassettes on the command line: what is recorded where, and what is played instead of a vendor.

use crate::{
    cli::CassetteArgs,
    failure::{Code, Failure, Result},
    wiring,
};
use adj_domain::ModelRef;
use adj_providers::{
    CassetteError, HttpProvider, Manner, Player, Provider, RecordError, Recorder, Replay, Secret, Timing,
    cassette::{Heading, Places},
};
use std::{io::Write, path::Path, process::ExitCode, sync::Arc};

/// The folders that lie elsewhere at the next run.
pub fn places(folder: &Path) -> Result<Places> {
    let named = [("folder", folder.to_owned()), ("state", wiring::state_dir()?)];
    let real = named.map(|(name, path)| (name.to_owned(), path.canonicalize().unwrap_or(path)));
    Ok(real.into_iter().filter_map(|(name, path)| Some((name, path.to_str()?.to_owned()))).collect())
}

/// When recorded answers come: at once, unless `ADJUTANT_REPLAY_TIMING=1` asks for the recorded pauses.
pub fn timing() -> Timing {
    match std::env::var_os("ADJUTANT_REPLAY_TIMING") {
        Some(value) if value == "1" => Timing::AsRecorded,
        _ => Timing::AtOnce,
    }
}

/// The vendors that can be called, by name.
pub type Vendors = Vec<(String, Arc<dyn Provider>)>;

/// Begins a recording of these vendors, if one is wanted. Their keys stand nowhere in it.
pub fn record(
    args: &CassetteArgs,
    model: &ModelRef,
    folder: &Path,
    vendors: &mut Vendors,
    keys: &[Secret],
) -> Result<Option<Recorder>> {
    let Some(path) = &args.record else { return Ok(None) };
    let wire = |provider: &Arc<dyn Provider>| provider.http().map(HttpProvider::wire);
    let wires = vendors.iter().map(|(name, provider)| (name.clone(), wire(provider))).collect();
    let heading = Heading { model: model.clone(), vendors: wires, places: places(folder)? };
    let recorder = Recorder::create(path, heading, keys).map_err(|error| {
        let exists = matches!(error, RecordError::Exists { .. });
        let failure = Failure { code: Code::Usage, error: error.into(), hint: None };
        if exists { failure.hint("name a new file, or remove this one first") } else { failure }
    })?;
    vendors.iter_mut().for_each(|(_, provider)| *provider = recorder.around(Arc::clone(provider)));
    Ok(Some(recorder))
}

/// Opens what is to be played, if anything is.
pub fn player(args: &CassetteArgs, folder: &Path) -> Result<Option<Player>> {
    let Some(path) = &args.replay else { return Ok(None) };
    let manner = if args.replay_loosely { Manner::Loose } else { Manner::Strict };
    let replay = Replay { manner, timing: timing(), places: places(folder)? };
    let player = Player::open(path, replay).map_err(|error| {
        let is_foreign = matches!(error, CassetteError::Foreign { .. });
        let failure = Failure { code: Code::Usage, error: error.into(), hint: None };
        if is_foreign { failure.hint("--record FILE makes one; a playbook is played with --playbook") } else { failure }
    })?;
    tell_of_torn(&player, path);
    Ok(Some(player))
}

/// A recording that broke off is as good as it goes, which its user has to know.
pub fn tell_of_torn(player: &Player, path: &Path) {
    if let Some(torn) = player.torn() {
        // When standard error is gone, there is nobody left to tell.
        let _ = writeln!(anstream::stderr(), "warning: {}: {torn}", path.display());
    }
}

/// Ends a recording: a command that went well has failed all the same if its cassette is not whole.
pub fn finish(recorder: Option<&Recorder>, outcome: Result<ExitCode>) -> Result<ExitCode> {
    match (outcome, recorder.map(Recorder::finish)) {
        (Ok(_), Some(Err(error))) => Err(Failure { code: Code::WorkFailed, error: error.into(), hint: None }),
        (outcome, _) => outcome,
    }
}
