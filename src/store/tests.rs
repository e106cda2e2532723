//! The store as its callers use it, on a real file.

use std::path::PathBuf;

use super::*;
use crate::model::{
    AgentName, ChatId, Content, InboxId, MessageId, ModelCall, Origin, Place, RunId, RunState, SessionId,
    UpdateId, Usage, UserId,
};

struct Scratch {
    _dir: tempfile::TempDir,
    path: PathBuf,
    store: Store,
}

fn scratch() -> Scratch {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("skep.db");
    let store = Store::open(&path).unwrap();
    Scratch { _dir: dir, path, store }
}

fn telegram() -> Place {
    Place::Telegram { chat: ChatId(42), thread: None }
}

fn agent() -> AgentName {
    AgentName::new("general").unwrap()
}

async fn run(store: &Store, update: i64, prompt: &str) -> Run {
    let update = AcceptedUpdate { id: UpdateId(update), raw: Some("{}".to_owned()) };
    let rows = store.accept_updates(vec![update]).await.unwrap();
    let InboxRow::Update { id, .. } = rows[0] else { panic!("not an update") };
    let conversation = store.conversation(telegram(), agent()).await.unwrap().id;
    let new = NewRun { conversation, inbox: id, prompt: prompt.to_owned(), reply_to: Some(MessageId(7)) };
    store.enqueue_run(new).await.unwrap().unwrap()
}

#[tokio::test]
async fn an_update_is_stored_once_and_a_strangers_words_are_not_kept() {
    let s = scratch();
    let batch = vec![
        AcceptedUpdate { id: UpdateId(10), raw: Some("{\"a\":1}".to_owned()) },
        AcceptedUpdate { id: UpdateId(11), raw: None },
    ];
    assert_eq!(s.store.accept_updates(batch.clone()).await.unwrap().len(), 1);
    assert_eq!(s.store.accept_updates(batch).await.unwrap(), Vec::new());
    assert_eq!(s.store.last_update().await.unwrap(), Some(UpdateId(11)));
    let expected = InboxRow::Update { id: InboxId(1), raw: "{\"a\":1}".to_owned() };
    assert_eq!(s.store.unrouted().await.unwrap(), vec![expected]);
    s.store.settle(InboxId(1)).await.unwrap();
    assert_eq!(s.store.unrouted().await.unwrap(), Vec::new());
}

#[tokio::test]
async fn a_submission_survives_reopening() {
    let s = scratch();
    let origin = Origin { place: Place::Terminal("me".to_owned()), user: None, message: None };
    let content = Content::Text { agent: None, text: "hi".to_owned(), reply_to: None };
    let id = s.store.submit(origin.clone(), content.clone()).await.unwrap();
    drop(s.store);
    let again = Store::open(&s.path).unwrap();
    assert_eq!(again.unrouted().await.unwrap(), vec![InboxRow::Submitted { id, origin, content }]);
}

#[tokio::test]
async fn a_run_goes_from_queued_to_its_one_ending() {
    let s = scratch();
    let queued = run(&s.store, 1, "hello").await;
    assert_eq!((queued.state, queued.attempts), (RunState::Queued, 0));
    assert_eq!(s.store.unrouted().await.unwrap(), Vec::new());
    s.store.run_handed(queued.id).await.unwrap();
    assert_eq!(s.store.cancel_queued(queued.id, None).await.unwrap(), Cancelling::TooLate);
    let open = s.store.unfinished_runs().await.unwrap();
    assert_eq!((open[0].state, open[0].attempts), (RunState::Running, 1));
    let call = ModelCall {
        agent: agent(),
        model: "m".to_owned(),
        status: 200,
        usage: Usage { input: 5, output: 6, ..Usage::default() },
    };
    let ending = Ending {
        state: RunState::Finished,
        text: "done".to_owned(),
        error: None,
        cost_micros: 9,
        calls: vec![call.clone(), call],
    };
    assert!(s.store.end_run(queued.id, ending.clone()).await.unwrap());
    assert!(!s.store.end_run(queued.id, ending).await.unwrap(), "a second ending changes nothing");
    let used = Usage { input: 10, output: 12, cost_micros: 9, ..Usage::default() };
    assert_eq!(s.store.latest_runs(5).await.unwrap()[0].usage, used);
    let usage = s.store.usage().await.unwrap();
    assert_eq!((usage.today, usage.month, usage.calls_today, usage.errors_today), (used, used, 2, 0));
    let rows = s.store.ready_for(ChatId(42)).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].text.as_str(), rows[0].reply_to), ("done", Some(MessageId(7))));
}

