//! Playbooks: what they answer, and how they say what is wrong with them.

use crate::fixtures::{assistant, call, request, result, user};
use adj_domain::{AnswerBlock, FailureKind, Item, ModelAnswer, ModelRequest, Purpose, StopReason, Usage};
use adj_providers::{Accumulator, ModelEvent, Playbook, Provider, ProviderError, Scripted};
use futures_util::StreamExt;
use serde_json::json;
use std::time::Duration;

fn scripted(text: &str) -> Scripted {
    Scripted::new(Playbook::parse(text, "test.yaml").unwrap_or_else(|error| panic!("{error}")))
}

async fn events(provider: &Scripted, request: &ModelRequest, attempt: u32) -> Vec<Result<ModelEvent, ProviderError>> {
    provider.stream(request, attempt).collect().await
}

async fn ask(provider: &Scripted, request: &ModelRequest, attempt: u32) -> Result<ModelAnswer, ProviderError> {
    let mut accumulator = Accumulator::new();
    for event in events(provider, request, attempt).await {
        accumulator.push(event?)?;
    }
    accumulator.finish()
}

async fn says(provider: &Scripted, request: &ModelRequest) -> String {
    match ask(provider, request, 1).await {
        Ok(answer) => match answer.blocks.as_slice() {
            [AnswerBlock::Text { text }] => text.clone(),
            blocks => panic!("{blocks:?}"),
        },
        Err(error) => format!("error: {error}"),
    }
}

