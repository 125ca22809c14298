//! Every request is written down before it leaves, and once more when it is over, however it ends.

use super::{
    Book, Door, WIRES,
    client::ask,
    path,
    puppet::{Act, Puppet, chunk, stream_head, whole},
    session,
};
use adj_gateway::endpoint::{Bounds, Operation, Outcome, Wire};
use adj_providers::WireKind;
use std::time::Duration;
use tokio::{io::AsyncWriteExt, net::TcpStream};

#[tokio::test]
async fn the_opening_says_who_asks_for_what() {
    let vendor = Puppet::playing(whole("200 OK", "content-type: application/json\r\n", "{\"input_tokens\":3}")).await;
    let door = Door::to(WireKind::Anthropic, &vendor.url()).await;
    let body = "{\"model\":\"other\"}";
    let request = format!(
        "POST /v1/messages/count_tokens?beta=true HTTP/1.1\r\nhost: d\r\nx-api-key: {}\r\nx-claude-code-agent-id: helper\r\n\
         x-stainless-retry-count: 1\r\ncontent-length: {}\r\n\r\n{body}",
        door.token.expose(),
        body.len()
    );
    assert_eq!(ask(door.address, request.as_bytes()).await.status, 200);
    let opening = door.opened().remove(0);
    assert_eq!((opening.session, opening.wire, opening.operation), (session(), Wire::Messages, Operation::CountTokens));
    assert_eq!((opening.asked_model.as_str(), opening.model.name.as_str()), ("other", "the \"real\" one"));
    assert_eq!((opening.attribution.thread.as_deref(), opening.attribution.retries), (Some("helper"), 1));
    assert_eq!((opening.request_bytes, opening.converted), (body.len() as u64, false));
    let closing = door.closed().await.remove(0);
    assert_eq!((closing.request, closing.session), (opening.request, session()));
    assert_eq!((closing.outcome, closing.usage), (Outcome::Answered, None));
}

#[tokio::test]
async fn a_meter_that_refuses_stops_the_request_in_words_that_end_every_client() {
    let mut vendor = Puppet::playing(Vec::new()).await;
    let statuses = [400, 429, 429];
    for (wire, status) in WIRES.into_iter().zip(statuses) {
        let door = Door::to(wire, &vendor.url()).await;
        *door.book.refuses.lock().expect("nobody panics with the lock") = true;
        let answer = door.post(wire, b"{\"model\":\"m\",\"stream\":true}").await;
        assert_eq!((answer.status, answer.header("x-should-retry")), (status, Some("false")), "{wire:?}");
        assert!(answer.text().contains("nothing is left of the budget of 5 USD"), "{}", answer.text());
        assert!(door.closed().await.is_empty());
    }
    assert!(vendor.was_left_alone());
}

#[tokio::test]
async fn a_request_is_closed_exactly_once_wherever_it_is_dropped() {
    // While it is being opened, before the vendor's head, within the answer; by the caller, and by the end of the door.
    let silent = vec![Act::Listen];
    let talking = vec![stream_head(), chunk(": hello\n\n"), Act::Listen];
    for (delay, acts) in [(300, silent.clone()), (0, silent), (0, talking)] {
        for door_ends in [false, true] {
            let vendor = Puppet::playing(acts.clone()).await;
            let book = Book { delay: Duration::from_millis(delay), ..Book::default() };
            let door = Door::with(WireKind::Chat, &vendor.url(), Bounds::default(), book).await;
            let mut caller = TcpStream::connect(door.address).await.expect("the door listens");
            let request = door.request(WireKind::Chat, path(WireKind::Chat), b"{\"model\":\"m\",\"stream\":true}");
            caller.write_all(&request).await.expect("the door reads");
            tokio::time::sleep(Duration::from_millis(150)).await;
            if door_ends {
                door.stop.cancel();
            } else {
                drop(caller);
            }
            while door.opened().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let closed = door.closed().await;
            assert_eq!(closed.len(), 1);
            assert_eq!(closed[0].outcome, Outcome::Abandoned);
            if door_ends {
                door.task.await.expect("the door closes");
            }
        }
    }
}
