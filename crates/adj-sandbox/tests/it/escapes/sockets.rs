//! Reaching servers that are not the command's own.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};

use adj_sandbox::Plan;

use super::Harm::{Broken, Leaked, Seen};
use super::{Case, case};
use crate::stage::{CANARY, Stage};

pub(super) const CASES: &[Case] = &[
    case("loopback of the host", "exec 3<>/dev/tcp/127.0.0.1/$PORT && cat <&3", Leaked),
    case("loopback by another of its addresses", "exec 3<>/dev/tcp/127.9.9.9/$SPREAD && cat <&3", Leaked).after(spread),
    case("loopback by name", "exec 3<>/dev/tcp/localhost/$PORT && cat <&3", Leaked),
    case("this host by nobody's address", "exec 3<>/dev/tcp/0.0.0.0/$PORT && cat <&3", Leaked),
    case("loopback of IPv6", "exec 3<>/dev/tcp/::1/$SIX && cat <&3", Leaked).after(six).where_("IPv6", has_six),
    case("loopback by fast open", "$ATTACK fast-open $PORT", Leaked),
    case("loopback by many paths", "$ATTACK multipath $PORT", Leaked).where_("MPTCP", || has_protocol("MPTCP")),
    case("own address of the host", "exec 3<>/dev/tcp/$ADDRESS_OF_HOST/$SPREAD && cat <&3", Leaked)
        .after(|stage| {
            spread(stage);
            stage.say("ADDRESS_OF_HOST", own_address().unwrap_or_default());
        })
        .where_("a network", || own_address().is_some()),
    case(
        "datagram to the loopback",
        "echo hello > /dev/udp/127.0.0.1/$UDP",
        Seen(|stage| stage.udp.recv(&mut [0; 8]).is_ok()),
    ),
    case(
        "question to a name server",
        "echo hello > /dev/udp/$SERVER/$UDP",
        Seen(|stage| stage.udp.recv(&mut [0; 8]).is_ok()),
    )
    .after(|stage| stage.say("SERVER", "localhost")),
    case("socket by path", "$ATTACK unix $OUT/sock", Leaked),
    case("socket by path through a process's root", "$ATTACK unix /proc/$OWN/root$OUT/sock", Leaked),
    case("socket by path through a symlink", "ln -s $OUT/sock s; $ATTACK unix s", Leaked),
    case("socket in /run", "$ATTACK unix /run/adj-$OWN.sock", Leaked).by_root().after(|stage| {
        let path = format!("/run/adj-{}.sock", std::process::id());
        // Left over from a run with the same number that was killed.
        let _ = fs::remove_file(&path);
        serve(UnixListener::bind(&path).expect("a listener"));
        stage.finally(move || drop(fs::remove_file(path)));
    }),
    case("socket in the workspace", "$ATTACK unix $WS/sock", Leaked)
        .after(|stage| serve(UnixListener::bind(stage.workspace.join("sock")).expect("a listener"))),
    case("socket in a folder that is shown", "$ATTACK unix $OUT/shown/sock", Leaked)
        .after(|stage| {
            fs::create_dir(stage.outside.join("shown")).expect("a folder");
            serve(UnixListener::bind(stage.outside.join("shown/sock")).expect("a listener"));
        })
        .with(show),
    case("socket deep in the workspace", "$ATTACK unix a/b/c/d/e/f/g/h/i/j/sock", Leaked).after(|stage| {
        let folder = stage.workspace.join("a/b/c/d/e/f/g/h/i/j");
        fs::create_dir_all(&folder).expect("folders");
        serve(UnixListener::bind(folder.join("sock")).expect("a listener"));
    }),
    case("socket in .git", "$ATTACK unix .git/sock", Leaked)
        .after(|stage| serve(UnixListener::bind(stage.workspace.join(".git/sock")).expect("a listener"))),
    case("socket that was moved", "mv sock s; $ATTACK unix s; mv d e; $ATTACK unix e/sock; rm -f sock", Leaked).after(
        |stage| {
            serve(UnixListener::bind(stage.workspace.join("sock")).expect("a listener"));
            fs::create_dir(stage.workspace.join("d")).expect("a folder");
            serve(UnixListener::bind(stage.workspace.join("d/sock")).expect("a listener"));
        },
    ),
    case("socket by a second name", "ln sock s; $ATTACK unix s", Leaked)
        .after(|stage| serve(UnixListener::bind(stage.workspace.join("sock")).expect("a listener"))),
    case("datagrams in the workspace", "$ATTACK datagram $WS/d; $ATTACK message $WS/d", Seen(has_datagram)).after(
        |stage| {
            stage.datagrams = UnixDatagram::bind(stage.workspace.join("d")).expect("a socket");
            stage.datagrams.set_nonblocking(true).expect("a flag");
        },
    ),
    case("socket in a workspace that is only shown", "$ATTACK unix $WS/sock", Leaked)
        .after(|stage| serve(UnixListener::bind(stage.workspace.join("sock")).expect("a listener")))
        .with(|_, plan| plan.mode = adj_sandbox::Mode::ReadOnly),
    case("socket with another name in a folder that is shown", "$ATTACK unix $OUT/shown/new", Leaked)
        .after(|stage| {
            fs::create_dir(stage.outside.join("shown")).expect("a folder");
            serve(UnixListener::bind(stage.outside.join("shown/sock")).expect("a listener"));
            fs::rename(stage.outside.join("shown/sock"), stage.outside.join("shown/new")).expect("another name");
        })
        .with(show),
    case("socket in a folder that may be written to", "$ATTACK unix $OUT/shown/sock", Leaked)
        .after(|stage| {
            fs::create_dir(stage.outside.join("shown")).expect("a folder");
            serve(UnixListener::bind(stage.outside.join("shown/sock")).expect("a listener"));
        })
        .with(|stage, plan| {
            show(stage, plan);
            plan.binds.last_mut().expect("it").writable = true;
        }),
    case("socket below a private layer", "$ATTACK unix $WS/sock", Leaked)
        .after(|stage| {
            serve(UnixListener::bind(stage.workspace.join("sock")).expect("a listener"));
            for name in ["upper", "work"] {
                fs::create_dir(stage.workspace.with_file_name(name)).expect("a folder");
            }
        })
        .with(|stage, plan| {
            let beside = |name| stage.workspace.with_file_name(name);
            plan.workspace = adj_sandbox::Mount::Overlay {
                lower: stage.workspace.clone(),
                upper: beside("upper"),
                work: beside("work"),
                inside: stage.workspace.clone(),
            };
        }),
    case("socket by abstract name", "$ATTACK abstract $ABSTRACT", Leaked),
    case("datagram by path", "$ATTACK datagram $OUT/datagrams", Seen(has_datagram)),
    case("datagram by message", "$ATTACK message $OUT/datagrams", Seen(has_datagram)),
    case("datagram by abstract name", "$ATTACK abstract-datagram $ABSTRACT.d", Seen(has_datagram)).after(|stage| {
        let address = SocketAddr::from_abstract_name(format!("{}.d", stage.abstract_name)).expect("an address");
        stage.datagrams = UnixDatagram::bind_addr(&address).expect("a socket");
        stage.datagrams.set_nonblocking(true).expect("a flag");
    }),
    case("list local sockets", "grep -q -e $ABSTRACT /proc/net/unix && echo BROKEN", Broken),
    case("list connections", "grep -qi $(printf ':%04X' $PORT) /proc/net/tcp && echo BROKEN", Broken),
    case(
        "list connections through the caller",
        "grep -qi $(printf ':%04X' $PORT) /proc/$OWN/net/tcp && echo BROKEN",
        Broken,
    ),
    case("list interfaces", "grep -qv -e lo: -e '|' /proc/net/dev && echo BROKEN", Broken)
        .where_("a network", || own_address().is_some()),
    case("packet socket", "$ATTACK family 17 3/0", Broken).aside(),
    case("raw socket", "$ATTACK family 2 3/1", Broken).aside(),
    case("raw socket of IPv6", "$ATTACK family 10 3/58", Broken).aside().where_("IPv6", has_six),
    case("many paths", "$ATTACK family 2 1/262", Broken).where_("MPTCP", || has_protocol("MPTCP")),
    case("SCTP", "$ATTACK family 2 1/132", Broken).where_("SCTP", || has_protocol("SCTP")),
    case("DCCP", "$ATTACK family 2 6/33", Broken).where_("DCCP", || has_protocol("DCCP")),
    case("L2TP", "$ATTACK family 2 2/115", Broken).where_("L2TP", || has_protocol("L2TP/IP")),
    case("SMC", "$ATTACK family 2 1/256", Broken).where_("SMC", || has_protocol("SMC")),
    case("UDP-Lite", "$ATTACK family 2 2/136", Broken).where_("UDP-Lite", || has_protocol("UDP-Lite")),
    case("another protocol inside TCP", "$ATTACK option 6 31", Broken),
    case("another protocol inside UDP", "$ATTACK option 17 100", Broken),
    case("a filter on a socket", "$ATTACK filter", Broken),
    case("vsock", "$ATTACK family 40 1/0", Broken).where_("vsock", || has_protocol("AF_VSOCK")),
    case("express data path", "$ATTACK family 44 3/0", Broken).aside().where_("XDP", || has_protocol("XDP")),
    case("kernel crypto", "$ATTACK family 38 5/0", Broken).where_("kernel crypto", || has_protocol("ALG")),
    case("link layer of Bluetooth", "$ATTACK family 31 3/1", Broken).where_("Bluetooth", || has_protocol("HCI")),
    case("netlink: connections", "$ATTACK family 16 3/4", Broken),
    case("netlink: packet filters", "$ATTACK family 16 3/12", Broken).where_("netfilter", || has_netlink(12)),
    case("netlink: keys of connections", "$ATTACK family 16 3/6", Broken).where_("xfrm", || has_netlink(6)),
    case("netlink: audit", "$ATTACK family 16 3/9", Broken).where_("audit", || has_netlink(9)),
    case("netlink: devices", "$ATTACK family 16 3/15", Broken),
    case("netlink: families", "$ATTACK family 16 3/16", Broken),
    case("a network device", "test -e /dev/net/tun && echo BROKEN", Broken)
        .where_("tunnels", || std::path::Path::new("/dev/net/tun").exists()),
];

