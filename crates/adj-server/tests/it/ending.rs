//! The end: requests under way are answered, streams are told, and nobody holds it up for ever.

use super::{House, ask_unix, client, request};
use adj_server::{Bounds, Seat};
use std::time::{Duration, Instant};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::sleep};

async fn begun(house: &House, line: &str, body: &str) -> TcpStream {
    let mut connection = TcpStream::connect(house.address).await.expect("the door listens");
    connection.write_all(&house.request(line, &[], body.as_bytes())).await.expect("it can be written");
    connection
}

#[tokio::test]
async fn what_is_under_way_is_answered_and_streams_say_goodbye() {
    let house = House::open().await;
    let mut slow = begun(&house, "POST /test/slow", "700").await;
    let mut stream = begun(&house, "GET /test/events", "").await;
    let idle = TcpStream::connect(house.address).await.expect("the door listens");
    sleep(Duration::from_millis(200)).await;
    let told = ask_unix(&house.socket, &request("POST /admin/stop", &[], b"")).await;
    assert_eq!((told.status, &told.json()["stopping"]), (202, &true.into()));

    let (slow, stream) = tokio::join!(client::read(&mut slow), client::read(&mut stream));
    assert_eq!((slow.status, slow.text().as_str(), slow.whole), (200, "\"late\"", true));
    assert!(stream.whole && stream.text().ends_with("event: goodbye\n\n"), "{}", stream.text());
    house.task.await.expect("it ends");
    assert!(TcpStream::connect(house.address).await.is_err() && !house.socket.exists());
    Seat::take(&house.folder, super::holder()).expect("the seat is free");
    drop(idle);
}

#[tokio::test]
async fn what_does_not_end_in_its_time_is_cut() {
    let house = House::with(Bounds { grace: Duration::from_millis(300), ..Bounds::default() }).await;
    let mut slow = begun(&house, "POST /test/slow", "60000").await;
    let lazy = begun(&house, "GET /test/flood", "").await;
    sleep(Duration::from_millis(200)).await;
    let told = Instant::now();
    house.stop.cancel();
    house.task.await.expect("it ends");
    assert!((250..5000).contains(&told.elapsed().as_millis()), "{:?}", told.elapsed());
    let mut rest = Vec::new();
    let closed = tokio::io::AsyncReadExt::read_to_end(&mut slow, &mut rest).await;
    assert!(rest.is_empty(), "{closed:?} {}", String::from_utf8_lossy(&rest));
    drop(lazy);
}

#[tokio::test]
async fn stopping_is_not_told_more_than_it_understands() {
    let house = House::open().await;
    let answer = ask_unix(&house.socket, &request("POST /admin/stop", &[], b"{\"at\": \"noon\"}")).await;
    assert_eq!(super::kind(&answer), "400 invalid_request_error");
    assert!(answer.text().contains("unknown field `at`"), "{}", answer.text());
    assert!(!house.stop.is_cancelled());
}
