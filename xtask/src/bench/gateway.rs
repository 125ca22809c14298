//! Measures what the gateway costs: beside the vendor called directly, and beside LiteLLM's proxy before the same vendor.
//!
//! Both ends are the example `gateway`. What cannot be measured stays in the report, with the reason.

use super::{Effort, Figure, in_one_line, measure::percentile, measured};
use crate::{command::Invocation, peers, repository::Repository};
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// LiteLLM takes its time.
const STARTS_WITHIN: Duration = Duration::from_secs(180);
const CONNECTIONS: [usize; 3] = [1, 8, 64];

/// It does not start with a weak one, nor without.
const LITELLM_KEY: &str = "sk-bench-2f61b7c0d94e4a8f";

const DIRECT: &str = "direct";
const PASSED: &str = "adjutant, passed on";
const CONVERTED: &str = "adjutant, converted";
const LITELLM: &str = "LiteLLM, chat";
const LITELLM_CONVERTED: &str = "LiteLLM, Messages";

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Extent {
    rounds: usize,
    requests: usize,
    chunks: usize,
    streams: usize,
    stream_chunks: usize,
    last_ms: u64,
}

impl Extent {
    fn of(effort: Effort) -> Self {
        match effort {
            Effort::Full => {
                Self { rounds: 20, requests: 50, chunks: 50, streams: 500, stream_chunks: 50, last_ms: 4000 }
            }
            Effort::Quick => {
                Self { rounds: 2, requests: 10, chunks: 20, streams: 50, stream_chunks: 10, last_ms: 2000 }
            }
        }
    }
}

/// Measures everything.
pub fn figures(repository: &Repository, binary: &Path, effort: Effort, scratch: &Path) -> Result<Vec<Figure>> {
    let folder = scratch.join("gateway");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    ensure!(effort.build(repository, "xtask", &["--example", "gateway"])?, "the example gateway does not build");
    let ends = effort.folder(repository).join("examples/gateway");

    let vendor = Server::vendor(&ends, &folder)?;
    let ours = Server::adjutant(binary, vendor.address, &folder)?;
    let litellm = Server::litellm(repository, vendor.address, &folder);
    let bench = Bench { ends, folder, contenders: contenders(&vendor, &ours, &litellm) };

    let Extent { rounds, requests, chunks, streams, stream_chunks, last_ms } = Extent::of(effort);
    // First, while the processes are as they started: nothing else has added to the most memory that they ever held.
    let many = json!({ "streams": streams, "chunks": stream_chunks, "pause_ms": 200 });
    let many = bench.measure("streams", &many)?;
    let latency = bench.measure("latency", &json!({ "rounds": rounds, "requests": requests }))?;
    let paused = bench.measure("chunks", &json!({ "rounds": rounds, "chunks": chunks, "pause_ms": 5 }))?;

    let mut figures = Vec::new();
    let requests = format!("{} of some kilobytes, one at a time, by turns", rounds * requests);
    figures.extend(latency.added("request", &requests));
    let chunks = format!("{} with pauses, from the vendor's write to the caller's read", rounds * chunks);
    figures.extend(paused.added("chunk", &chunks));
    for connections in CONNECTIONS {
        let plan = json!({ "connections": connections, "warm_ms": last_ms / 4, "last_ms": last_ms });
        figures.extend(bench.measure("throughput", &plan)?.throughput(connections));
    }
    figures.extend(many.memory(streams, stream_chunks));
    if let Ok(litellm) = &litellm {
        for figure in figures.iter_mut().filter(|figure| figure.name.starts_with("LiteLLM")) {
            figure.note = format!("{}; {}", litellm.version, figure.note);
        }
    }
    Ok(figures)
}

/// One way to the vendor, for the example.
#[derive(Debug, Clone, Serialize)]
struct Contender {
    address: SocketAddr,
    path: &'static str,
    token: String,
    model: &'static str,
    pid: Option<u32>,
}

