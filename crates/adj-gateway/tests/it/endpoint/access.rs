//! Who is let in, and what there is to be had.

use super::{
    Door,
    client::{Answer, ask},
    path,
    puppet::{Puppet, chunk, stream_head, whole},
    session,
};
use adj_domain::SessionId;
use adj_gateway::endpoint::{Bounds, Endpoint, Outcome};
use adj_providers::WireKind;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::Instant};

async fn request(door: &Door, line: &str, headers: &str, body: &str) -> Answer {
    let text = format!("{line} HTTP/1.1\r\nhost: d\r\n{headers}content-length: {}\r\n\r\n{body}", body.len());
    ask(door.address, text.as_bytes()).await
}

#[tokio::test]
async fn nobody_without_a_token_in_force_is_answered() {
    let mut vendor = Puppet::playing(whole("200 OK", "content-type: application/json\r\n", "{}")).await;
    let door = Door::to(WireKind::Chat, &vendor.url()).await;
    let until = Instant::now() + Duration::from_secs(60);
    let issue = |name, until| door.tokens.issue(SessionId::derive(&[name]), until).expect("there is randomness");
    let expired = issue("late", Instant::now());
    let gone = issue("gone", until);
    door.tokens.revoke(&SessionId::derive(&["gone"]));
    let other = issue("other", until);
    let good = door.token.expose();
    let headers = [
        String::new(),
        "authorization: Basic x\r\n".to_owned(),
        "x-api-key: sk-ant-something\r\n".to_owned(),
        format!("authorization: Bearer {good}x\r\n"),
        format!("authorization: Bearer {}\r\n", expired.expose()),
        format!("x-goog-api-key: {}\r\n", gone.expose()),
        // Two sessions at once.
        format!("authorization: Bearer {good}\r\nx-api-key: {}\r\n", other.expose()),
    ];
    let lines = [
        ("POST /v1/responses", "{\"error\":{\"message\":\"adjutant: "),
        ("POST /v1/messages", "{\"type\":\"error\",\"error\":{\"type\":\"authentication_error\","),
        ("POST /v1/chat/completions", "{\"error\":{\"message\":\"adjutant: "),
        ("POST /v1beta/models/m:generateContent", "{\"error\":{\"code\":401,\"message\":\"adjutant: "),
        ("GET /v1beta/models", "{\"error\":{\"code\":401,\"message\":\"adjutant: "),
    ];
    for headers in &headers {
        for (line, expected) in lines {
            let answer = request(&door, line, headers, "{\"model\":\"m\"}").await;
            assert_eq!(answer.status, 401, "{line} {headers}");
            assert!(answer.text().starts_with(expected), "{}", answer.text());
            assert!(!answer.text().contains("adjt_"), "{}", answer.text());
        }
    }
    assert!(vendor.was_left_alone() && door.opened().is_empty());
    // Whichever way it is shown, and whatever is shown besides.
    let good = [
        (String::new(), format!("authorization: bearer {good}\r\n")),
        (String::new(), format!("x-api-key: {good}\r\nauthorization: Bearer something\r\n")),
        (String::new(), format!("x-goog-api-key: {good}\r\nauthorization: Bearer {good}\r\n")),
        (format!("?a=1&key={good}&b"), String::new()),
    ];
    for (query, headers) in good {
        let line = format!("POST /v1/chat/completions{query}");
        let answer = request(&door, &line, &headers, "{\"model\":\"m\"}").await;
        assert_eq!(answer.status, 200, "{line} {headers}");
        let (head, _) = vendor.request().await;
        assert!(!head.contains("adjt_"), "{head}");
        if !query.is_empty() {
            assert!(head.starts_with("POST /v1/chat/completions?a=1&b HTTP"), "{head}");
        }
    }
}

#[tokio::test]
async fn a_revoked_token_ends_what_is_under_way() {
    let vendor = Puppet::playing(vec![stream_head(), chunk(": hello\n\n"), super::puppet::Act::Listen]).await;
    let door = Door::to(WireKind::Chat, &vendor.url()).await;
    let mut caller = TcpStream::connect(door.address).await.expect("the door listens");
    let request = door.request(WireKind::Chat, path(WireKind::Chat), b"{\"model\":\"m\",\"stream\":true}");
    caller.write_all(&request).await.expect("the door reads");
    while door.opened().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    door.tokens.revoke(&session());
    let answer = super::client::read(&mut caller).await;
    assert!(!answer.whole);
    assert_eq!(door.closed().await.remove(0).outcome, Outcome::Abandoned);
    assert_eq!(door.post(WireKind::Chat, b"{}").await.status, 401);
}

