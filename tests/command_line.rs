//! The real `skep` program against a control socket whose answers the test gives.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "the program under test is started as its owner would")]

use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use skep::config::Paths;
use skep::control::{Call, ControlServer, Reply, Request};
use skep::model::{
    AgentEvent, AgentName, ConversationId, Failure, InboxId, Outbound, Overview, Place, ToolActivity, Usage,
};
use tokio::sync::mpsc;

const INBOX: InboxId = InboxId(5);

/// A state directory with a door in it.
struct Daemon {
    state: tempfile::TempDir,
    calls: mpsc::Receiver<Call>,
}

/// How a program ended, what it printed and what it complained about.
type Ended = (Option<i32>, String, String);

impl Daemon {
    fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let server = ControlServer::bind(&Paths::under(state.path()).control).unwrap();
        let (sender, calls) = mpsc::channel(4);
        tokio::spawn(server.run(sender));
        Self { state, calls }
    }

    fn skep(&self, arguments: &[&str], input: &str) -> Child {
        start(Some(self.state.path().to_owned()), arguments, input)
    }

    async fn call(&mut self) -> (Request, mpsc::Sender<Reply>) {
        let waited = tokio::time::timeout(Duration::from_secs(20), self.calls.recv()).await;
        let call = waited.unwrap().unwrap();
        (call.request, call.reply)
    }

    /// Answers the request that comes next, which must be `expected`.
    async fn answer(&mut self, expected: Request, replies: impl IntoIterator<Item = Reply>) {
        let (request, sender) = self.call().await;
        assert_eq!(request, expected);
        for reply in replies {
            sender.send(reply).await.unwrap();
        }
    }
}

