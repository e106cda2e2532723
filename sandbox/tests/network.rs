//! Network: an empty namespace with a loopback, one listener handed out, and few kinds of socket.

#![expect(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

mod harness;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use harness::{Control, Env, wait};
use libc::{EAFNOSUPPORT, ECONNREFUSED, ENETUNREACH, ENOENT, EPERM};
use skep_sandbox::End;

#[test]
fn only_tcp_and_unix_sockets_exist() {
    let env = Env::new();
    env.denied(Control::Works, &[EPERM, EAFNOSUPPORT], &["udp", "udp6", "netlink", "udplite"]);
    env.denied(Control::WorksForRoot, &[EPERM, EAFNOSUPPORT], &["raw", "packet"]);
    env.denied(
        Control::NotTried,
        &[EPERM, EAFNOSUPPORT],
        &[
            "ping",
            "sctp",
            "mptcp",
            "dccp",
            "vsock",
            "alg",
            "bluetooth",
            "key",
            "tipc",
            "xdp",
            "smc",
            "rds",
            "qipcrtr",
            "can",
        ],
    );
}

#[test]
fn nothing_on_the_host_or_beyond_is_reachable() {
    let env = Env::new();
    let server = TcpListener::bind("127.0.0.1:0").expect("server");
    let address = format!("connect-tcp:{}", server.local_addr().expect("address"));
    env.denied(Control::Works, &[ECONNREFUSED], &[&address]);
    env.denied(
        Control::NotTried,
        &[ENETUNREACH],
        &[
            "connect-tcp:169.254.169.254:80",
            "connect-tcp:8.8.8.8:53",
            "connect-tcp:10.0.2.2:80",
            "connect-tcp:[2001:db8::1]:80",
        ],
    );
    let text = env.sh("getent hosts example.com; cat /proc/self/net/dev | tail -n +3 | cut -d: -f1").text;
    assert_eq!(text.trim(), "lo");
}

#[test]
fn unix_sockets_of_the_host_are_not_there() {
    use std::os::linux::net::SocketAddrExt as _;
    let env = Env::new();
    let path = env.root.path().join("control.sock");
    let _server = UnixListener::bind(&path).expect("server");
    env.denied(Control::Works, &[ENOENT], &[&format!("connect-unix:{}", path.display())]);
    let name = format!("skep-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("name");
    let _server = UnixListener::bind_addr(&address).expect("server");
    env.denied(Control::Works, &[ECONNREFUSED, EPERM], &[&format!("connect-abstract:{name}")]);
    for path in ["/run/docker.sock", "/run/dbus/system_bus_socket", "/run/systemd/notify"] {
        env.denied(Control::NotTried, &[ENOENT], &[&format!("connect-unix:{path}")]);
    }
}

#[test]
fn the_listener_is_served_from_outside_and_exists_only_inside() {
    let env = Env::new();
    let script = "exec 3<>/dev/tcp/127.0.0.1/8080; echo ping >&3; cat <&3";
    let mut parts = env.parts(&["/bin/bash", "-c", script]);
    parts.listener_port = Some(8080);
    let (mut cell, mut reader) = env.start(parts);
    let listener = cell.take_listener().expect("a listener");
    assert!(cell.take_listener().is_none());
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut stream = loop {
        // Non-blocking, as the daemon's runtime needs it.
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(Instant::now() < deadline)
            }
            Err(error) => panic!("{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    stream.set_nonblocking(false).expect("blocking");
    let mut bytes = [0; 5];
    stream.read_exact(&mut bytes).expect("read");
    assert_eq!(&bytes, b"ping\n");
    let outside = std::net::TcpStream::connect("127.0.0.1:8080");
    assert!(
        outside.is_err()
            || outside.and_then(|s| s.peer_addr()).is_ok_and(|a| a != listener.local_addr().expect("a"))
    );
    stream.write_all(b"pong\n").expect("write");
    drop(stream);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("output");
    assert_eq!((text.as_str(), wait(&mut cell).end), ("pong\n", End::Exited(0)));
}

#[test]
fn two_cells_have_the_same_port_and_do_not_meet() {
    let env = Env::new();
    let cell = || {
        let mut parts = env.parts(&["/bin/sleep", "60"]);
        parts.listener_port = Some(8080);
        env.start(parts)
    };
    let (first, second) = (cell(), cell());
    assert_ne!(first.0.pid(), second.0.pid());
}

#[test]
fn servers_inside_work() {
    let env = Env::new();
    let text = env.sh_ok(
        "python3 - <<'END'\nimport socket,threading\ns=socket.create_server(('127.0.0.1',3000))\n\
         t=threading.Thread(target=lambda:s.accept()[0].sendall(b'ok'))\nt.start()\n\
         print(socket.create_connection(('localhost',3000)).recv(2).decode())\nEND",
    );
    assert_eq!(text, "ok\n");
}
