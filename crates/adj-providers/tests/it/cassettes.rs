//! Recorded and played: over the wires, in a vendor's own words, and from files that are not as they should be.

use crate::fixtures::{call, request, result, user};
use adj_domain::{Content, FailureKind, Item, ModelRequest, SessionId};
use adj_providers::{
    CassetteError, HttpProvider, Manner, ModelEvent, Playbook, Player, Provider, ProviderError, RecordError, Recorder,
    Replay, Script, Scripted, Secret, Timeouts, Timing, WireKind,
    cassette::{Heading, Places},
    http::{Credentials, Raw, RawAnswer},
};
use adj_testkit::{FakeVendor, Reply};
use futures_util::StreamExt;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

const KEY: &str = "sk-canary-0123456789\"\\key";

type Events = Vec<Result<ModelEvent, ProviderError>>;

struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { folder: TempDir::new().expect("a folder can be made") }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("c.jsonl")
    }

    fn recorder(&self) -> Recorder {
        Recorder::create(&self.path(), heading(), &[key()]).expect("the file is new")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).expect("a cassette is text")
    }

    fn player(&self, manner: Manner) -> Player {
        let replay = Replay { manner, places: places("/srv/ci"), ..Replay::default() };
        Player::open(&self.path(), replay).unwrap_or_else(|error| panic!("{error}"))
    }
}

fn heading() -> Heading {
    let vendors = [("vendor".to_owned(), None), ("other".to_owned(), Some(WireKind::Chat))].into();
    Heading { model: "vendor/model".parse().expect("a model"), vendors, places: places("/home/one/project") }
}

fn places(folder: &str) -> Places {
    Places::from([("folder".to_owned(), folder.to_owned())])
}

fn key() -> Secret {
    Secret::parse("TEST", KEY.to_owned()).expect("the key is good")
}

fn vendor_over(wire: WireKind, vendor: &FakeVendor) -> HttpProvider {
    let credentials = match wire {
        WireKind::Anthropic | WireKind::Gemini => Credentials::ApiKey(key()),
        WireKind::OpenAi | WireKind::Chat => Credentials::Bearer(key()),
    };
    HttpProvider::new(wire, vendor.url().parse().expect("an address"), credentials, Timeouts::default())
}

fn playing(playbook: &str) -> Arc<dyn Provider> {
    Arc::new(Scripted::new(Playbook::parse(playbook, "test.yaml").unwrap_or_else(|error| panic!("{error}"))))
}

async fn events(provider: &dyn Provider, request: &ModelRequest, attempt: u32) -> Events {
    provider.stream(request, attempt).collect().await
}

/// Without what the vendor said of its limits, which is not played again.
fn but_limits(events: Events) -> Events {
    events.into_iter().filter(|event| !matches!(event, Ok(ModelEvent::Limits(_)))).collect()
}

fn failure(mut events: Events) -> ProviderError {
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0).expect_err("it is refused")
}

/// The same request in another session on another machine.
fn elsewhere(mut request: ModelRequest) -> ModelRequest {
    request.caller.session = SessionId::derive(&["another"]);
    let text = serde_json::to_string(&request).expect("a request is JSON");
    let text = text.replace("/home/one/project", "/srv/ci");
    let ids = ["one", "two", "three"]
        .map(|name| [crate::fixtures::event_id(name), adj_domain::EventId::derive(&["other", name])]);
    let text = ids.iter().fold(text, |text, [old, new]| text.replace(old.as_str(), new.as_str()));
    serde_json::from_str(&text).expect("it is still one")
}

const MODELS: [(&str, WireKind); 4] = [
    ("openai/gpt-5.5", WireKind::OpenAi),
    ("anthropic/claude-sonnet-4-5", WireKind::Anthropic),
    ("openai-chat/local", WireKind::Chat),
    ("gemini/gemini-3.8-flash", WireKind::Gemini),
];

