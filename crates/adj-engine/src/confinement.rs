//! From what a session asks for, and policy permits, to the plan of its sandbox.

use crate::{
    guard::Guard,
    toolchains::{CACHES, work_plan},
};
use adj_domain::SandboxMode;
use adj_policy::{Limit, LimitError, LimitValue, PathRule};
use adj_sandbox::{Bind, HOME, Limits, NetworkPlan, PROXY_PORT, PathPattern, PatternError, Plan, proxy_environment};
use std::{
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

/// Where the certificates lie inside that programs are to trust.
pub(crate) const TRUST: &str = "/etc/ssl/adjutant.pem";

/// The variables by which programs find their trusted certificates.
const TRUST_VARIABLES: [&str; 10] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
    "NIX_SSL_CERT_FILE",
];

/// Why what a session asks for cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum ConfinementError {
    #[error("cannot use the limit {name}")]
    Limit { name: String, source: LimitError },
    #[error("cannot use the pattern {text}")]
    Pattern { text: String, source: PatternError },
    #[error("there is no home for the path {path}")]
    NoHome { path: String },
}

/// The plan for the sandbox of a session, or of a command outside any, without its workspace. `trust` is the file of certificates,
/// where there is a network.
pub(crate) fn plan(guard: &Guard, home: Option<&Path>, trust: &Path) -> Result<Plan, ConfinementError> {
    let asked = &guard.confinement;
    let mut plan = work_plan(guard.mode, home);
    for (name, value) in &asked.limits {
        let wrong = |source| ConfinementError::Limit { name: name.clone(), source };
        let limit = Limit::from_str(name).map_err(wrong)?;
        set(&mut plan.limits, limit, limit.value(value).map_err(wrong)?);
    }
    for least in guard.policy.limits() {
        if least.value < get(&plan.limits, least.limit) {
            set(&mut plan.limits, least.limit, least.value);
        }
    }
    plan.env.extend(asked.env.clone());
    // Where there is no sandbox to hold them, the plan is refused.
    plan.hidden = patterns(&asked.hidden, guard.policy.hidden(), home)?;
    plan.readonly = patterns(&asked.readonly, guard.policy.readonly(), home)?;
    if guard.mode == SandboxMode::DangerFullAccess {
        if asked.network.is_some() {
            plan.network = NetworkPlan::Proxy { port: PROXY_PORT };
        }
        return Ok(plan);
    }
    for (paths, writable) in [(&asked.read, false), (&asked.write, true)] {
        for path in paths {
            let host = absolute(path, home)?;
            plan.binds.retain(|bind| bind.inside != host);
            plan.binds.push(Bind { inside: host.clone(), host, writable });
        }
    }
    if asked.network.is_some() {
        plan.network = NetworkPlan::Proxy { port: PROXY_PORT };
        plan.env.extend(proxy_environment(PROXY_PORT));
        plan.env.remove("CARGO_NET_OFFLINE");
        // What is fetched has to go somewhere: caches that cannot be written to would stop it.
        plan.binds.retain(|bind| !CACHES.iter().any(|cache| bind.inside == Path::new(HOME).join(cache)));
        plan.binds.push(Bind { host: trust.to_owned(), inside: PathBuf::from(TRUST), writable: false });
        plan.env.extend(TRUST_VARIABLES.map(|name| (name.to_owned(), TRUST.to_owned())));
    }
    Ok(plan)
}

fn patterns(
    asked: &[String],
    policy: Vec<PathRule>,
    home: Option<&Path>,
) -> Result<Vec<PathPattern>, ConfinementError> {
    let all = asked.iter().cloned().chain(policy.into_iter().map(|rule| rule.pattern));
    let parse = |text: String| {
        let path = absolute(&text, home)?;
        let parsed = path.to_string_lossy().parse();
        parsed.map_err(|source| ConfinementError::Pattern { text, source })
    };
    all.map(parse).collect()
}

fn absolute(path: &str, home: Option<&Path>) -> Result<PathBuf, ConfinementError> {
    match path.strip_prefix("~/") {
        Some(rest) => match home {
            Some(home) => Ok(home.join(rest)),
            None => Err(ConfinementError::NoHome { path: path.to_owned() }),
        },
        None => Ok(PathBuf::from(path)),
    }
}

/// What holds now.
pub(crate) fn get(limits: &Limits, limit: Limit) -> LimitValue {
    match limit {
        Limit::Wall => LimitValue::Time(limits.wall),
        Limit::Cpu => LimitValue::Time(limits.cpu),
        Limit::Memory => LimitValue::Bytes(limits.memory_bytes),
        Limit::Processes => LimitValue::Count(limits.processes),
        Limit::OpenFiles => LimitValue::Count(limits.open_files),
        Limit::FileSize => LimitValue::Bytes(limits.file_size_bytes),
        Limit::Disk => LimitValue::Bytes(limits.disk_bytes),
        Limit::Output => LimitValue::Bytes(limits.output_bytes),
        Limit::Tmp => LimitValue::Bytes(limits.tmp_bytes),
    }
}

fn set(limits: &mut Limits, limit: Limit, value: LimitValue) {
    let (mut time, mut number) = (Duration::ZERO, 0);
    match value {
        LimitValue::Time(value) => time = value,
        LimitValue::Bytes(value) | LimitValue::Count(value) => number = value,
    }
    match limit {
        Limit::Wall => limits.wall = time,
        Limit::Cpu => limits.cpu = time,
        Limit::Memory => limits.memory_bytes = number,
        Limit::Processes => limits.processes = number,
        Limit::OpenFiles => limits.open_files = number,
        Limit::FileSize => limits.file_size_bytes = number,
        Limit::Disk => limits.disk_bytes = number,
        Limit::Output => limits.output_bytes = number,
        Limit::Tmp => limits.tmp_bytes = number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_that_is_set_holds() {
        for limit in Limit::ALL {
            let mut limits = Limits::default();
            let text = match get(&limits, limit) {
                LimitValue::Time(_) => "77s",
                LimitValue::Bytes(_) => "77MiB",
                LimitValue::Count(_) => "77",
            };
            let value = limit.value(text).expect("a value");
            set(&mut limits, limit, value);
            assert_eq!(get(&limits, limit), value, "{limit}");
            let changed =
                Limit::ALL.into_iter().filter(|other| get(&limits, *other) != get(&Limits::default(), *other));
            assert_eq!(changed.collect::<Vec<_>>(), [limit], "nothing else changed");
        }
    }
}
