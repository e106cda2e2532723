//! Delivery: what the chat shows in the end, and at what price.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::support::{Fake, OWNER};
use crate::model::{
    AgentEvent, AgentName, ChatId, MessageId, Outbound, Place, RunId, RunState, ToolActivity, UpdateId, Usage,
};
use crate::store::{AcceptedUpdate, Ending, InboxRow, NewNotice, NewRun, Store};
use crate::telegram::Delivery;

const MARK: &str = "↻ Sent again: the confirmation of an earlier copy was lost.\n\n";

struct World {
    fake: Fake,
    store: Store,
    delivery: Delivery,
    dir: tempfile::TempDir,
    updates: i64,
}

/// A run as the agent core would carry it.
#[derive(Clone)]
struct Run {
    id: RunId,
    conversation: crate::model::ConversationId,
    place: Place,
}

fn place(chat: i64) -> Place {
    Place::Telegram { chat: ChatId(chat), thread: None }
}

impl World {
    async fn start() -> Self {
        let fake = Fake::start().await;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("skep.db")).unwrap();
        let delivery = Delivery::new(fake.api(), store.clone());
        Self { fake, store, delivery, dir, updates: 0 }
    }

    async fn queue(&mut self, chat: i64) -> Run {
        self.updates += 1;
        let update = AcceptedUpdate { id: UpdateId(self.updates), raw: Some("{}".to_owned()) };
        let rows = self.store.accept_updates(vec![update]).await.unwrap();
        let InboxRow::Update { id: inbox, .. } = rows[0] else { panic!("not an update") };
        let agent = AgentName::new("general").unwrap();
        let conversation = self.store.conversation(place(chat), agent).await.unwrap().id;
        let new = NewRun { conversation, inbox, prompt: "hello".to_owned(), reply_to: Some(MessageId(1)) };
        let id = self.store.enqueue_run(new).await.unwrap().unwrap().id;
        Run { id, conversation, place: place(chat) }
    }

    async fn begin(&mut self, chat: i64) -> Run {
        let run = self.queue(chat).await;
        self.handed(&run).await;
        run
    }

    async fn handed(&self, run: &Run) {
        self.store.run_handed(run.id).await.unwrap();
        self.tell(run, AgentEvent::Started).await;
    }

    async fn tell(&self, run: &Run, event: AgentEvent) {
        let outbound = Outbound {
            place: run.place.clone(),
            conversation: run.conversation,
            agent: AgentName::new("general").unwrap(),
            run: Some(run.id),
            inbox: None,
            event,
        };
        self.delivery.event(outbound);
    }

    async fn say(&self, run: &Run, delta: &str) {
        self.tell(run, AgentEvent::Text { delta: delta.to_owned() }).await;
    }

    async fn finish(&self, run: &Run, text: &str) {
        self.end(run, text).await;
        self.tell(run, AgentEvent::Finished { text: text.to_owned(), usage: Usage::default() }).await;
    }

    /// The store's half of an ending.
    async fn end(&self, run: &Run, text: &str) {
        let ending = Ending {
            state: RunState::Finished,
            text: text.to_owned(),
            error: None,
            cost_micros: 0,
            calls: Vec::new(),
        };
        self.store.end_run(run.id, ending).await.unwrap();
    }

    async fn notice(&self, run: Option<RunId>, text: &str, buttons: &[(&str, &str)]) {
        let buttons = buttons.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let notice = NewNotice {
            chat: ChatId(OWNER),
            thread: None,
            reply_to: None,
            run,
            agent: None,
            text: text.to_owned(),
            buttons,
        };
        self.store.add_notices(None, vec![notice]).await.unwrap();
        self.delivery.nudge(ChatId(OWNER));
    }

    /// Waits until everything is delivered and confirmed.
    async fn settled(&self) {
        for _ in 0..2000 {
            sleep(Duration::from_millis(20)).await;
            if self.store.queue().await.unwrap().outbox == 0 {
                assert!(self.delivery.drain(Duration::from_secs(1)).await);
                return;
            }
        }
        panic!("not delivered: {:?}", self.fake.screen().await);
    }
}

const CALLS: [&str; 3] = ["sendChatAction", "sendMessage", "editMessageText"];

