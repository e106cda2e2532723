//! The door as a client meets it, hostile ones included.

use std::os::fd::AsFd;
use std::path::PathBuf;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::*;
use crate::model::InboxId;

struct Door {
    _dir: tempfile::TempDir,
    path: PathBuf,
    calls: mpsc::Receiver<Call>,
    _server: tokio::task::JoinHandle<Result<(), ControlError>>,
}

fn open() -> Door {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/control.sock");
    let server = ControlServer::bind(&path).unwrap();
    let (sender, calls) = mpsc::channel(4);
    let _server = tokio::spawn(server.run(sender));
    Door { _dir: dir, path, calls, _server }
}

impl Door {
    async fn say(&self, bytes: &[u8]) -> UnixStream {
        let mut stream = UnixStream::connect(&self.path).await.unwrap();
        // The server may refuse before it has read all.
        let _ = stream.write_all(bytes).await;
        stream
    }
}

async fn replies(stream: UnixStream) -> Vec<Reply> {
    let mut lines = BufReader::new(stream).lines();
    let mut replies = Vec::new();
    while let Ok(Some(line)) = lines.next_line().await {
        replies.push(serde_json::from_str(&line).unwrap());
    }
    replies
}

fn refusal(replies: &[Reply]) -> &str {
    match replies {
        [Reply::Error { message, .. }] => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_becomes_a_call_and_its_replies_come_back_in_order() {
    let mut door = open();
    let stream =
        door.say(b"{\"request\":\"ask\",\"agent\":null,\"conversation\":\"c\",\"text\":\"hi\"}\n").await;
    let call = door.calls.recv().await.unwrap();
    assert_eq!(
        call.request,
        Request::Ask { agent: None, conversation: "c".to_owned(), text: "hi".to_owned() }
    );
    assert_eq!(call.caller.uid, nix::unistd::geteuid().as_raw());
    let answer = vec![Reply::Accepted { inbox: InboxId(7) }, Reply::Done];
    for reply in answer.clone() {
        call.reply.send(reply).await.unwrap();
    }
    assert_eq!(replies(stream).await, answer);
}

#[tokio::test]
async fn a_handler_that_goes_away_ends_the_connection() {
    let mut door = open();
    let stream = door.say(b"{\"request\":\"status\"}\n").await;
    drop(door.calls.recv().await.unwrap());
    assert_eq!(replies(stream).await, []);
}

#[tokio::test]
async fn a_client_that_hangs_up_is_noticed() {
    let mut door = open();
    let stream = door.say(b"{\"request\":\"status\"}\n").await;
    let call = door.calls.recv().await.unwrap();
    drop(stream);
    call.reply.closed().await;
}

#[tokio::test]
async fn rubbish_is_answered_and_the_next_client_is_served() {
    let mut door = open();
    let cases: [(&[u8], &str); 7] = [
        (b"\n", "this is not a request: EOF"),
        (b"hello\n", "this is not a request: expected value"),
        (b"\xff\xfe\n", "this is not a request"),
        (b"{\"request\":\"launch_missiles\"}\n", "this is not a request: unknown variant `launch_missiles`"),
        (b"{\"request\":\"runs\",\"limit\":1,\"more\":2}\n", "this is not a request: unknown field `more`"),
        (b"{\"request\":\"exec\",\"agent\":\"a\",\"argv\":[]}\n", "there is no command"),
        (b"{\"request\":\"exec\",\"agent\":\"a\",\"argv\":[\"ls\"]}\n", "the request came without its input"),
    ];
    for (bytes, expected) in cases {
        let told = replies(door.say(bytes).await).await;
        assert!(refusal(&told).starts_with(expected), "{told:?}");
    }
    let deep = [b"[".repeat(500_000), b"\n".to_vec()].concat();
    let told = replies(door.say(&deep).await).await;
    assert!(refusal(&told).starts_with("this is not a request"), "{told:?}");
    let stream = door.say(b"{\"request\":\"version\"}\n").await;
    door.calls.recv().await.unwrap().reply.send(Reply::Done).await.unwrap();
    assert_eq!(replies(stream).await, [Reply::Done]);
}

#[tokio::test]
async fn a_line_without_end_is_cut_off_at_a_mebibyte() {
    let door = open();
    let mut stream = UnixStream::connect(&door.path).await.unwrap();
    let flood = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    while stream.write_all(&flood).await.is_ok() {
        sent += flood.len();
        assert!(sent < 8 * LINE_LIMIT, "nobody stopped the flood");
    }
    let told = replies(stream).await;
    assert_eq!(refusal(&told), "a request has at most 1 MiB");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_told_to_leave() {
    let door = open();
    let told = replies(door.say(b"{\"request\"").await).await;
    assert_eq!(refusal(&told), "no request came within 10 seconds");
}

#[tokio::test]
async fn one_connection_too_many_is_told_to_wait() {
    let mut door = open();
    let mut held = Vec::new();
    let mut waiting = Vec::new();
    for _ in 0..16 {
        waiting.push(door.say(b"{\"request\":\"status\"}\n").await);
        held.push(door.calls.recv().await.unwrap());
    }
    let told = replies(door.say(b"{\"request\":\"status\"}\n").await).await;
    assert_eq!(refusal(&told), "16 commands are being served");
    held.clear();
    for stream in waiting {
        assert_eq!(replies(stream).await, []);
    }
    let again = door.say(b"{\"request\":\"status\"}\n").await;
    door.calls.recv().await.unwrap().reply.send(Reply::Done).await.unwrap();
    assert_eq!(replies(again).await, [Reply::Done]);
}

#[tokio::test]
async fn descriptors_reach_an_exec_call_and_no_other() {
    let mut door = open();
    let stream = UnixStream::connect(&door.path).await.unwrap();
    let input = std::io::stdin();
    let three = [input.as_fd(), input.as_fd(), input.as_fd()];
    send_with_descriptors(
        stream.as_fd(),
        b"{\"request\":\"exec\",\"agent\":\"a\",\"argv\":[\"ls\"]}\n",
        &three,
    )
    .unwrap();
    let call = door.calls.recv().await.unwrap();
    assert_eq!(call.descriptors.len(), 3);
    call.reply.send(Reply::Exit { code: 3 }).await.unwrap();
    assert_eq!(replies(stream).await, [Reply::Exit { code: 3 }]);

    let stream = UnixStream::connect(&door.path).await.unwrap();
    send_with_descriptors(stream.as_fd(), b"{\"request\":\"status\"}\n", &three).unwrap();
    let call = door.calls.recv().await.unwrap();
    assert_eq!(call.descriptors.len(), 0);
}

#[tokio::test]
async fn two_daemons_cannot_have_one_door_and_a_stale_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/control.sock");
    let first = ControlServer::bind(&path).unwrap();
    assert!(matches!(ControlServer::bind(&path), Err(ControlError::Running(_))));
    drop(first);
    assert!(!path.exists());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a daemon that was killed leaves its socket");
    let _second = ControlServer::bind(&path).unwrap();
}

#[tokio::test]
async fn the_door_is_closed_to_others_and_refuses_an_open_directory() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/control.sock");
    let _door = ControlServer::bind(&path).unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o660, 0o750));

    let open = dir.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(ControlServer::bind(&open.join("s")), Err(ControlError::OpenDirectory(_))));
    let long = dir.path().join("x".repeat(120));
    assert!(matches!(ControlServer::bind(&long), Err(ControlError::TooLong(_))));
}