#[tokio::test]
async fn the_first_rule_that_fits_answers() {
    let provider = scripted(
        r#"
rules:
  - {when: {agent: planner, turn: 1, step: 0}, say: plan}
  - {when: {agent: [planner, critic], turn: [2, 3]}, say: second thoughts}
  - {when: {role: specialist, after_tool: bash, tool_failed: true}, say: the command failed}
  - {when: {role: specialist, after_tool: [bash, read]}, say: I have seen it}
  - {when: {role: specialist, tool_failed: false}, say: something worked}
  - {when: {purpose: compaction}, say: a summary}
  - {when: {input: "(?i)hello"}, say: hello}
  - {when: {prompt: "weather"}, say: rain}
"#,
    );
    let ask_as = |agent: &str, role: &str, turn, step, items: Vec<Item>| {
        let mut request = request("scripted/demo", items);
        (request.caller.agent, request.caller.role) = (agent.to_owned(), role.to_owned());
        (request.caller.turn, request.caller.step) = (turn, step);
        request
    };
    let after = |name: &str, is_error| {
        let mut items = vec![user("Go."), call("a", name, json!({})), result("a", "done")];
        if let Some(Item::ToolResult { is_error: failed, .. }) = items.last_mut() {
            *failed = is_error;
        }
        items
    };
    let mut compaction = ask_as("x", "y", 9, 9, vec![user("Go.")]);
    compaction.purpose = Purpose::Compaction;
    let cases = [
        (ask_as("planner", "", 1, 0, vec![user("Go.")]), "plan"),
        (ask_as("planner", "", 3, 7, vec![user("Go.")]), "second thoughts"),
        (ask_as("critic", "", 2, 0, vec![user("Go.")]), "second thoughts"),
        (ask_as("x", "specialist", 1, 1, after("bash", true)), "the command failed"),
        (ask_as("x", "specialist", 1, 1, after("bash", false)), "I have seen it"),
        (ask_as("x", "specialist", 1, 1, after("read", true)), "I have seen it"),
        (ask_as("x", "specialist", 1, 1, after("glob", false)), "something worked"),
        (compaction, "a summary"),
        (ask_as("x", "y", 1, 0, vec![user("Well, HELLO there.")]), "hello"),
        (ask_as("x", "y", 1, 1, vec![user("The weather?"), assistant("Wait."), user("Now?")]), "rain"),
        (
            ask_as("x", "y", 1, 2, vec![user("Hello?"), assistant("Yes."), user("Something\n  else.")]),
            "error: no rule of the playbook test.yaml answers agent \"x\" (role \"y\") at turn 1, step 2; the input begins: \"Something else.\"",
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(says(&provider, &request).await, expected);
    }
    let error = ask(&provider, &ask_as("x", "y", 1, 0, vec![]), 1).await.expect_err("no rule fits");
    assert_eq!(error.kind, FailureKind::InvalidRequest);
}

#[tokio::test]
async fn an_answer_has_all_that_its_rule_says() {
    let provider = scripted(
        r#"
rules:
  - when: {input: "fix (?P<file>\\S+) in (\\w+)"}
    think: I must fix {{file}}.
    say: Fixing {{1}} in {{2}} ({{0}}); \{{file}} stays.
    calls:
      - {tool: edit, input: {path: "{{file}}", lines: [1, 2.5, true, null, "{{2}}"]}}
      - {tool: list}
      - {tool: bash, raw: "{\"command\": {{2}}"}
    usage: {input: 10, output: 20, cache_read: 30, cache_write: 40, reasoning: 5}
    stop: max_tokens
"#,
    );
    let answer = ask(&provider, &request("scripted/demo", vec![user("fix main.rs in parser")]), 1).await;
    let answer = answer.expect("the rule fits");
    assert_eq!(answer.model, "demo");
    assert_eq!(answer.stop, StopReason::MaxTokens);
    let usage = Usage {
        input_tokens: 10,
        output_tokens: 20,
        cache_read_tokens: 30,
        cache_write_tokens: 40,
        cache_write_1h_tokens: 0,
        reasoning_tokens: 5,
    };
    assert_eq!(answer.usage, usage);
    let call = |number: u32, name: &str, input| AnswerBlock::ToolCall {
        vendor_call_id: format!("call_1_0_{number}"),
        name: name.to_owned(),
        input,
    };
    let expected = [
        AnswerBlock::Reasoning { payload: json!({"text": "I must fix main.rs."}) },
        AnswerBlock::Text { text: "Fixing main.rs in parser (fix main.rs in parser); {{file}} stays.".to_owned() },
        call(0, "edit", Ok(json!({"path": "main.rs", "lines": [1, 2.5, true, null, "parser"]}))),
        call(1, "list", Ok(json!({}))),
        call(2, "bash", Err("{\"command\": parser".to_owned())),
    ];
    assert_eq!(answer.blocks, expected);
}

#[tokio::test]
async fn without_patterns_nothing_is_filled_in() {
    let provider = scripted("rules: [{say: 'a {{template}} of {{1}}'}]");
    let request = request("scripted/demo", vec![user("x")]);
    assert_eq!(says(&provider, &request).await, "a {{template}} of {{1}}");
    let answer = ask(&provider, &request, 1).await.expect("the rule fits");
    assert!(answer.usage.input_tokens > 0 && answer.usage.output_tokens == 6, "{:?}", answer.usage);
    let provider = scripted("rules: [{json: {b: 1, a: [true]}}]");
    assert_eq!(says(&provider, &request).await, r#"{"b":1,"a":[true]}"#);
}

#[tokio::test(start_paused = true)]
async fn text_arrives_in_pieces_and_takes_its_time() {
    let provider = scripted("rules: [{say: 'äbcdefg', delay_ms: 1000, chunk: 3, chunk_delay_ms: 100}]");
    let request = request("scripted/demo", vec![user("x")]);
    let started = tokio::time::Instant::now();
    let pieces = events(&provider, &request, 1).await.into_iter().filter_map(|event| match event {
        Ok(ModelEvent::TextDelta { text, .. }) => Some(text),
        _ => None,
    });
    assert_eq!(pieces.collect::<Vec<_>>(), ["äbc", "def", "g"]);
    assert_eq!(started.elapsed(), Duration::from_millis(1300));
}

#[tokio::test]
async fn failures_follow_one_another_and_then_the_answer_comes() {
    let provider = scripted(
        r#"
rules:
  - when: {agent: nobody}
    fail: {status: 500}
  - say: at last
    fail:
      - {status: 429, message: slow down, retry_after_ms: 250, times: 2}
      - {cut_after_chars: 2, times: 1}
      - {malformed: true, times: 1}
"#,
    );
    let request = request("scripted/demo", vec![user("x")]);
    let expected = [
        (1, FailureKind::RateLimit, "slow down (HTTP status 429)", Some(429), Some(Duration::from_millis(250))),
        (2, FailureKind::RateLimit, "slow down (HTTP status 429)", Some(429), Some(Duration::from_millis(250))),
        (3, FailureKind::Connection, "the stream broke off after 2 characters (the playbook says so)", None, None),
        (4, FailureKind::Protocol, "the answer cannot be read (the playbook says so)", None, None),
    ];
    for (attempt, kind, message, status, retry_after) in expected {
        let error = ask(&provider, &request, attempt).await.expect_err(message);
        assert_eq!(
            error,
            ProviderError { status, retry_after, ..ProviderError::new(kind, message) },
            "attempt {attempt}"
        );
    }
    let shown = events(&provider, &request, 3).await;
    assert!(matches!(&shown[1], Ok(ModelEvent::TextDelta { text, .. }) if text == "at"), "{shown:?}");
    for attempt in [5, 6, u32::MAX] {
        assert!(ask(&provider, &request, attempt).await.is_ok(), "attempt {attempt}");
    }
    let mut nobody = request.clone();
    nobody.caller.agent = "nobody".to_owned();
    for attempt in [1, 2, u32::MAX] {
        let error = ask(&provider, &nobody, attempt).await.expect_err("every attempt fails");
        assert_eq!((error.kind, error.status), (FailureKind::Server, Some(500)));
    }
}

#[test]
fn what_is_wrong_with_a_playbook_is_said_by_line_and_column() {
    let cases = [
        ("no rules", "name: x\n"),
        ("an unknown key", "rules:\n  - say: x\n    sya: y\n"),
        ("an unknown condition", "rules:\n  - when: {agnet: x}\n    say: y\n"),
        ("a wrong type", "rules:\n  - when: {turn: first}\n    say: y\n"),
        ("a wrong type in a list", "rules:\n  - when: {turn: [1, {}]}\n    say: y\n"),
        ("a negative number", "rules:\n  - say: y\n    delay_ms: -1\n"),
        ("not YAML", "rules:\n  - say: [unclosed\n"),
        ("a tab", "rules:\n\t- say: x\n"),
        ("the same key twice", "rules:\n  - say: x\n    say: y\n"),
        ("no answer", "rules:\n  - say: x\n  - when: {agent: x}\n"),
        ("two texts", "rules:\n  - say: x\n    json: {}\n"),
        ("a bad pattern", "rules:\n  - say: x\n    when:\n      agent: x\n      input: \"a(b\"\n"),
        ("an unknown reference", "rules:\n  - say: \"{{fiel}}\"\n    when: {input: \"(?P<file>x)\"}\n"),
        (
            "an unknown reference in a call",
            "rules:\n  - when: {input: x}\n    calls: [{tool: t, input: {a: [\"{{2}}\"]}}]\n",
        ),
        ("a call of nothing", "rules:\n  - calls: [{input: {}}]\n"),
        ("a call with both", "rules:\n  - calls: [{tool: t, input: {}, raw: x}]\n"),
        ("a failure that is none", "rules:\n  - say: x\n    fail: {status: 200}\n"),
        ("a failure without a kind", "rules:\n  - say: x\n    fail: {times: 2}\n"),
        ("a failure of two kinds", "rules:\n  - say: x\n    fail: {status: 500, malformed: true}\n"),
        ("a failure of no times", "rules:\n  - say: x\n    fail: {status: 500, times: 0}\n"),
        ("failures and then nothing", "rules:\n  - fail: {status: 500, times: 3}\n"),
        ("pieces of nothing", "rules:\n  - say: x\n    chunk: 0\n"),
        ("too slow", "rules:\n  - say: x\n    delay_ms: 600001\n"),
        ("an unknown stop", "rules:\n  - say: x\n    stop: never\n"),
        ("an empty file", ""),
    ];
    let shown = cases.iter().map(|(name, text)| {
        let error = Playbook::parse(text, "my.yaml").expect_err(name);
        format!("{name}\n  {error}\n")
    });
    insta::assert_snapshot!("playbook_errors", shown.collect::<String>());
}

#[test]
fn a_file_that_cannot_be_read_or_is_too_large_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let missing = Playbook::load(&dir.path().join("none.yaml")).expect_err("there is no such file").to_string();
    assert!(missing.starts_with("cannot read the playbook") && missing.ends_with("none.yaml"), "{missing}");
    let large = dir.path().join("large.yaml");
    std::fs::write(&large, "#".repeat(5 * 1024 * 1024)).expect("the file can be written");
    let error = Playbook::load(&large).expect_err("the file is too large").to_string();
    assert!(error.ends_with("large.yaml is larger than 4194304 bytes"), "{error}");
    std::fs::write(&large, "rules: [{say: hello}]").expect("the file can be written");
    assert!(Playbook::load(&large).is_ok());
}

#[test]
fn hostile_yaml_is_refused_within_bounds() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let before = format!("*a{}, ", level - 1).repeat(9);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", before.trim_end_matches(", ")));
    }
    let deep = format!("rules: {}", "[".repeat(100_000));
    for text in [bomb, deep] {
        assert!(Playbook::parse(&text, "bomb.yaml").is_err());
    }
}