fn show(stage: &Stage, plan: &mut Plan) {
    let host = stage.outside.join("shown");
    plan.binds.push(adj_sandbox::Bind { inside: host.clone(), host, writable: false });
}

fn serve(listener: UnixListener) {
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|mut peer| drop(peer.write_all(CANARY.as_bytes())));
    });
}

fn serve_tcp(stage: &mut Stage, address: &str, name: &str) {
    let Ok(listener) = TcpListener::bind(address) else { return };
    stage.say(name, listener.local_addr().expect("an address").port());
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|mut peer| drop(peer.write_all(CANARY.as_bytes())));
    });
}

/// A server at every address.
fn spread(stage: &mut Stage) {
    serve_tcp(stage, "0.0.0.0:0", "SPREAD");
}

fn six(stage: &mut Stage) {
    serve_tcp(stage, "[::1]:0", "SIX");
}

fn has_six() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

/// The address that this machine would use for others, if it has one; asking sends nothing.
fn own_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.200:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then(|| address.to_string())
}

fn has_protocol(name: &str) -> bool {
    let protocols = fs::read_to_string("/proc/net/protocols").expect("protocols");
    protocols.lines().any(|line| line.split_whitespace().next() == Some(name))
}

fn has_netlink(number: u32) -> bool {
    // The kernel's own end of each protocol is listed with its number.
    let sockets = fs::read_to_string("/proc/net/netlink").expect("sockets");
    sockets.lines().skip(1).any(|line| line.split_whitespace().nth(1) == Some(&number.to_string()))
}

fn has_datagram(stage: &mut Stage) -> bool {
    stage.datagrams.recv(&mut [0; 8]).is_ok()
}

#[tokio::test]
async fn sockets_outside_are_out_of_reach() {
    super::nobody_gets_out("sockets", "escapes::sockets::sockets_outside_are_out_of_reach", CASES).await;
}