#[tokio::test]
async fn a_send_whose_confirmation_was_lost_is_marked_after_a_restart() {
    let s = scratch();
    let run = run(&s.store, 1, "hello").await;
    s.store.run_handed(run.id).await.unwrap();
    let ending = Ending {
        state: RunState::Finished,
        text: "done".to_owned(),
        error: None,
        cost_micros: 0,
        calls: Vec::new(),
    };
    s.store.end_run(run.id, ending).await.unwrap();
    let row = s.store.ready_for(ChatId(42)).await.unwrap().remove(0);
    s.store.outbox_sending(row.id).await.unwrap();
    assert_eq!(s.store.ready_for(ChatId(42)).await.unwrap(), Vec::new());
    assert_eq!(s.store.recover_outbox().await.unwrap(), vec![ChatId(42)]);
    let row = s.store.ready_for(ChatId(42)).await.unwrap().remove(0);
    assert!(row.repeated);
    s.store.outbox_sent(row.id, MessageId(99), Last::Yes).await.unwrap();
    assert_eq!(s.store.recover_outbox().await.unwrap(), Vec::new());
    assert_eq!(s.store.author_of(&telegram(), MessageId(99)).await.unwrap(), Some(agent()));
    assert_eq!(s.store.author_of(&telegram(), MessageId(9)).await.unwrap(), None);
}

#[tokio::test]
async fn a_streamed_answer_keeps_its_first_message_through_the_ending() {
    let s = scratch();
    let run = run(&s.store, 1, "hello").await;
    assert_eq!(s.store.open_answer(run.id).await.unwrap(), None, "not handed to Claude yet");
    s.store.run_handed(run.id).await.unwrap();
    let row = s.store.open_answer(run.id).await.unwrap().unwrap();
    assert_eq!(s.store.open_answer(run.id).await.unwrap().unwrap().id, row.id);
    s.store.outbox_sent(row.id, MessageId(50), Last::No).await.unwrap();
    let ending = Ending {
        state: RunState::Failed,
        text: "sorry".to_owned(),
        error: Some("x".to_owned()),
        cost_micros: 0,
        calls: Vec::new(),
    };
    s.store.end_run(run.id, ending).await.unwrap();
    let row = s.store.ready_for(ChatId(42)).await.unwrap().remove(0);
    assert_eq!(
        (row.messages.clone(), row.text.as_str(), row.repeated),
        (vec![MessageId(50)], "sorry", false)
    );
    assert_eq!(s.store.open_answer(RunId(999)).await.unwrap(), None);
}

#[tokio::test]
async fn an_answer_that_ends_while_its_first_message_is_under_way_is_marked_until_that_is_confirmed() {
    let s = scratch();
    let ending = |text: &str| Ending {
        state: RunState::Finished,
        text: text.to_owned(),
        error: None,
        cost_micros: 0,
        calls: Vec::new(),
    };
    let first = run(&s.store, 1, "hello").await;
    s.store.run_handed(first.id).await.unwrap();
    let row = s.store.open_answer(first.id).await.unwrap().unwrap();
    s.store.end_run(first.id, ending("done")).await.unwrap();
    assert!(
        s.store.ready_for(ChatId(42)).await.unwrap()[0].repeated,
        "a crash now leaves a message nobody knows of"
    );
    s.store.outbox_sent(row.id, MessageId(5), Last::No).await.unwrap();
    assert!(!s.store.ready_for(ChatId(42)).await.unwrap()[0].repeated);
    s.store.outbox_done(row.id).await.unwrap();

    let second = run(&s.store, 2, "hello").await;
    s.store.run_handed(second.id).await.unwrap();
    let row = s.store.open_answer(second.id).await.unwrap().unwrap();
    s.store.end_run(second.id, ending("done")).await.unwrap();
    s.store.answer_not_begun(row.id).await.unwrap();
    assert!(!s.store.ready_for(ChatId(42)).await.unwrap()[0].repeated);
}

