//! Callers with kept connections, which time what they hear.

use super::{
    http::{Head, Reader},
    vendor::{DONE, Wish, now},
};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{cell::Cell, fs, net::SocketAddr, rc::Rc, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    task::{JoinSet, LocalSet},
    time::{Instant, sleep, timeout},
};

/// How long one contender may take for a round: hundreds of streams at once are minutes of work for some.
const DEADLINE: Duration = Duration::from_secs(300);

#[derive(Debug, Deserialize)]
pub struct Plan {
    pub contenders: Vec<Contender>,
    pub case: Case,
}

/// One way to the vendor. The same body is a request of chat completions and one of Messages.
#[derive(Debug, Clone, Deserialize)]
pub struct Contender {
    pub address: SocketAddr,
    pub path: String,
    pub token: String,
    pub model: String,
    /// The process that stands before the vendor.
    pub pid: Option<u32>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Case {
    /// One request at a time, by turns.
    Latency { rounds: usize, requests: usize },
    /// One stream at a time, by turns.
    Chunks { rounds: usize, chunks: usize, pause_ms: u64 },
    /// As many requests as there is time for.
    Throughput { connections: usize, warm_ms: u64, last_ms: u64 },
    /// Many streams at once.
    Streams { streams: usize, chunks: usize, pause_ms: u64 },
}

/// What was seen of one contender; what a case does not look at is left empty.
#[derive(Debug, Default, Serialize)]
pub struct Seen {
    /// Of each request from its first byte to the last of its answer, or of each chunk from the vendor to here.
    pub times_us: Vec<u64>,
    pub requests: u64,
    pub wall_us: u64,
    /// What the process used meanwhile.
    pub cpu_ms: Option<u64>,
    /// The most memory that the process ever held.
    pub peak_kib: Option<u64>,
    /// The most streams that were in the middle of their answers at one time.
    pub at_once: usize,
}

/// Carries out a plan; who fails says why, and does not hold up the others.
pub async fn carry_out(plan: Plan) -> Vec<Result<Seen, String>> {
    let mut seen: Vec<Result<Seen>> = plan.contenders.iter().map(|_| Ok(Seen::default())).collect();
    let rounds = match plan.case {
        Case::Latency { rounds, .. } | Case::Chunks { rounds, .. } => rounds,
        Case::Throughput { .. } | Case::Streams { .. } => 1,
    };
    for _ in 0..rounds {
        for (contender, seen) in plan.contenders.iter().zip(&mut seen) {
            if let Ok(so_far) = seen {
                let round = timeout(DEADLINE, contender.round(plan.case, so_far)).await;
                if let Err(error) = round.unwrap_or_else(|_| bail!("nothing came for {} s", DEADLINE.as_secs())) {
                    *seen = Err(error);
                }
            }
        }
    }
    seen.into_iter().map(|seen| seen.map_err(|error| format!("{error:#}"))).collect()
}

impl Contender {
    async fn round(&self, case: Case, seen: &mut Seen) -> Result<()> {
        match case {
            Case::Latency { requests, .. } => self.requests(requests, seen).await?,
            Case::Chunks { chunks, pause_ms, .. } => {
                let wish = Wish { chunks, pause: Duration::from_millis(pause_ms) };
                seen.times_us.extend(self.call().await?.stream(&self.request(true, wish), wish, || ()).await?);
            }
            Case::Throughput { connections, warm_ms, last_ms } => {
                let (warm, last) = (Duration::from_millis(warm_ms), Duration::from_millis(last_ms));
                LocalSet::new().run_until(self.throughput(connections, warm, last, seen)).await?;
            }
            Case::Streams { streams, chunks, pause_ms } => {
                let wish = Wish { chunks, pause: Duration::from_millis(pause_ms) };
                LocalSet::new().run_until(self.streams(streams, wish, seen)).await?;
            }
        }
        seen.peak_kib = self.pid.map(peak_kib).transpose()?;
        Ok(())
    }

    async fn requests(&self, count: usize, seen: &mut Seen) -> Result<()> {
        let request = self.request(false, NOTHING);
        let mut call = self.call().await?;
        // The first also pays for the connection.
        call.whole(&request).await?;
        for _ in 0..count {
            let began = Instant::now();
            call.whole(&request).await?;
            seen.times_us.push(micros(began.elapsed()));
        }
        Ok(())
    }

    async fn throughput(&self, connections: usize, warm: Duration, last: Duration, seen: &mut Seen) -> Result<()> {
        let (answered, is_over) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let mut callers = JoinSet::new();
        for _ in 0..connections {
            let (contender, answered, is_over) = (self.clone(), Rc::clone(&answered), Rc::clone(&is_over));
            callers.spawn_local(async move { contender.ask_until(&is_over, &answered).await });
        }
        let measured = async {
            sleep(warm).await;
            let (began, before, cpu) = (Instant::now(), answered.get(), self.pid.map(cpu_ms).transpose()?);
            sleep(last).await;
            seen.requests = answered.get() - before;
            seen.wall_us = micros(began.elapsed());
            seen.cpu_ms = self.pid.map(cpu_ms).transpose()?.zip(cpu).map(|(after, before)| after - before);
            ensure!(seen.requests > 0, "no answer came");
            Ok(())
        };
        tokio::select! {
            // A caller that ends before was refused something.
            Some(ended) = callers.join_next() => ended??,
            measured = measured => measured?,
        }
        is_over.set(true);
        // Whose turn is next finds no work left behind.
        while let Some(ended) = callers.join_next().await {
            ended??;
        }
        Ok(())
    }