#[tokio::test]
async fn the_list_of_models_has_the_shape_that_the_caller_knows() {
    let door = Door::to(WireKind::Chat, "http://127.0.0.1:1").await;
    let token = door.token.expose();
    let openai = json!({"object": "list", "data": [
        {"id": "big", "object": "model", "created": 0, "owned_by": "adjutant"},
        {"id": "vendor/small", "object": "model", "created": 0, "owned_by": "adjutant"}]});
    let answer = request(&door, "GET /v1/models", &format!("authorization: Bearer {token}\r\n"), "").await;
    assert_eq!(answer.json(), openai);
    let headers = format!("x-api-key: {token}\r\nanthropic-version: 2023-06-01\r\n");
    let answer = request(&door, "GET /v1/models?limit=1000", &headers, "").await.json();
    let expected = (json!("big"), json!("vendor/small"), json!(false), json!("model"));
    assert_eq!(
        (
            answer["first_id"].clone(),
            answer["last_id"].clone(),
            answer["has_more"].clone(),
            answer["data"][1]["type"].clone()
        ),
        expected
    );
    for line in ["GET /v1/models", "GET /v1beta/models"] {
        let answer = request(&door, line, &format!("x-goog-api-key: {token}\r\n"), "").await.json();
        assert_eq!(answer["models"][1]["name"], "models/vendor/small", "{line}");
    }
    let answer = request(&door, "GET /v1beta/models/vendor%2Fsmall", &format!("x-goog-api-key: {token}\r\n"), "").await;
    assert_eq!(answer.json()["name"], "models/vendor/small");
    let answer = request(&door, "GET /v1/models/gpt-9", &format!("authorization: Bearer {token}\r\n"), "").await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn what_is_not_offered_is_answered_with_what_is() {
    let door = Door::to(WireKind::Chat, "http://127.0.0.1:1").await;
    let offered = "is not offered here; there is: POST /v1/responses, POST /v1/messages,";
    let cases = [
        ("GET /", "", 404, offered),
        ("POST /v1/responses/resp_1/cancel", "", 404, offered),
        ("POST /v1/messages/batches", "", 404, "{\"type\":\"error\",\"error\":{\"type\":\"not_found_error\""),
        ("POST /v1beta/models/m:embedContent", "", 404, "{\"error\":{\"code\":404"),
        ("GET /v1/messages", "", 405, "only POST"),
        ("GET /v1/responses", "connection: upgrade\r\nupgrade: websocket\r\n", 426, ""),
    ];
    for (line, headers, status, words) in cases {
        let answer = request(&door, line, headers, "").await;
        assert_eq!(answer.status, status, "{line}");
        assert!(answer.text().contains(words), "{}", answer.text());
        assert_eq!(answer.body.is_empty(), status == 426, "{line}");
    }
}

#[tokio::test]
async fn only_this_machine_may_knock() {
    let door = Door::to(WireKind::Chat, "http://127.0.0.1:1").await;
    #[derive(Debug)]
    struct Nobody;
    impl adj_gateway::endpoint::Route for Nobody {
        fn target(
            &self,
            _: adj_gateway::endpoint::Question<'_>,
        ) -> Result<adj_domain::ModelRef, adj_gateway::endpoint::Refusal> {
            Err(adj_gateway::endpoint::Refusal::invalid("nothing"))
        }
        fn models(&self, _: &SessionId) -> Vec<String> {
            Vec::new()
        }
    }
    let book = Arc::clone(&door.book);
    let gateway = Arc::new(adj_gateway::Gateway::default());
    let endpoint = Endpoint::new(gateway, Arc::clone(&door.tokens), Arc::new(Nobody), book as _, Bounds::default());
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.expect("a port is free");
    let error = endpoint.serve(listener, door.stop.clone()).await.expect_err("it is open to everybody");
    assert!(error.to_string().contains("must not be reachable from other machines"), "{error}");
}