#[tokio::test]
async fn what_came_over_any_wire_comes_again() {
    for (model, wire) in MODELS {
        let desk = Desk::new();
        let whole = Reply::empty()
            .and_reasoning("Let me see.")
            .and_text("Ich prüfe das: 🦀")
            .and_call("bash", json!({"command": "make \"all\"\n"}))
            .in_chunks_of(7);
        let busy = Reply::failure(429, "rate_limit_error", "slow down").retry_after("7");
        let vendor = FakeVendor::answering([busy, Reply::text("x".repeat(500)).broken_after(300), whole]);
        let recorder = desk.recorder();
        let provider = vendor_over(wire, &vendor).recorded_by(recorder.clone());
        let first = request(model, vec![user("Fix /home/one/project/a.rs.")]);
        let mut second =
            request(model, vec![user("Look."), call("one", "bash", json!({"command": "ls"})), result("one", "src\n")]);
        second.caller.step = 1;
        let mut recorded = Vec::new();
        for attempt in 1..=3 {
            recorded.push(but_limits(events(&provider, &first, attempt).await));
        }
        let vendor = FakeVendor::answering([Reply::text("Done.")]);
        let provider = recorder.around(Arc::new(vendor_over(wire, &vendor)));
        recorded.push(but_limits(events(provider.as_ref(), &second, 1).await));
        assert_eq!(recorder.finish().expect("it is whole"), 4);

        let player = desk.player(Manner::Strict);
        let wires = player.providers().into_iter().map(|(name, vendor)| (name, vendor.http().map(HttpProvider::wire)));
        assert!(wires.eq([("other".to_owned(), Some(WireKind::Chat)), ("vendor".to_owned(), None)]));
        let (first, second) = (elsewhere(first), elsewhere(second));
        for (place, mut expected) in recorded.into_iter().enumerate() {
            let asked = if place < 3 { &first } else { &second };
            let played = events(&player, asked, 1).await;
            if let Some(Err(error)) = expected.last_mut() {
                // What was waited for then is not waited for again.
                error.retry_after = error.retry_after.map(|_| Duration::ZERO);
                error.readings.clear();
            }
            assert_eq!(played, expected, "{model}, {place}");
        }
        assert_eq!(player.left(), 0);
        let error = failure(events(&player, &first, 1).await);
        assert_eq!(error.kind, FailureKind::InvalidRequest);
        assert!(
            error.message.contains("no answer left for agent \"builder\", turn 1, step 0; all were played"),
            "{error}"
        );
    }
}

fn raw(wire: WireKind, body: &Value) -> Raw {
    let path = match wire {
        WireKind::OpenAi => "/responses",
        WireKind::Anthropic => "/v1/messages",
        WireKind::Chat => "/chat/completions",
        WireKind::Gemini => "/v1beta/models/m:streamGenerateContent",
    };
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
    headers.insert("x-own", HeaderValue::from_static("of nobody's business"));
    Raw { path: path.to_owned(), query: Some("alt=sse".to_owned()), headers, body: body.to_string().into() }
}

fn body(wire: WireKind, text: &str) -> Value {
    match wire {
        WireKind::OpenAi => json!({"model": "m", "stream": true, "store": false, "prompt_cache_key": text,
            "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi 🦀"}]}]}),
        WireKind::Anthropic => json!({"model": "m", "stream": true, "max_tokens": 9, "metadata": {"user_id": text},
            "messages": [{"role": "user",
                "content": [{"type": "text", "text": "Hi 🦀", "cache_control": {"type": "ephemeral"}}]}]}),
        WireKind::Chat => json!({"model": "m", "stream": true, "stream_options": {"include_usage": true},
            "user": text, "messages": [{"role": "user", "content": "Hi 🦀"}]}),
        WireKind::Gemini => {
            json!({"generationConfig": {"maxOutputTokens": 9}, "contents": [{"role": "user", "parts": [{"text": "Hi 🦀"}]}]})
        }
    }
}