fn start(state: Option<PathBuf>, arguments: &[&str], input: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skep"));
    command.args(arguments).env_remove("SKEP_STATE").envs(state.map(|state| ("SKEP_STATE", state)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child
}

async fn ended(child: Child) -> Ended {
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert_eq!(output.status.signal(), None);
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn name(text: &str) -> AgentName {
    AgentName::new(text).unwrap()
}

fn ask(agent: &str, conversation: &str, text: &str) -> Request {
    Request::Ask { agent: Some(name(agent)), conversation: conversation.to_owned(), text: text.to_owned() }
}

fn event(event: AgentEvent) -> Reply {
    Reply::Event(Outbound {
        place: Place::Terminal("x".to_owned()),
        conversation: ConversationId(1),
        agent: name("general"),
        run: None,
        inbox: Some(INBOX),
        event,
    })
}

fn finished(text: &str) -> [Reply; 3] {
    let usage = Usage { output: 3, ..Usage::default() };
    [
        Reply::Accepted { inbox: INBOX },
        event(AgentEvent::Finished { text: text.to_owned(), usage }),
        Reply::Done,
    ]
}

fn failed() -> [Reply; 3] {
    let failure = Failure { what: "the model refused".to_owned(), fix: "wait\u{1b}[2J".to_owned() };
    [Reply::Accepted { inbox: INBOX }, event(AgentEvent::Failed(failure)), Reply::Done]
}

fn done(code: i32, output: &str, complaint: &str) -> Ended {
    (Some(code), output.to_owned(), complaint.to_owned())
}

#[tokio::test]
async fn a_question_from_a_pipe_begins_afresh_and_prints_the_answer_alone() {
    let mut daemon = Daemon::start();
    let child = daemon.skep(&["ask", "general", "-"], "what is due?\n");
    let new = Request::New { conversation: "ask".to_owned(), agent: Some(name("general")) };
    daemon.answer(new, [Reply::Done]).await;
    let tool =
        ToolActivity { id: "1".to_owned(), name: "Bash".to_owned(), detail: "ls".to_owned(), ok: None };
    let [accepted, answer, last] = finished("Rent.");
    let replies = [
        accepted,
        event(AgentEvent::Text { delta: "Re".to_owned() }),
        event(AgentEvent::Tool(tool)),
        answer,
        last,
    ];
    daemon.answer(ask("general", "ask", "what is due?\n"), replies).await;
    assert_eq!(ended(child).await, done(0, "Rent.\n", ""));
}

#[tokio::test]
async fn a_question_can_go_on_or_have_a_conversation_of_its_own_and_answer_in_json() {
    let mut daemon = Daemon::start();
    let child = daemon.skep(&["ask", "--continue", "general", "and", "then?"], "");
    daemon.answer(ask("general", "ask", "and then?"), finished("Nothing.")).await;
    assert_eq!(ended(child).await, done(0, "Nothing.\n", ""));
    let child = daemon.skep(&["ask", "--conversation", "cron", "--json", "general", "x"], "");
    daemon.answer(ask("general", "cron", "x"), finished("y")).await;
    let json = "{\"agent\":\"general\",\"text\":\"y\",\"usage\":{\"input\":0,\"output\":3,\"cache_read\":0,\
                \"cache_write\":0,\"cost_micros\":0}}\n";
    assert_eq!(ended(child).await, done(0, json, ""));
}

#[tokio::test]
async fn a_failed_run_ends_in_70_with_its_reason_and_nothing_that_moves_the_cursor() {
    let mut daemon = Daemon::start();
    let child = daemon.skep(&["ask", "-c", "general", "x"], "");
    daemon.answer(ask("general", "ask", "x"), failed()).await;
    assert_eq!(ended(child).await, done(70, "", "skep: the model refused; wait␛[2J\n"));
}

#[tokio::test]
async fn ctrl_c_stops_the_run() {
    let mut daemon = Daemon::start();
    let child = daemon.skep(&["ask", "-c", "general", "x"], "");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (_, sender) = daemon.call().await;
    sender.send(Reply::Accepted { inbox: INBOX }).await.unwrap();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let stop = Request::Stop { conversation: "ask".to_owned(), agent: Some(name("general")) };
    daemon.answer(stop, [Reply::Done]).await;
    sender.send(event(AgentEvent::Cancelled)).await.unwrap();
    sender.send(Reply::Done).await.unwrap();
    let (code, output, complaint) = ended(child).await;
    assert_eq!((code, output.as_str()), (Some(75), ""));
    assert!(complaint.ends_with("skep: the run was stopped\n"), "{complaint}");
}

#[tokio::test]
async fn a_second_ctrl_c_leaves_even_when_the_daemon_is_silent() {
    let mut daemon = Daemon::start();
    let child = daemon.skep(&["ask", "-c", "general", "x"], "");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (_, sender) = daemon.call().await;
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let (_, silent) = daemon.call().await;
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(ended(child).await, done(75, "", "skep: the run was stopped\n"));
    sender.closed().await;
    drop(silent);
}

#[tokio::test]
async fn a_piped_chat_sends_line_by_line_and_tells_that_one_failed() {
    let mut daemon = Daemon::start();
    let child = daemon.skep(&["chat", "general"], "one\n\ntwo \\\nlines\n/quit\nnever sent\n");
    daemon.answer(Request::Version, [Reply::Version { version: "0".to_owned() }]).await;
    daemon.answer(ask("general", "chat", "one"), failed()).await;
    daemon.answer(ask("general", "chat", "two \nlines"), finished("2")).await;
    let complaint = "skep: the model refused; wait␛[2J\nskep: 1 of the messages failed\n";
    assert_eq!(ended(child).await, done(70, "2\n", complaint));
}

#[tokio::test]
async fn a_daemon_that_goes_away_in_the_middle_is_a_temporary_failure() {
    let mut daemon = Daemon::start();
    let child = daemon.skep(&["ask", "-c", "general", "x"], "");
    daemon.answer(ask("general", "ask", "x"), [Reply::Accepted { inbox: INBOX }]).await;
    let start = format!("skep daemon --state {}", daemon.state.path().display());
    let complaint = format!(
        "skep: the daemon went away; what it accepted is kept and goes on when it is back: {start}\n"
    );
    assert_eq!(ended(child).await, done(75, "", &complaint));
}

#[tokio::test]
async fn a_command_in_a_cell_has_this_terminal_and_its_own_exit_code() {
    let mut daemon = Daemon::start();
    let child = daemon.skep(&["exec", "general", "-e", "A=b=c", "--", "wc", "-c"], "12345");
    let call = daemon.calls.recv().await.unwrap();
    let expected = Request::Exec {
        agent: name("general"),
        argv: vec!["wc".to_owned(), "-c".to_owned()],
        env: vec![("A".to_owned(), "b=c".to_owned())],
    };
    assert_eq!(call.request, expected);
    let mut files = call.descriptors.into_iter().map(File::from);
    let (mut input, mut output) = (files.next().unwrap(), files.next().unwrap());
    let mut text = String::new();
    std::io::Read::read_to_string(&mut input, &mut text).unwrap();
    write!(output, "{}", text.len()).unwrap();
    drop((input, output, files));
    call.reply.send(Reply::Exit { code: 3 }).await.unwrap();
    assert_eq!(ended(child).await, done(3, "5", ""));
}

#[tokio::test]
async fn status_in_json_is_the_overview_itself() {
    let mut daemon = Daemon::start();
    let overview = Overview { version: "9".to_owned(), ..Overview::default() };
    let child = daemon.skep(&["status", "--json"], "");
    daemon.answer(Request::Status, [Reply::Overview(Box::new(overview.clone()))]).await;
    let (code, output, _) = ended(child).await;
    assert_eq!((code, serde_json::from_str::<Overview>(&output).unwrap()), (Some(0), overview));
}

#[tokio::test]
async fn pairing_shows_the_code_and_how_long_it_is_good() {
    let mut daemon = Daemon::start();
    let child = daemon.skep(&["pair"], "");
    daemon.answer(Request::Pair, [Reply::Code { code: "K7QF-2M9X".to_owned(), expires_in: 600 }]).await;
    let page = "Send this to your bot in a private message, within 10 min:\n\n    K7QF-2M9X\n\n\
                Whoever sends it first becomes an owner. Do not share it.\n";
    assert_eq!(ended(child).await, done(0, page, ""));
}

#[tokio::test]
async fn without_a_daemon_every_command_says_how_to_start_it() {
    let state = tempfile::tempdir().unwrap();
    let shown = state.path().display();
    let complaint = format!(
        "skep: the skep daemon is not running (nobody answers at {shown}/run/control.sock); \
         start it: skep daemon --state {shown}\n"
    );
    for arguments in
        [&["status"][..], &["agents"], &["runs"], &["ask", "general", "x"], &["chat"], &["pair"], &["reload"]]
    {
        let child = start(Some(state.path().to_owned()), arguments, "");
        assert_eq!(ended(child).await, done(69, "", &complaint), "{arguments:?}");
    }
    let child = start(Some(state.path().to_owned()), &["version"], "");
    let version = format!("skep {}; no daemon answers\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(ended(child).await, done(0, &version, ""));
}

#[tokio::test]
async fn wrong_usage_ends_in_64_and_help_in_0() {
    for (arguments, code) in [
        (&["--help"][..], 0),
        (&["ask", "--help"], 0),
        (&["--version"], 0),
        (&["frobnicate"], 64),
        (&["ask"], 64),
        (&["ask", "Not A Name", "x"], 64),
        (&["exec", "general"], 64),
        (&["runs", "-n", "0"], 64),
        (&["ask", "--conversation", "a b", "general", "x"], 64),
    ] {
        let (ended, ..) = ended(start(None, arguments, "")).await;
        assert_eq!(ended, Some(code), "{arguments:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let state = || Some(dir.path().to_owned());
    assert_eq!(
        ended(start(state(), &["ask", "a"], " \n")).await,
        done(65, "", "skep: the question is empty\n")
    );
    let short = ended(start(state(), &["hash-password"], "short\n")).await;
    assert_eq!(short, done(65, "", "skep: a password has at least 8 characters\n"));
    let (code, hash, _) = ended(start(state(), &["hash-password"], "long enough\n")).await;
    assert!(code == Some(0) && skep::config::password::verify("long enough", hash.trim()), "{hash}");

    std::fs::write(dir.path().join("skep.toml"), "[agents.a]\nidle = 5\n").unwrap();
    let file = dir.path().join("skep.toml").display().to_string();
    let mistake = "agents.a.idle: this must be text in quotes, and is a number; write idle = \"10m\"";
    assert_eq!(
        ended(start(state(), &["check"], "")).await,
        done(78, "", &format!("skep: {file}:2:8: {mistake}\n"))
    );
    let (code, json, _) = ended(start(state(), &["check", "--json"], "")).await;
    let verdict: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &verdict["ok"], &verdict["mistakes"][0]["line"]), (Some(78), &false.into(), &2.into()));
}

#[tokio::test]
async fn a_reader_that_leaves_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_skep"))
        .args(["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let waited = tokio::time::timeout(Duration::from_secs(20), ended(child)).await.unwrap();
    assert_eq!(waited, done(0, "", ""));
}