fn contenders(vendor: &Server, ours: &Server, litellm: &Result<Server>) -> Vec<(&'static str, Result<Contender>)> {
    const CHAT: &str = "/v1/chat/completions";
    const MESSAGES: &str = "/v1/messages";
    let way = |server: &Server, path, model| Contender {
        address: server.address,
        path,
        token: server.token.clone(),
        model,
        pid: Some(server.child.id()),
    };
    let litellm = |path| match litellm {
        Ok(server) => Ok(way(server, path, "bench")),
        Err(error) => Err(anyhow!(in_one_line(error))),
    };
    vec![
        (DIRECT, Ok(Contender { pid: None, ..way(vendor, CHAT, "bench") })),
        (PASSED, Ok(way(ours, CHAT, "openai-chat/bench"))),
        (CONVERTED, Ok(way(ours, MESSAGES, "openai-chat/bench"))),
        (LITELLM, litellm(CHAT)),
        (LITELLM_CONVERTED, litellm(MESSAGES)),
    ]
}

struct Bench {
    ends: PathBuf,
    folder: PathBuf,
    contenders: Vec<(&'static str, Result<Contender>)>,
}

impl Bench {
    /// Has the callers carry out one case with everybody who is there.
    fn measure(&self, name: &str, case: &Value) -> Result<Case> {
        let there: Vec<&Contender> = self.contenders.iter().filter_map(|(_, way)| way.as_ref().ok()).collect();
        let plan = json!({ "contenders": there, "case": { name: case } }).to_string();
        eprintln!("     measuring {name}: {case}");
        let text = Invocation::new(&self.ends, &self.folder).args(["callers", &plan]).output()?;
        let seen: Vec<Result<Seen, String>> =
            serde_json::from_str(&text).context("cannot read what the callers saw")?;
        let mut seen = seen.into_iter();
        let seen = self.contenders.iter().map(|(name, way)| {
            let seen = match way {
                Ok(_) => seen.next().context("the callers left somebody out")?.map_err(|reason| anyhow!(reason)),
                Err(error) => Err(anyhow!(in_one_line(error))),
            };
            Ok((*name, seen))
        });
        Ok(Case(seen.collect::<Result<_>>()?))
    }
}

/// What the callers saw of one contender, as the example writes it.
#[derive(Debug, Default, Deserialize)]
struct Seen {
    times_us: Vec<u64>,
    requests: u64,
    wall_us: u64,
    cpu_ms: Option<u64>,
    peak_kib: Option<u64>,
    at_once: usize,
}

impl Seen {
    fn time(&self, share: f64) -> f64 {
        percentile(self.times_us.iter().copied(), share) as f64
    }