async fn read(answer: Result<RawAnswer, ProviderError>) -> (u16, Vec<u8>) {
    let mut answer = answer.unwrap_or_else(|error| panic!("{error}"));
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.expect("the answer is whole") {
        bytes.extend_from_slice(&chunk);
    }
    (answer.status.as_u16(), bytes)
}

#[tokio::test]
async fn what_passed_through_passes_again_byte_for_byte() {
    for (_, wire) in MODELS {
        let desk = Desk::new();
        let busy = || Reply::failure(529, "overloaded_error", "busy");
        let vendor = FakeVendor::answering([busy(), Reply::text("Ja: 🦀").in_chunks_of(3)]);
        let recording = vendor_over(wire, &vendor).recorded_by(desk.recorder());
        let mut recorded = Vec::new();
        for text in ["one", "two"] {
            recorded.push(read(recording.forward(raw(wire, &body(wire, text))).await).await);
        }
        let text = desk.text();
        assert!(!text.contains("x-own") && !text.contains("sk-canary"), "{text}");

        let player = desk.player(Manner::Strict);
        let replaying = HttpProvider::played_by(wire, player.clone());
        for (place, expected) in recorded.iter().enumerate() {
            // What the caller says of itself is another matter.
            let answer = replaying.forward(raw(wire, &body(wire, "three"))).await;
            let kind = answer.as_ref().ok().and_then(|answer| answer.headers.get("content-type").cloned());
            assert!(kind.is_some(), "{wire:?} {place}");
            assert_eq!(read(answer).await, *expected, "{wire:?} {place}");
        }
        assert_eq!(player.left(), 0);

        let mut other = body(wire, "three");
        other["temperature"] = json!(0.5);
        let strict = HttpProvider::played_by(wire, desk.player(Manner::Strict));
        let error = strict.forward(raw(wire, &other)).await.expect_err("it is another request");
        assert!(
            error.message.contains("differs first at temperature\n  recorded: nothing\n  now:      0.5"),
            "{error}"
        );
        let loose = HttpProvider::played_by(wire, desk.player(Manner::Loose));
        assert_eq!(read(loose.forward(raw(wire, &other)).await).await, recorded[0], "{wire:?}");
    }
}

#[tokio::test]
async fn a_request_that_differs_is_an_error_that_shows_the_first_difference() {
    let desk = Desk::new();
    let recorded = request(
        "a/b",
        vec![
            user("Fix the parser, and then say what it was."),
            call("one", "bash", json!({"command": "ls"})),
            result("one", "src\n"),
        ],
    );
    let provider = desk.recorder().around(playing("rules: [{say: done}]"));
    events(provider.as_ref(), &recorded, 1).await;

    let with = |change: &dyn Fn(&mut ModelRequest)| {
        let mut changed = elsewhere(recorded.clone());
        change(&mut changed);
        changed
    };
    let cases = [
        with(&|request| request.model = "a/c".parse().expect("a model")),
        with(&|request| request.system.push_str(" Quickly.")),
        with(&|request| drop(request.tools.pop())),
        with(&|request| request.items[0] = user("Fix the parser, and then show what it was.")),
        with(&|request| request.items[1] = call("one", "bash", json!({"command": "ls", "timeout": 5}))),
        with(&|request| {
            if let Item::ToolResult { content, .. } = &mut request.items[2] {
                *content = vec![Content::text("src\ntarget\n")];
            }
        }),
        with(&|request| request.items.push(user("And?"))),
        with(&|request| request.caller.step = 1),
        with(&|request| request.caller.agent = "planner".to_owned()),
    ];
    let mut shown = String::new();
    for case in cases {
        let error = failure(events(&desk.player(Manner::Strict), &case, 1).await);
        assert_eq!(error.kind, FailureKind::InvalidRequest, "nobody repeats it");
        shown.push_str(&error.message.replace(desk.folder.path().to_str().expect("a path"), ""));
        shown.push_str("\n\n");
        if case.caller.agent == "builder" {
            let played = events(&desk.player(Manner::Loose), &case, 1).await;
            assert!(matches!(played.last(), Some(Ok(ModelEvent::Finished { .. }))), "{played:?}");
        }
    }
    insta::assert_snapshot!(shown);
    assert!(events(&desk.player(Manner::Strict), &elsewhere(recorded), 1).await.len() > 1);
}