    async fn ask_until(&self, is_over: &Cell<bool>, answered: &Cell<u64>) -> Result<()> {
        let request = self.request(false, NOTHING);
        let mut call = self.call().await?;
        while !is_over.get() {
            call.whole(&request).await?;
            answered.set(answered.get() + 1);
        }
        Ok(())
    }

    async fn streams(&self, count: usize, wish: Wish, seen: &mut Seen) -> Result<()> {
        let (at_once, most) = (Rc::new(Cell::new(0_usize)), Rc::new(Cell::new(0)));
        let mut callers = JoinSet::new();
        for _ in 0..count {
            let (contender, at_once, most) = (self.clone(), Rc::clone(&at_once), Rc::clone(&most));
            callers.spawn_local(async move {
                let request = contender.request(true, wish);
                let begin = || {
                    at_once.set(at_once.get() + 1);
                    most.set(at_once.get().max(most.get()));
                };
                let times = contender.call().await?.stream(&request, wish, begin).await?;
                at_once.set(at_once.get() - 1);
                Ok::<_, anyhow::Error>(times)
            });
        }
        while let Some(times) = callers.join_next().await {
            seen.times_us.extend(times??);
        }
        seen.at_once = most.get();
        Ok(())
    }

    async fn call(&self) -> Result<Call> {
        let connection = TcpStream::connect(self.address).await.context("cannot connect")?;
        connection.set_nodelay(true)?;
        Ok(Call { reader: Reader::new(connection) })
    }

    fn request(&self, streams: bool, wish: Wish) -> Vec<u8> {
        let body = json!({
            "model": self.model, "max_tokens": 1000, "stream": streams,
            "messages": [{ "role": "user", "content": wish.prompt() }],
        })
        .to_string();
        let Self { address, path, token, .. } = self;
        format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nanthropic-version: 2023-06-01\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

const NOTHING: Wish = Wish { chunks: 0, pause: Duration::ZERO };

/// A kept connection.
struct Call {
    reader: Reader,
}

impl Call {
    async fn whole(&mut self, request: &[u8]) -> Result<()> {
        let body = self.answer(request, |_| ()).await?;
        ensure!(body.contains(DONE), "an answer of something else: {}", start(&body));
        Ok(())
    }

    /// Returns how long each chunk was under way, in microseconds; `begin` is called when the first is there.
    async fn stream(&mut self, request: &[u8], wish: Wish, begin: impl FnOnce()) -> Result<Vec<u64>> {
        let mut times = Vec::with_capacity(wish.chunks);
        let mut begin = Some(begin);
        let body = self
            .answer(request, |line| {
                if let Some(sent) = sent(line) {
                    times.push(now().saturating_sub(sent) / 1000);
                    if let Some(begin) = begin.take() {
                        begin();
                    }
                }
            })
            .await?;
        let arrived = times.len();
        ensure!(arrived == wish.chunks, "{arrived} of {} chunks arrived: {}", wish.chunks, start(&body));
        Ok(times)
    }

    /// Reads a good answer to its end, and hands on each line of it as soon as it is whole.
    async fn answer(&mut self, request: &[u8], mut listen: impl FnMut(&str)) -> Result<String> {
        self.reader.get_mut().write_all(request).await?;
        let head = Head::read(&mut self.reader).await?.context("the connection was closed")?;
        let (mut body, mut heard) = (Vec::new(), 0);
        head.read_body(&mut self.reader, |piece| {
            body.extend_from_slice(piece);
            while let Some(end) = body[heard..].iter().position(|byte| *byte == b'\n') {
                listen(&String::from_utf8_lossy(&body[heard..heard + end]));
                heard += end + 1;
            }
        })
        .await?;
        let body = String::from_utf8(body)?;
        ensure!(head.first.contains(" 200"), "{}: {}", head.first, start(&body));
        Ok(body)
    }
}

/// When the vendor sent the chunk of this line. Other events repeat texts, and do not count.
fn sent(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once('@').filter(|_| line.contains("delta"))?;
    rest.split_once('@')?.0.parse().ok()
}

fn start(body: &str) -> String {
    body.chars().take(300).collect()
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

/// The time on the processor that a process has used, in steps of ten milliseconds.
fn cpu_ms(pid: u32) -> Result<u64> {
    // The kernel counts in hundredths of a second here, whatever it counts in itself.
    const TICK_MS: u64 = 10;
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
    // Its name may contain anything; what follows is numbers.
    let (_, fields) = text.rsplit_once(')').context("the kernel's account has no name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks * TICK_MS)
}

fn peak_kib(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the kernel does not count memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