    /// Milliseconds on the processor for a thousand requests.
    fn cpu(&self) -> Result<f64> {
        let cpu_ms = self.cpu_ms.filter(|cpu_ms| *cpu_ms > 0).context("too little to be counted")?;
        Ok(cpu_ms as f64 * 1e3 / self.requests as f64)
    }
}

/// What was seen of everybody in one case.
struct Case(Vec<(&'static str, Result<Seen>)>);

impl Case {
    fn of(&self, name: &str) -> Result<&Seen> {
        let (_, seen) = self.0.iter().find(|(known, _)| *known == name).context("nobody is called so")?;
        seen.as_ref().map_err(|error| anyhow!(in_one_line(error)))
    }

    /// Everybody but who is called directly.
    fn gateways(&self) -> impl Iterator<Item = (&'static str, Result<&Seen>)> {
        let names = self.0.iter().map(|(name, _)| *name).filter(|name| *name != DIRECT);
        names.map(|name| (name, self.of(name)))
    }

    fn added(&self, what: &str, note: &str) -> Vec<Figure> {
        let shares = [(0.5, "p50"), (0.99, "p99")];
        let direct = shares.map(|(share, label)| {
            let time = self.of(DIRECT).map(|seen| seen.time(share));
            measured(&format!("{DIRECT}: {what} {label}"), "µs", time, None, note)
        });
        let added = self.gateways().flat_map(|(name, seen)| {
            shares.map(|(share, label)| {
                let added = match &seen {
                    Ok(seen) => self.of(DIRECT).map(|direct| seen.time(share) - direct.time(share)),
                    Err(error) => Err(anyhow!(in_one_line(error))),
                };
                let target = (is_ours(name) && label == "p50").then_some(1000.0);
                measured(&format!("{name}: {what} +{label}"), "µs", added, target, "through it, less the same directly")
            })
        });
        direct.into_iter().chain(added).collect()
    }

    fn throughput(&self, connections: usize) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (name, _) in &self.0 {
            let seen = self.of(name);
            let rate = seen.as_ref().map(|seen| seen.requests as f64 * 1e6 / seen.wall_us as f64);
            let note = match seen.as_ref().ok().and_then(|seen| seen.cpu().ok()) {
                Some(cpu) => format!("{cpu:.0} ms of processor for 1,000: {:.0} a second per core", 1e6 / cpu),
                None => "both ends take a share of the processors".to_owned(),
            };
            let rate = rate.map_err(|error| anyhow!(in_one_line(error)));
            figures.push(measured(&format!("{name}: {connections} at once"), "/s", rate, None, &note));
        }
        if connections == CONNECTIONS[CONNECTIONS.len() - 1] {
            for (ours, other) in [(PASSED, LITELLM), (CONVERTED, LITELLM_CONVERTED)] {
                let share = (|| Ok(self.of(ours)?.cpu()? / self.of(other)?.cpu()? * 100.0))();
                let note = format!(
                    "a request's time on the processor, {connections} at once; 5 % are 20 × the requests per core"
                );
                figures.push(measured(&format!("{ours} / LiteLLM"), "%", share, Some(5.0), &note));
            }
        }
        figures
    }

    fn memory(&self, streams: usize, chunks: usize) -> Vec<Figure> {
        let figures = self.gateways().map(|(name, seen)| {
            let target = is_ours(name).then_some(60.0);
            let mut note = String::new();
            let peak = seen.and_then(|seen| {
                // Fewer at once would be another measurement.
                ensure!(
                    !is_ours(name) || seen.at_once == streams,
                    "only {} of {streams} streams at once",
                    seen.at_once
                );
                note = format!(
                    "{streams} streams of {chunks} chunks, up to {} at once, all arrived, each within {:.0} ms",
                    seen.at_once,
                    seen.time(1.0) / 1e3
                );
                Ok(seen.peak_kib.context("nobody counted")? as f64 * 1024.0 / 1e6)
            });
            measured(&format!("{name}: peak memory"), "MB", peak, target, &note)
        });
        figures.collect()
    }
}

fn is_ours(name: &str) -> bool {
    [PASSED, CONVERTED].contains(&name)
}

/// A program that answers on a port of its own; it ends with this value.
struct Server {
    name: &'static str,
    child: Child,
    /// Kept, so that it may go on printing.
    printed: Option<BufReader<ChildStdout>>,
    log: PathBuf,
    address: SocketAddr,
    token: String,
    version: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn vendor(ends: &Path, folder: &Path) -> Result<Self> {
        let mut server = Self::start(Command::new(ends).arg("vendor").stdout(Stdio::piped()), folder, "vendor")?;
        server.address = server.printed("")?.parse().context("the vendor says nothing of its address")?;
        Ok(server)
    }

    fn adjutant(binary: &Path, vendor: SocketAddr, folder: &Path) -> Result<Self> {
        let project = folder.join("project");
        fs::create_dir_all(&project).with_context(|| format!("cannot make {}", project.display()))?;
        let mut command = Command::new(binary);
        command.arg("gateway").arg("--cd").arg(&project);
        command.args(["--quiet", "--model", "openai-chat/bench"]).stdout(Stdio::piped()).env_clear().envs([
            ("HOME", folder.into()),
            ("ADJUTANT_HOME", folder.join("state").into_os_string()),
            ("OPENAI_COMPATIBLE_BASE_URL", format!("http://{vendor}/v1").into()),
            ("OPENAI_COMPATIBLE_API_KEY", "x".into()),
        ]);
        let mut server = Self::start(&mut command, folder, "adjutant")?;
        let base = server.printed("export OPENAI_BASE_URL=http://")?;
        server.address = base.trim_end_matches("/v1").parse().context("adjutant says nothing of its address")?;
        server.token = server.printed("export OPENAI_API_KEY=")?;
        Ok(server)
    }

    fn litellm(repository: &Repository, vendor: SocketAddr, folder: &Path) -> Result<Self> {
        let python = peers::litellm(repository)?;
        let settings = folder.join("litellm.yaml");
        let parameters = json!({ "model": "openai/bench", "api_base": format!("http://{vendor}/v1"), "api_key": "x" });
        // JSON is YAML, too.
        let models = json!({ "model_list": [{ "model_name": "bench", "litellm_params": parameters }] });
        fs::write(&settings, models.to_string()).with_context(|| format!("cannot write {}", settings.display()))?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port().to_string();
        let mut command = Command::new(&python);
        // The script beside it has the path of the folder that it was installed in.
        command
            .args(["-c", "from litellm import run_server; run_server()", "--host", "127.0.0.1", "--port", &port])
            .args(["--num_workers", "1", "--telemetry", "False", "--config"])
            .arg(&settings)
            .stdout(Stdio::null())
            .env_clear()
            .envs([("HOME", folder), ("PATH", Path::new("/usr/bin:/bin"))])
            .envs([
                ("LITELLM_MASTER_KEY", LITELLM_KEY),
                ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
                ("LITELLM_LOG", "ERROR"),
                ("LITELLM_MODE", "PRODUCTION"),
                ("LITELLM_USE_CHAT_COMPLETIONS_URL_FOR_ANTHROPIC_MESSAGES", "true"),
            ]);
        let mut server = Self::start(&mut command, folder, "litellm")?;
        server.token = LITELLM_KEY.to_owned();
        server.address = format!("127.0.0.1:{port}").parse()?;
        let python = Invocation::new(&python, folder).args(["--version"]).output()?;
        server.version = format!("{} on {}", peers::LITELLM, python.trim());
        let began = Instant::now();
        while !answers(server.address) {
            let ended = server.child.try_wait()?;
            ensure!(ended.is_none() && began.elapsed() < STARTS_WITHIN, "LiteLLM did not start: {}", server.log());
            thread::sleep(Duration::from_millis(200));
        }
        Ok(server)
    }

    /// Reads what it prints up to the line that begins so, and returns the rest of that.
    fn printed(&mut self, prefix: &str) -> Result<String> {
        let mut line = String::new();
        while self.printed.as_mut().is_some_and(|printed| printed.read_line(&mut line).is_ok_and(|read| read > 0)) {
            if let Some(rest) = line.trim_end().strip_prefix(prefix) {
                return Ok(rest.to_owned());
            }
            line.clear();
        }
        bail!("{} ended: {}", self.name, self.log())
    }

    /// The last of what it complained of.
    fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(3)..].join("; ")
    }