#[tokio::test]
async fn recorded_paths_and_sessions_become_those_of_today() {
    let desk = Desk::new();
    let (then, now) = (SessionId::derive(&["then"]), SessionId::derive(&["now"]));
    let asked =
        |folder: &str, session: &SessionId| request("a/b", vec![user(&format!("Look at {folder}, for {session}."))]);
    let playbook = format!(
        "rules: [{{say: 'I look at /home/one/project.', calls: [{{tool: read, input: {{path: /home/one/project/{then}/a.rs, not: /home/one/project2}}}}]}}]"
    );
    let provider = desk.recorder().around(playing(&playbook));
    events(provider.as_ref(), &asked("/home/one/project", &then), 1).await;
    let played = events(&desk.player(Manner::Strict), &asked("/srv/ci", &now), 1).await;
    let played = format!("{played:?}");
    assert!(played.contains("I look at /srv/ci.\""), "{played}");
    assert!(played.contains(&format!("/srv/ci/{now}/a.rs")) && played.contains("/home/one/project2"), "{played}");
}

#[tokio::test(start_paused = true)]
async fn answers_come_at_once_or_when_they_came_then() {
    let desk = Desk::new();
    let playbook = "rules: [{say: abcdef, delay_ms: 300, chunk: 2, chunk_delay_ms: 50, fail: {status: 429, retry_after_ms: 9000, times: 1}}]";
    let provider = desk.recorder().around(playing(playbook));
    let asked = request("a/b", vec![user("Go.")]);
    events(provider.as_ref(), &asked, 1).await;
    events(provider.as_ref(), &asked, 2).await;
    for (timing, waits, took) in [(Timing::AtOnce, 0, 0), (Timing::AsRecorded, 9000, 300 + 3 * 50)] {
        let player = Player::open(&desk.path(), Replay { timing, ..Replay::default() }).expect("it can be played");
        let started = tokio::time::Instant::now();
        let error = failure(events(&player, &asked, 1).await);
        assert_eq!(error.retry_after, Some(Duration::from_millis(waits)), "{timing:?}");
        let started = if timing == Timing::AtOnce { started } else { tokio::time::Instant::now() };
        assert_eq!(events(&player, &asked, 2).await.len(), 7);
        assert_eq!(started.elapsed().as_millis(), took, "{timing:?}");
    }
    // A failure that was the last word stays so.
    let last = Desk::new();
    let provider = last.recorder().around(playing(playbook));
    events(provider.as_ref(), &asked, 1).await;
    let error = failure(events(&last.player(Manner::Strict), &asked, 1).await);
    assert_eq!(error.retry_after, Some(Duration::from_secs(9)));
}

