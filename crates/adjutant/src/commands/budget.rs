//! `adjutant budget`: what was spent, what may be, and more of it.

use super::print;
use crate::{
    cli::{BudgetArgs, BudgetCommand, BudgetTarget},
    confinement::place,
    failure::{Code, Failure, Result},
    wiring,
};
use adj_domain::{
    Budget, Limit, PurseKey, Refusal, Ruling, RunId, SandboxMode, Scope, SessionId, Span, Timestamp, Verdict,
};
use adj_engine::{BudgetLimit, Engine};
use adj_gateway::{Gateway, RetryPolicy};
use adj_policy::EffectiveBudget;
use adj_store::{Standing, Store};
use serde_json::json;
use std::{path::Path, process::ExitCode};

pub async fn budget(command: BudgetCommand) -> Result<ExitCode> {
    let state = wiring::state_dir()?;
    match command {
        BudgetCommand::Show { target, json } => show(&state, target.as_ref(), json).await,
        BudgetCommand::Set { target, limits, turn, request } => {
            let scope = match (&target, turn, request) {
                (_, false, false) => target.scope(),
                (BudgetTarget::Session(id), true, _) => Scope::Turn(id.clone()),
                (BudgetTarget::Session(id), _, true) => Scope::Request(id.clone()),
                (BudgetTarget::Run(_), ..) => {
                    return Err(Failure::usage("turns and requests have limits in their sessions, not in a run")
                        .hint("`adjutant trace show RUN` names its sessions"));
                }
            };
            let engine = changing(&state, &target).await?;
            let limits: Vec<BudgetLimit> = limits.iter().map(|limit| of(&scope, limit)).collect();
            engine.set_limits(&limits, &by()).await?;
            print(
                &render(&standing(engine.store().as_ref(), &[target.purse()]).await?, &[], engine.store().as_ref())
                    .await?,
            )?;
            Ok(ExitCode::SUCCESS)
        }
        BudgetCommand::Lift { target } => {
            let engine = changing(&state, &target).await?;
            let mut limits = Vec::new();
            let mut purses = vec![target.purse()];
            if let BudgetTarget::Session(id) = &target {
                // Any turn and any request tell the limits of all.
                let request = adj_domain::EventId::derive(&["any"]);
                purses.extend([PurseKey::Turn(id.clone(), 0), PurseKey::Request(id.clone(), request)]);
            }
            for standing in standing(engine.store().as_ref(), &purses).await? {
                let scope = standing.purse.scope();
                limits.extend(standing.limits.0.into_keys().map(|unit| BudgetLimit {
                    scope: scope.clone(),
                    unit,
                    amount: None,
                }));
            }
            engine.set_limits(&limits, &by()).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn of(scope: &Scope, limit: &Limit) -> BudgetLimit {
    BudgetLimit { scope: scope.clone(), unit: limit.unit.clone(), amount: Some(limit.amount) }
}

/// Who changes a limit.
fn by() -> String {
    std::env::var("USER").unwrap_or_else(|_| "somebody".to_owned())
}

/// An engine that calls no model, for a target that exists.
async fn changing(state: &Path, target: &BudgetTarget) -> Result<Engine> {
    match target {
        BudgetTarget::Session(id) => drop(wiring::read_session(state, id).await?),
        BudgetTarget::Run(id) => drop(wiring::read_run(state, id).await?),
    }
    wiring::engine(state, Gateway::new(RetryPolicy::default()), SandboxMode::ReadOnly)
}

async fn standing(store: &dyn Store, purses: &[PurseKey]) -> Result<Vec<Standing>> {
    Ok(store.standing(purses).await?)
}

async fn show(state: &Path, target: Option<&BudgetTarget>, as_json: bool) -> Result<ExitCode> {
    let store = wiring::open_store_read_only(state)?;
    let now = Timestamp::now();
    let purses = match target {
        None => vec![PurseKey::of_day(now), PurseKey::of_month(now)],
        Some(target) => {
            let log = match target {
                BudgetTarget::Session(id) => id.clone().into(),
                BudgetTarget::Run(id) => adj_domain::LogId::from(id.clone()),
            };
            if store.log(&log).await?.is_none() {
                return Err(
                    Failure::usage(format!("there is no {log}")).hint("`adjutant trace list` shows what there is")
                );
            }
            let mut purses = vec![target.purse()];
            if let BudgetTarget::Session(id) = target {
                let session = wiring::read_session(state, id).await?;
                purses.push(PurseKey::Turn(id.clone(), session.turn));
            }
            purses
        }
    };
    let standing = standing(store.as_ref(), &purses).await?;
    let policy = wiring::policy()?.budgets();
    if as_json {
        let open = store.holds(None).await?;
        let purses: Vec<_> = standing
            .iter()
            .map(|one| {
                let span = Span::of(&one.purse);
                let policy = policy.iter().filter(|least| least.span == span);
                let policy: adj_domain::Amounts =
                    policy.map(|least| (least.budget.unit.clone(), least.budget.amount)).collect();
                let open = open.iter().filter(|open| open.hold.purses.contains(&one.purse)).count();
                json!({"purse": one.purse, "limits": one.limits, "policy": policy, "sums": one.sums, "open": open})
            })
            .collect();
        print(&format!("{}\n", json!({ "purses": purses })))?;
    } else {
        print(&render(&standing, &policy, store.as_ref()).await?)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn render(standing: &[Standing], policy: &[EffectiveBudget], store: &dyn Store) -> Result<String> {
    let open = store.holds(None).await?;
    let mut text = String::new();
    for one in standing {
        text.push_str(&format!("{}\n", one.purse));
        for (unit, limit) in &one.limits.0 {
            text.push_str(&format!("  limit      {}\n", unit.show(*limit)));
        }
        for least in policy.iter().filter(|least| least.span == Span::of(&one.purse)) {
            let ruling = Ruling {
                file: least.file.clone(),
                line: least.line,
                ..Ruling::new(Verdict::Allow, least.layer.as_str(), "")
            };
            text.push_str(&format!("  limit      {}, says {}\n", least.budget, place(&ruling)));
        }
        for (unit, sum) in one.sums.iter().filter(|(_, sum)| sum.at_most > 0 || sum.held > 0) {
            let spent = match sum.at_least == sum.at_most {
                true => unit.show(sum.at_most),
                false => format!("{} to {}", unit.show(sum.at_least), unit.show(sum.at_most)),
            };
            let held = if sum.held > 0 { format!(", {} set aside", unit.show(sum.held)) } else { String::new() };
            text.push_str(&format!("  spent      {spent}{held}\n"));
        }
        let dead = open.iter().filter(|open| !open.alive && open.hold.purses.contains(&one.purse)).count();
        if dead > 0 {
            text.push_str(
                "  some was set aside by a process that is dead: it counts as spent when its session is taken up\n",
            );
        }
    }
    Ok(text)
}

/// Sets the limits of a session that goes on, where any are named.
pub async fn raise_session(engine: &Engine, id: &SessionId, args: &BudgetArgs) -> Result<()> {
    let Budget { request, turn, session, .. } = args.of_session();
    let scopes =
        [(request, Scope::Request(id.clone())), (turn, Scope::Turn(id.clone())), (session, Scope::Session(id.clone()))];
    raise(engine, scopes).await
}

/// Sets the limits of a run that goes on, and of those of its sessions that there are, where any are named.
pub async fn raise_run(engine: &Engine, id: &RunId, args: &BudgetArgs, each_session: &[Limit]) -> Result<()> {
    let Budget { run, session, turn, request, .. } = args.of_run(each_session);
    raise(engine, [(run, Scope::Run(id.clone()))]).await?;
    if session.is_empty() && turn.is_empty() && request.is_empty() {
        return Ok(());
    }
    let filter = adj_store::LogFilter { parent: Some(id.clone().into()), ..adj_store::LogFilter::default() };
    for log in engine.store().logs(&filter).await? {
        if let adj_domain::LogId::Session(of) = log.log {
            let scopes = [
                (request.clone(), Scope::Request(of.clone())),
                (turn.clone(), Scope::Turn(of.clone())),
                (session.clone(), Scope::Session(of)),
            ];
            raise(engine, scopes).await?;
        }
    }
    Ok(())
}

async fn raise(engine: &Engine, scopes: impl IntoIterator<Item = (adj_domain::Amounts, Scope)>) -> Result<()> {
    let limits: Vec<BudgetLimit> = scopes
        .into_iter()
        .flat_map(|(amounts, scope)| {
            amounts.0.into_iter().map(move |(unit, amount)| BudgetLimit {
                scope: scope.clone(),
                unit,
                amount: Some(amount),
            })
        })
        .collect();
    if limits.is_empty() { Ok(()) } else { Ok(engine.set_limits(&limits, &by()).await?) }
}

/// The words for work that rests for lack of more to spend.
pub fn reached(purse: &PurseKey, refusal: Option<&Refusal>, again: &str) -> Failure {
    let what = refusal.map_or_else(|| format!("the budget of {purse} is reached"), ToString::to_string);
    let hint = match (purse, refusal) {
        (_, Some(Refusal::NoPrice { .. })) => format!(
            "write the model's price into models.toml (docs/models.md) and go on with `{again}`;\n  \
             or begin anew with --unpriced ignore, or --unpriced assume:IN/OUT"
        ),
        (_, Some(Refusal::Unboundable { .. })) => {
            format!(
                "write the model's context and max_output into models.toml (docs/models.md) and go on with `{again}`"
            )
        }
        (PurseKey::Day(_) | PurseKey::Organisation(_), _) => format!(
            "`adjutant budget show` says who sets it; `{again}` goes on when there is more, or with the next {}",
            if matches!(purse, PurseKey::Day(_)) { "day" } else { "month" }
        ),
        (PurseKey::Turn(..), _) => format!("`{again} --budget-turn AMOUNT` goes on with a higher limit"),
        (PurseKey::Request(..), _) => format!("`{again} --budget-request AMOUNT` goes on with a higher limit"),
        _ => format!("`{again} --budget AMOUNT` goes on with a higher limit"),
    };
    Failure::new(Code::BudgetReached, what).hint(hint)
}
