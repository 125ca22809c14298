//! Listeners: whose files they are, what is in their way, and who may reach them.

use super::{ask_unix, holder, request};
use adj_gateway::CancellationToken;
use adj_server::{
    Bounds, Gauges, Parts, Routes, Seat, Server, Tokens,
    listen::{self, Door, ListenError, PlainHttp, UnixDoor},
};
use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    path::Path,
    sync::Arc,
};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").mode() & 0o777
}

#[tokio::test]
async fn the_socket_is_its_owners_takes_the_place_of_a_stale_one_and_goes_with_its_door() {
    let home = tempfile::tempdir().expect("a scratch folder");
    let folder = home.path().join("daemon");
    let seat = Seat::take(&folder, holder()).expect("nobody is here");
    // What a process leaves that was killed: sockets under both names, which nobody listens on.
    for name in ["socket", "socket.new"] {
        drop(UnixListener::bind(folder.join(name)).expect("a socket"));
    }
    let door = UnixDoor::open(&seat).expect("nobody listens there");
    assert_eq!((mode(&folder), mode(door.path()), mode(&folder.join("seat"))), (0o700, 0o600, 0o600));
    assert!(!folder.join("socket.new").exists());
    let path = door.path().to_owned();
    drop(door);
    assert!(!path.exists());

    // Whatever else lies there is not ours to remove, then or later.
    fs::write(&path, "mine").expect("our own folder");
    assert!(matches!(UnixDoor::open(&seat), Err(ListenError::NotASocket { .. })));
    fs::remove_file(&path).expect("our own file");
    let door = UnixDoor::open(&seat).expect("nothing is in the way");
    fs::remove_file(&path).expect("our own file");
    fs::write(&path, "mine").expect("our own folder");
    drop(door);
    assert_eq!(fs::read_to_string(&path).expect("it is still there"), "mine");

    drop(seat);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("our own folder");
    let error = Seat::take(&folder, holder()).expect_err("others may look in").to_string();
    assert!(error.contains("chmod 700"), "{error}");
}

#[tokio::test]
async fn a_path_may_be_longer_than_the_kernel_takes() {
    let home = tempfile::tempdir().expect("a scratch folder");
    let folder = home.path().join("d".repeat(120)).join("daemon");
    let seat = Seat::take(&folder, holder()).expect("nobody is here");
    let door = UnixDoor::open(&seat).expect("there is a way");
    let stop = CancellationToken::new();
    let parts = Parts {
        routes: Routes::new(),
        tokens: Tokens::new(&folder),
        hosts: Default::default(),
        bounds: Bounds::default(),
        gauges: Arc::new(Gauges::default()),
    };
    let server = Server::new(parts, stop.clone());
    let task = tokio::spawn(async move { server.serve(vec![Door::Unix(door)]).await });
    let short = home.path().join("s");
    std::os::unix::fs::symlink(&folder, &short).expect("a link");
    let answer = ask_unix(&short.join("socket"), &request("GET /", &[], b"")).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    stop.cancel();
    task.await.expect("it ends");
    assert!(!folder.join("socket").exists());
}

#[tokio::test]
async fn addresses_of_other_machines_need_a_word() {
    for (address, is_loopback) in [
        ("127.0.0.1:0", true),
        ("127.9.9.9:0", true),
        ("[::ffff:127.0.0.1]:0", true),
        ("0.0.0.0:0", false),
        ("[::]:0", false),
    ] {
        let address = address.parse().expect("it is one");
        let found = listen::tcp(address, PlainHttp::LoopbackOnly).await;
        let is_refused = matches!(found, Err(ListenError::PlainHttp { .. }));
        assert_eq!(is_refused, !is_loopback, "{address}: {found:?}");
    }
    listen::tcp(([0, 0, 0, 0], 0).into(), PlainHttp::Allowed).await.expect("it was allowed");
}