#[tokio::test]
async fn no_key_is_written_down_however_it_is_cut() {
    for size in [1, 2, 3, 5, 8, 13, 1000] {
        for (model, wire) in MODELS {
            let desk = Desk::new();
            let said = format!("the key is {KEY}, and once more: {KEY}");
            let reply = || Reply::text(said.clone()).and_call("bash", json!({"command": said})).in_chunks_of(size);
            let vendor = FakeVendor::answering([reply(), reply(), Reply::failure(400, "bad", said.clone())]);
            let recorder = desk.recorder();
            let provider = vendor_over(wire, &vendor).recorded_by(recorder.clone());
            let asked = request(model, vec![user(&said)]);
            events(&provider, &asked, 1).await;
            read(provider.forward(raw(wire, &body(wire, &said))).await).await;
            events(&provider, &asked, 1).await;
            let text = desk.text();
            assert_eq!((text.lines().count(), recorder.finish().expect("it is whole")), (4, 3));
            // In pieces as small as these nothing of it shows as a whole; the pieces put together must not either.
            let mut together = text.clone();
            for line in text.lines().skip(1) {
                let line: Value = serde_json::from_str(line).expect("a line is JSON");
                texts_of(&line["events"], &mut together);
                texts_of(&line["chunks"], &mut together);
            }
            for part in ["0123456789", "canary-01"] {
                assert!(!together.contains(part), "{wire:?} in pieces of {size}: {together}");
            }
            assert!(together.contains("the key is ***"), "{together}");
        }
    }
}