#[tokio::test]
async fn a_short_answer_costs_two_calls() {
    let mut world = World::start().await;
    let run = world.begin(OWNER).await;
    world.say(&run, "Hello **you**.").await;
    sleep(Duration::from_millis(300)).await;
    world.finish(&run, "Hello **you**.").await;
    world.settled().await;
    assert_eq!(world.fake.screen().await, ["Hello you."]);
    assert_eq!(world.fake.count(&CALLS).await, [1, 1, 0]);
    let sent = world.fake.calls("sendMessage").await.remove(0)["args"].clone();
    let expected = json!({
        "chat_id": OWNER, "text": "Hello you.", "entities": [{"type": "bold", "offset": 6, "length": 3}],
        "link_preview_options": {"is_disabled": true},
        "reply_parameters": {"message_id": 1, "allow_sending_without_reply": true},
    });
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn a_long_answer_streams_into_one_message_and_ends_complete() {
    let mut world = World::start().await;
    let run = world.begin(OWNER).await;
    for n in 0..12 {
        world.say(&run, &format!("Line {n} of the answer.\n")).await;
        sleep(Duration::from_millis(400)).await;
    }
    let activity =
        ToolActivity { id: "t".to_owned(), name: "Bash".to_owned(), detail: "ls".to_owned(), ok: None };
    world.tell(&run, AgentEvent::Tool(activity)).await;
    world.fake.wait_text("🔧 Bash: ls").await;
    world.finish(&run, "The **final** words.").await;
    world.settled().await;
    assert_eq!(world.fake.screen().await, ["The final words."]);
    let counts = world.fake.count(&CALLS).await;
    assert!((2..=3).contains(&counts[0]) && counts[1] == 1 && (3..=6).contains(&counts[2]), "{counts:?}");
    let warnings = world.fake.get("/warnings").await;
    assert_eq!(warnings, json!([]));
}

#[tokio::test]
async fn a_text_longer_than_a_message_arrives_whole_and_in_order() {
    let mut world = World::start().await;
    let run = world.begin(OWNER).await;
    let text: String = (0..1500).map(|n| format!("word{n} ")).collect();
    world.finish(&run, &text).await;
    world.settled().await;
    let screen = world.fake.screen().await;
    assert!(screen.len() == 4 && screen.iter().all(|part| part.len() <= 4096));
    assert_eq!(screen.join(" "), text.trim_end());
}

#[tokio::test]
async fn a_lost_confirmation_is_the_one_case_of_a_double_and_says_so() {
    let once = vec![format!("{MARK}Done.")];
    let twice = vec!["Done.".to_owned(), format!("{MARK}Done.")];
    let case = |fault: Value, shown: Vec<String>| async move {
        let mut world = World::start().await;
        world.fake.fault("sendMessage", fault).await;
        let run = world.begin(OWNER).await;
        world.finish(&run, "Done.").await;
        world.settled().await;
        assert_eq!(world.fake.screen().await, shown);
    };
    tokio::join!(
        case(json!({"kind": "drop", "perform": true}), twice),
        case(json!({"kind": "drop"}), once.clone()),
        case(json!({"kind": "status", "status": 502}), once.clone()),
        case(json!({"kind": "hang", "seconds": 9}), once),
    );
}

#[tokio::test]
async fn a_certain_refusal_makes_no_double() {
    let flood = |seconds: u64| json!({"kind": "error", "error_code": 429, "description": "x", "parameters": {"retry_after": seconds}});
    let format =
        json!({"kind": "error", "error_code": 400, "description": "Bad Request: can't parse entities: x"});
    for (fault, seconds, plain) in [(flood(1), 2.0, false), (format, 0.0, true)] {
        let mut world = World::start().await;
        world.fake.fault("sendMessage", fault).await;
        let run = world.begin(OWNER).await;
        world.finish(&run, "**Done.**").await;
        world.settled().await;
        assert_eq!(world.fake.screen().await, ["Done."]);
        let calls = world.fake.calls("sendMessage").await;
        let at = |n: usize| calls[n]["at"].as_f64().unwrap();
        assert!(calls.len() == 2 && at(1) - at(0) >= seconds, "{calls:?}");
        assert_eq!(calls[1]["args"].get("entities").is_none(), plain);
    }
}

#[tokio::test]
async fn the_final_text_outlives_a_penalty_on_the_stream() {
    let mut world = World::start().await;
    let run = world.begin(OWNER).await;
    world.say(&run, "One line.\nAnother.").await;
    world.fake.wait_text("Another").await;
    let flood =
        json!({"kind": "error", "error_code": 429, "description": "x", "parameters": {"retry_after": 3}});
    world.fake.fault("editMessageText", flood).await;
    world.say(&run, " More.").await;
    world.fake.get("/wait?method=editMessageText&calls=1&timeout=20").await;
    world.finish(&run, "The end.").await;
    world.settled().await;
    assert_eq!(world.fake.screen().await, ["The end."]);
    let calls = world.fake.calls("editMessageText").await;
    let at = |n: usize| calls[n]["at"].as_f64().unwrap();
    assert!(calls.len() == 2 && at(1) - at(0) >= 3.9, "{calls:?}");
}

#[tokio::test]
async fn a_streamed_message_whose_confirmation_was_lost_is_sent_again_once() {
    let mut world = World::start().await;
    world.fake.fault("sendMessage", json!({"kind": "drop", "perform": true})).await;
    let run = world.begin(OWNER).await;
    world.say(&run, "One line.\nAnother.").await;
    world.fake.wait_text("Another").await;
    world.say(&run, " And more.").await;
    sleep(Duration::from_secs(3)).await;
    world.finish(&run, "The end.").await;
    world.settled().await;
    let screen = world.fake.screen().await;
    assert_eq!(screen, ["One line.\nAnother.".to_owned(), format!("{MARK}The end.")]);
}

#[tokio::test]
async fn a_dead_network_delays_and_loses_nothing() {
    let case = |mode: &'static str| async move {
        let mut world = World::start().await;
        world.fake.post("/network", json!({"mode": mode})).await;
        let run = world.begin(OWNER).await;
        world.finish(&run, "First.").await;
        world.notice(None, "Second.", &[]).await;
        sleep(Duration::from_secs(4)).await;
        world.fake.post("/network", json!({"mode": "up"})).await;
        world.settled().await;
        assert_eq!(world.fake.screen().await, [format!("{MARK}First."), "Second.".to_owned()], "{mode}");
    };
    tokio::join!(case("refuse"), case("blackhole"));
}