    /// Starts a program whose complaints go to a file.
    fn start(command: &mut Command, folder: &Path, name: &'static str) -> Result<Self> {
        let log = folder.join(name).with_extension("log");
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command.current_dir(folder).stdin(Stdio::piped()).stderr(file);
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let printed = child.stdout.take().map(BufReader::new);
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Ok(Self { name, child, printed, log, address, token: "x".to_owned(), version: String::new() })
    }
}

/// Whether LiteLLM says that it is there.
fn answers(address: SocketAddr) -> bool {
    let ask = || -> io::Result<String> {
        let mut connection = TcpStream::connect(address)?;
        connection.set_read_timeout(Some(Duration::from_secs(5)))?;
        connection.write_all(b"GET /health/liveliness HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut line = String::new();
        BufReader::new(connection).read_line(&mut line)?;
        Ok(line)
    };
    ask().is_ok_and(|line| line.contains(" 200"))
}

#[cfg(test)]
mod unit {
    use super::*;

    fn seen(times_us: &[u64], cpu_ms: u64) -> Result<Seen> {
        let peak_kib = Some(50_000);
        let (requests, wall_us, cpu_ms) = (1000, 2_000_000, Some(cpu_ms));
        Ok(Seen { times_us: times_us.to_vec(), requests, wall_us, cpu_ms, peak_kib, at_once: 500 })
    }

    fn find(figures: &[Figure], name: &str) -> (Option<f64>, bool) {
        let found = figures.iter().find(|figure| figure.name == name).expect(name);
        (found.value, found.is_met())
    }

    #[test]
    fn what_a_gateway_adds_is_a_difference_and_only_ours_has_a_target() {
        let case = Case(vec![
            (DIRECT, seen(&[100, 200, 900], 0)),
            (PASSED, seen(&[500, 600, 2500], 0)),
            (CONVERTED, seen(&[1100, 1300, 1500], 0)),
            (LITELLM, seen(&[9000], 0)),
            (LITELLM_CONVERTED, Err(anyhow!("it does not start"))),
        ]);
        let figures = case.added("request", "");
        let cases = [
            ("direct: request p50", Some(200.0), true),
            ("adjutant, passed on: request +p50", Some(400.0), true),
            ("adjutant, passed on: request +p99", Some(1600.0), true),
            ("adjutant, converted: request +p50", Some(1100.0), false),
            ("LiteLLM, chat: request +p50", Some(8800.0), true),
            ("LiteLLM, Messages: request +p50", None, true),
        ];
        for (name, value, is_met) in cases {
            assert_eq!(find(&figures, name), (value, is_met), "{name}");
        }
    }

    #[test]
    fn processors_are_compared_under_the_most_load_and_with_the_same_work() {
        let case = |converted| {
            Case(vec![
                (DIRECT, Ok(Seen { cpu_ms: None, ..seen(&[], 0).unwrap() })),
                (PASSED, seen(&[], 200)),
                (CONVERTED, converted),
                (LITELLM, seen(&[], 5000)),
                (LITELLM_CONVERTED, seen(&[], 4000)),
            ])
        };
        let few = case(seen(&[], 400)).throughput(8);
        assert_eq!(find(&few, "direct: 8 at once"), (Some(500.0), true));
        assert!(few.iter().all(|figure| !figure.name.contains("/ LiteLLM")));
        let most = case(seen(&[], 400)).throughput(64);
        assert_eq!(find(&most, "adjutant, passed on / LiteLLM"), (Some(4.0), true));
        assert_eq!(find(&most, "adjutant, converted / LiteLLM"), (Some(10.0), false));
        let refused = case(Err(anyhow!("429"))).throughput(64);
        assert_eq!(find(&refused, "adjutant, converted / LiteLLM"), (None, false));
    }

    #[test]
    fn memory_counts_only_with_all_streams_at_once() {
        let fewer = || Ok(Seen { at_once: 499, ..seen(&[700], 0).unwrap() });
        let case = Case(vec![(PASSED, seen(&[700], 0)), (CONVERTED, fewer()), (LITELLM, fewer())]);
        let figures = case.memory(500, 50);
        assert_eq!(find(&figures, "adjutant, passed on: peak memory"), (Some(51.2), true));
        assert_eq!(find(&figures, "adjutant, converted: peak memory"), (None, false));
        assert_eq!(find(&figures, "LiteLLM, chat: peak memory"), (Some(51.2), true));
    }
}