fn texts_of(value: &Value, texts: &mut String) {
    match value {
        Value::String(text) => texts.push_str(text),
        Value::Array(list) => list.iter().for_each(|one| texts_of(one, texts)),
        Value::Object(fields) => {
            let pieces = ["text_delta", "reasoning_delta", "tool_call_delta", "text", "arguments", "base64"];
            fields.iter().filter(|(name, _)| pieces.contains(&name.as_str())).for_each(|(_, one)| texts_of(one, texts));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[tokio::test]
async fn a_file_is_its_owners_and_is_never_written_over() {
    let desk = Desk::new();
    let recorder = desk.recorder();
    let mode = fs::metadata(desk.path()).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = Recorder::create(&desk.path(), heading(), &[]);
    assert!(matches!(again, Err(RecordError::Exists { .. })), "{again:?}");
    let nowhere = Recorder::create(&desk.path().join("x"), heading(), &[]);
    assert!(matches!(nowhere, Err(RecordError::Create { .. })), "{nowhere:?}");
    assert_eq!(recorder.finish().expect("nothing went wrong"), 0);
}

#[tokio::test]
async fn whoever_hangs_up_leaves_a_record_of_what_came_until_then() {
    let desk = Desk::new();
    let provider = desk.recorder().around(playing("rules: [{say: abcdef, chunk: 2, chunk_delay_ms: 1}]"));
    let asked = request("a/b", vec![user("Go.")]);
    let mut stream = provider.stream(&asked, 1);
    for _ in 0..2 {
        stream.next().await.expect("it has more").expect("nothing fails");
    }
    drop(stream);
    let line: Value = serde_json::from_str(desk.text().lines().nth(1).expect("it is written")).expect("a line is JSON");
    assert_eq!((line["end"].as_str(), line["events"].as_array().map(Vec::len)), (Some("dropped"), Some(2)));
    let error = failure(events(&desk.player(Manner::Strict), &asked, 1).await);
    assert!(error.message.contains("was given up before its answer came"), "{error}");
    // Whoever asked again got an answer.
    events(provider.as_ref(), &asked, 1).await;
    assert!(events(&desk.player(Manner::Strict), &asked, 1).await.len() > 3);
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(bytes)).expect("it can be written");
}

#[tokio::test]
async fn a_torn_end_is_told_and_anything_else_is_an_error_that_names_the_line() {
    let desk = Desk::new();
    let provider = desk.recorder().around(playing("rules: [{say: done}]"));
    let asked = request("a/b", vec![user("Go.")]);
    events(provider.as_ref(), &asked, 1).await;
    events(provider.as_ref(), &asked, 2).await;
    let whole = desk.text();
    let second = whole.lines().nth(2).expect("there are three lines").to_owned();
    let before = whole.len() - second.len() - 1;
    for cut in [1, 2, 100, second.len() - 1] {
        fs::write(desk.path(), &whole[..before + cut]).expect("it can be written");
        let player = desk.player(Manner::Strict);
        assert_eq!(player.torn(), Some("line 3 was cut off and is left out"), "{cut}");
        assert_eq!(player.left(), 1);
    }
    // Only its line break is missing.
    fs::write(desk.path(), whole.trim_end()).expect("it can be written");
    assert_eq!((desk.player(Manner::Strict).torn(), desk.player(Manner::Strict).left()), (None, 2));

    let head = whole.lines().next().expect("there is a first line").to_owned();
    let newer = head.replace("\"version\":1", "\"version\":2");
    let cases: [(String, &str); 9] = [
        (String::new(), "is not a cassette: it is empty"),
        ("rules: []\n".to_owned(), "is not a cassette: its first line is not JSON"),
        ("{\"a\":1}\n".to_owned(), "is not a cassette: its first line names no format"),
        ("{\"format\":\"har\",\"version\":1}\n".to_owned(), "names another format"),
        ("{\"format\":\"adjutant-cassette\",\"version\":1}\n".to_owned(), "its first line: missing field"),
        (format!("{newer}\n"), "has version 2; this build reads up to 1"),
        (format!("{head}\n{{\"exchange\":\"neutral\"\n{second}\n"), "c.jsonl:2: not an exchange: "),
        (format!("{head}\n{{\"exchange\":\"smoke signal\"}}\n"), "unknown variant"),
        (format!("{head}\n\n{second}\n"), "c.jsonl:2: not an exchange"),
    ];
    for (text, expected) in cases {
        fs::write(desk.path(), &text).expect("it can be written");
        let error = Player::open(&desk.path(), Replay::default()).expect_err(&text).to_string();
        assert!(error.contains(expected), "{error}");
    }
    let missing = Player::open(&desk.folder.path().join("missing"), Replay::default());
    assert!(matches!(missing, Err(CassetteError::Read { .. })), "{missing:?}");
}

#[test]
fn a_line_without_end_takes_no_more_memory_than_the_longest_that_is_read() {
    let desk = Desk::new();
    drop(desk.recorder());
    // A hole in a file takes no room on the disk; the process would need 100 MB to hold the line.
    let file = OpenOptions::new().append(true).open(desk.path()).expect("it is there");
    file.set_len(100 * 1024 * 1024).expect("it can be longer");
    let error = Player::open(&desk.path(), Replay::default()).expect_err("no line is that long").to_string();
    assert!(error.contains("c.jsonl:2: the line is longer than 67108864 bytes"), "{error}");
    append(&desk.path(), b"\n");
    assert!(Player::open(&desk.path(), Replay::default()).is_err());
}

#[tokio::test]
async fn a_cassette_is_a_script_like_a_playbook() {
    let desk = Desk::new();
    let provider = desk.recorder().around(playing("rules: [{when: {step: 0}, say: first}, {say: second}]"));
    let mut asked = request("a/b", vec![user("Go.")]);
    events(provider.as_ref(), &asked, 1).await;
    asked.caller.step = 1;
    events(provider.as_ref(), &asked, 1).await;

    let script = Script::load(&desk.path(), Places::new(), Timing::AtOnce).expect("it can be played");
    assert!(matches!(script, Script::Cassette(_)));
    let provider = script.provider();
    // The model's name is free, and so are the words; the step counts, also after a crash.
    let mut other = request("scripted/any", vec![user("Something else.")]);
    for (step, expected) in [(1, "second"), (0, "first")] {
        other.caller.step = step;
        let played = format!("{:?}", events(provider.as_ref(), &other, 1).await);
        assert!(played.contains(expected), "{played}");
    }
    let playbook = desk.folder.path().join("p.yaml");
    fs::write(&playbook, "rules: [{say: x}]").expect("it can be written");
    let script = Script::load(&playbook, Places::new(), Timing::AtOnce).expect("it can be played");
    assert!(matches!(script, Script::Playbook(_)));
    assert!(Script::load(&desk.folder.path().join("missing"), Places::new(), Timing::AtOnce).is_err());
}