#[tokio::test]
async fn one_chats_flood_does_not_hold_another() {
    let mut world = World::start().await;
    world.fake.post("/messages", json!({"from_id": 8, "text": "hi"})).await;
    let flood = json!({"kind": "error", "error_code": 429, "description": "x", "chat_id": OWNER,
        "parameters": {"retry_after": 4}});
    world.fake.fault("sendMessage", flood).await;
    let slow = world.begin(OWNER).await;
    let quick = world.begin(8).await;
    world.finish(&slow, "Slow.").await;
    sleep(Duration::from_millis(200)).await;
    world.finish(&quick, "Quick.").await;
    world.settled().await;
    let calls = world.fake.calls("sendMessage").await;
    let order: Vec<_> = calls.iter().map(|call| call["args"]["text"].as_str().unwrap()).collect();
    assert_eq!(order, ["Slow.", "Quick.", "Slow."]);
    assert!(calls[1]["at"].as_f64().unwrap() - calls[0]["at"].as_f64().unwrap() < 1.0);
}

#[tokio::test]
async fn what_is_for_a_chat_that_blocked_the_bot_waits_until_it_is_back() {
    let mut world = World::start().await;
    world.fake.post("/blocks", json!({"user_id": OWNER})).await;
    let run = world.begin(OWNER).await;
    world.finish(&run, "Nobody hears.").await;
    world.notice(None, "Nor this.", &[]).await;
    assert!(world.delivery.drain(Duration::from_secs(5)).await, "nothing is tried meanwhile");
    assert_eq!(world.fake.screen().await, Vec::<String>::new());
    world.fake.post("/blocks", json!({"user_id": OWNER, "blocked": false})).await;
    world.notice(None, "Back again.", &[]).await;
    world.settled().await;
    assert_eq!(world.fake.screen().await, ["Nobody hears.", "Nor this.", "Back again."]);
}