/// Returns the YAML blocks of the manual's page.
fn documented() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/playbooks.md");
    let page = std::fs::read_to_string(path).expect("the manual has a page on the scripted vendor");
    let blocks = page.split("```yaml\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn the_manuals_examples_do_what_it_says() {
    let blocks = documented();
    assert_eq!(blocks.len(), 3);
    let hello = scripted(&blocks[0]);
    assert_eq!(says(&hello, &request("scripted/x", vec![user("Well, hello!")])).await, "Hello to you.");
    let failing = scripted(&blocks[1]);
    for (attempt, good) in [(1, false), (2, false), (3, false), (4, true)] {
        let outcome = ask(&failing, &request("scripted/x", vec![user("x")]), attempt).await;
        assert_eq!(outcome.is_ok(), good, "attempt {attempt}");
    }

    let whole = scripted(&blocks[2]);
    let ask_as = |agent: &str, role: &str, step, items: Vec<Item>| {
        let mut request = request("scripted/x", items);
        (request.caller.agent, request.caller.role) = (agent.to_owned(), role.to_owned());
        request.caller.step = step;
        request
    };
    let mut items = vec![user("Please fix src/lib.rs today.")];
    let first = ask(&whole, &ask_as("planner", "planner", 0, items.clone()), 1).await.expect("a rule fits");
    let calls = first.blocks.iter().filter_map(|block| match block {
        AnswerBlock::ToolCall { name, input: Ok(input), .. } => Some((name.as_str(), input.clone())),
        _ => None,
    });
    let calls = calls.collect::<Vec<_>>();
    let expected = [
        ("read", json!({"file_path": "src/lib.rs"})),
        ("bash", json!({"command": "git log --oneline -5 -- 'src/lib.rs'"})),
    ];
    assert_eq!(calls, expected);
    items.extend([call("a", "read", json!({})), call("b", "bash", json!({})), result("a", "fn"), result("b", "1")]);
    let plan = says(&whole, &ask_as("planner", "planner", 1, items.clone())).await;
    assert_eq!(plan, "1. Write a test that fails.\n2. Repair src/lib.rs.\n");
    if let Some(Item::ToolResult { is_error, .. }) = items.get_mut(3) {
        *is_error = true;
    }
    let plan = says(&whole, &ask_as("planner", "planner", 1, items)).await;
    assert_eq!(plan, "There is no such file, so there is nothing to plan.");

    let verdict = says(&whole, &ask_as("second-reviewer", "reviewer", 0, vec![user("Well?")])).await;
    assert_eq!(verdict, r#"{"approved":true,"remarks":[]}"#);
    let building = ask_as("builder", "builder", 0, vec![user("Build.")]);
    for (attempt, kind) in [(1, Some(FailureKind::Overloaded)), (2, Some(FailureKind::Connection)), (3, None)] {
        let outcome = ask(&whole, &building, attempt).await;
        assert_eq!(outcome.err().map(|error| error.kind), kind, "attempt {attempt}");
    }
    let mut summing = ask_as("builder", "builder", 5, vec![user("Build.")]);
    summing.purpose = Purpose::Compaction;
    assert_eq!(says(&whole, &summing).await, "So far, all went well.");
    assert_eq!(says(&whole, &ask_as("x", "x", 0, vec![user("x")])).await, "I have nothing to add.");
}