#[tokio::test]
async fn a_row_routed_twice_makes_one_run() {
    let s = scratch();
    let first = run(&s.store, 1, "hello").await;
    let again = NewRun {
        conversation: first.conversation.id,
        inbox: first.inbox.unwrap(),
        prompt: "hello".to_owned(),
        reply_to: None,
    };
    assert_eq!(s.store.enqueue_run(again).await.unwrap(), None);
    assert_eq!(s.store.unfinished_runs().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_run_is_cancelled_once_and_not_handed_over_after_that() {
    let s = scratch();
    let first = run(&s.store, 1, "hello").await;
    let done = Cancelling::Done(first.conversation.id);
    assert_eq!(s.store.cancel_queued(first.id, None).await.unwrap(), done);
    assert_eq!(s.store.cancel_queued(first.id, None).await.unwrap(), Cancelling::Earlier);
    assert!(!s.store.run_handed(first.id).await.unwrap());
}

#[tokio::test]
async fn what_terminals_asked_is_forgotten_too_where_there_is_no_telegram() {
    let s = scratch();
    let origin = Origin { place: Place::Terminal("me".to_owned()), user: None, message: None };
    let id = s.store.submit(origin, Content::Nothing).await.unwrap();
    s.store.settle(id).await.unwrap();
    s.store.transact("age", |t| t.execute("UPDATE inbox SET received_at = 0", []).map(|_| ())).await.unwrap();
    s.store.forget_old().await.unwrap();
    let kept: i64 =
        s.store.read("count", |c| c.query_row("SELECT count(*) FROM inbox", [], |r| r.get(0))).await.unwrap();
    assert_eq!(kept, 0);
}

#[tokio::test]
async fn a_session_is_renewed_and_remembered() {
    let s = scratch();
    let first = s.store.conversation(telegram(), agent()).await.unwrap();
    assert!(!first.begun);
    s.store.session_begun(first.id, first.session.clone()).await.unwrap();
    let again = s.store.conversation(telegram(), agent()).await.unwrap();
    assert!(again.begun);
    assert_eq!((again.id, &again.session), (first.id, &first.session));
    s.store.set_session(first.id, SessionId("fresh".to_owned())).await.unwrap();
    let renewed = s.store.conversation(telegram(), agent()).await.unwrap();
    assert_eq!((renewed.session.0.as_str(), renewed.begun), ("fresh", false));
    s.store.set_place_agent(&telegram(), &agent()).await.unwrap();
    assert_eq!(s.store.place_agent(&telegram()).await.unwrap(), Some(agent()));
    s.store.add_owner(UserId(5)).await.unwrap();
    s.store.add_owner(UserId(5)).await.unwrap();
    assert_eq!(s.store.owners().await.unwrap(), vec![UserId(5)]);
}

#[tokio::test]
async fn an_agent_keeps_its_slot() {
    let s = scratch();
    let other = AgentName::new("other").unwrap();
    assert_eq!(s.store.agent_slot(&agent()).await.unwrap(), 0);
    assert_eq!(s.store.agent_slot(&other).await.unwrap(), 1);
    assert_eq!(s.store.agent_slot(&agent()).await.unwrap(), 0);
}

#[tokio::test]
async fn a_newer_database_is_refused_and_left_alone() {
    let s = scratch();
    drop(s.store);
    let raw = rusqlite::Connection::open(&s.path).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    drop(raw);
    let error = Store::open(&s.path).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("skep.db");
    std::fs::write(&path, b"this is not a database, but it is long enough to look at".repeat(50)).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(error.to_string().contains("skep.db"), "{error}");
}

#[tokio::test]
async fn old_done_rows_are_forgotten_but_the_offset_is_not() {
    let s = scratch();
    for update in 1..=3 {
        s.store.accept_updates(vec![AcceptedUpdate { id: UpdateId(update), raw: None }]).await.unwrap();
    }
    s.store
        .transact("age rows", |t| t.execute("UPDATE inbox SET received_at = 0", []).map(|_| ()))
        .await
        .unwrap();
    s.store.forget_old().await.unwrap();
    assert_eq!(s.store.last_update().await.unwrap(), Some(UpdateId(3)));
    let kept: i64 =
        s.store.read("count", |c| c.query_row("SELECT count(*) FROM inbox", [], |r| r.get(0))).await.unwrap();
    assert_eq!(kept, 1);
}

#[tokio::test]
async fn an_update_that_comes_again_under_another_id_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("db")).unwrap();
    let update = |id: i64, words: &str| AcceptedUpdate {
        id: UpdateId(id),
        raw: Some(format!(r#"{{"update_id":{id},"message":{{"message_id":7,"date":1,"text":"{words}"}}}}"#)),
    };
    let counts = [
        (vec![update(1, "one")], 1),
        (vec![update(1, "one"), update(2, "one")], 0),
        (vec![update(3, "two"), update(4, "two")], 1),
        (vec![update(5, "one"), update(6, "three")], 1),
    ];
    for (batch, new) in counts {
        let shown = format!("{batch:?}");
        let rows = store.accept_updates(batch).await.unwrap();
        assert_eq!(rows.len(), new, "{shown}");
        for row in rows {
            let InboxRow::Update { id, .. } = row else { panic!("{row:?}") };
            store.settle(id).await.unwrap();
        }
    }
    assert_eq!(store.last_update().await.unwrap(), Some(UpdateId(6)));
}