#[tokio::test]
async fn the_cancel_button_of_a_waiting_run_goes_when_it_starts() {
    let mut world = World::start().await;
    let run = world.queue(OWNER).await;
    let data = format!("cancel:{}", run.id);
    world.notice(Some(run.id), "Queued behind 1.", &[("Cancel", &data)]).await;
    world.settled().await;
    let buttons =
        |transcript: Value| transcript["messages"].as_array().unwrap().last().unwrap()["buttons"].clone();
    let transcript = format!("/transcript?chat_id={OWNER}");
    assert_eq!(buttons(world.fake.get(&transcript).await)[0][0]["callback_data"], data);
    assert_eq!(world.fake.calls("sendMessage").await[0]["args"]["disable_notification"], true);
    world.handed(&run).await;
    world.fake.get("/wait?method=editMessageReplyMarkup&calls=1").await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(buttons(world.fake.get(&transcript).await), Value::Null);
}

#[tokio::test]
async fn what_a_crash_left_in_the_middle_is_finished_after_the_start() {
    let mut world = World::start().await;
    // The first answer's send was under way, the second's first part was in the chat already.
    let lost = world.begin(OWNER).await;
    world.end(&lost, "Lost.").await;
    let row = world.store.ready_for(ChatId(OWNER)).await.unwrap().remove(0);
    world.store.outbox_sending(row.id).await.unwrap();
    world.delivery.recover().await.unwrap();
    world.settled().await;
    assert_eq!(world.fake.screen().await, [format!("{MARK}Lost.")]);

    let streamed = world.begin(OWNER).await;
    world.say(&streamed, "One line.\nAnother.").await;
    world.fake.wait_text("Another").await;
    world.end(&streamed, "The end.").await;
    let second_life = Delivery::new(world.fake.api(), world.store.clone());
    second_life.recover().await.unwrap();
    world.settled().await;
    assert_eq!(world.fake.screen().await[1..], ["The end."]);
}

#[tokio::test]
async fn a_database_that_cannot_be_written_makes_no_double() {
    let mut world = World::start().await;
    let slow = json!({"kind": "delay", "seconds": 1, "perform": true});
    world.fake.fault("sendMessage", slow).await;
    let run = world.begin(OWNER).await;
    world.finish(&run, "Done.").await;
    world.fake.wait_text("Done").await;
    // The message is in the chat; its confirmation comes back to a locked database, for longer than SQLite waits.
    let other = rusqlite::Connection::open(world.dir.path().join("skep.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    sleep(Duration::from_millis(6500)).await;
    other.execute_batch("COMMIT").unwrap();
    world.settled().await;
    assert_eq!(world.fake.screen().await, ["Done."]);
}

#[tokio::test]
async fn an_answer_whose_streamed_message_was_deleted_is_sent_anew() {
    let mut world = World::start().await;
    let run = world.begin(OWNER).await;
    world.say(&run, "One line.\nAnother.").await;
    world.fake.wait_text("Another").await;
    let transcript = world.fake.get(&format!("/transcript?chat_id={OWNER}")).await;
    let id = transcript["messages"].as_array().unwrap().last().unwrap()["message_id"].clone();
    world.fake.post("/deletions", json!({"chat_id": OWNER, "message_id": id})).await;
    world.finish(&run, "The end.").await;
    world.settled().await;
    assert_eq!(world.fake.screen().await, ["The end."]);
}

#[tokio::test]
async fn a_topic_that_is_gone_falls_back_to_the_chat() {
    let world = World::start().await;
    let notice = NewNotice {
        chat: ChatId(OWNER),
        thread: Some(crate::model::ThreadId(777)),
        reply_to: None,
        run: None,
        agent: None,
        text: "Hello.".to_owned(),
        buttons: Vec::new(),
    };
    world.store.add_notices(None, vec![notice]).await.unwrap();
    world.delivery.nudge(ChatId(OWNER));
    world.settled().await;
    assert_eq!(world.fake.screen().await, ["The topic this belongs to is gone.\n\nHello."]);
}

#[tokio::test]
async fn a_press_is_confirmed() {
    let world = World::start().await;
    world.notice(Some(RunId(1)), "Queued.", &[("Cancel", "cancel:1")]).await;
    world.settled().await;
    let press = json!({"chat_id": OWNER, "message_id": 2, "text": "Cancel"});
    let id = world.fake.post("/callbacks", press).await["id"].as_str().unwrap().to_owned();
    world.delivery.answer_callback(id.clone(), "Cancelled".to_owned());
    let answered = world.fake.get(&format!("/wait?answered={id}")).await;
    assert_eq!(answered["ok"], true, "{answered}");
}
