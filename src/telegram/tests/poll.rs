//! The polling loop.

use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::support::{Fake, OWNER};
use crate::config::Secret;
use crate::model::{Access, TelegramState, UpdateId, UserId};
use crate::store::AcceptedUpdate;
use crate::telegram::{Api, Batch, Bot, Poll, Refused};

struct Polling {
    task: JoinHandle<()>,
    batches: mpsc::Receiver<Batch>,
    state: watch::Receiver<TelegramState>,
    bot: watch::Receiver<Bot>,
    access: watch::Sender<Access>,
}

impl Polling {
    fn start(api: Api, start: Option<UpdateId>) -> Self {
        let (sink, batches) = mpsc::channel(1);
        let (state, seen) = watch::channel(TelegramState::Off);
        let (bot, named) = watch::channel(Bot { id: api.bot_id(), username: None });
        let (access, judged) = watch::channel(Access { owners: [UserId(OWNER)].into(), pairing: None });
        let poll = Poll { api, start, access: judged, sink, state, bot };
        Self { task: tokio::spawn(poll.run()), batches, state: seen, bot: named, access }
    }

    async fn batch(&mut self) -> Batch {
        timeout(Duration::from_secs(30), self.batches.recv()).await.expect("no batch came").unwrap()
    }

    /// Takes a batch as stored and returns its texts; a stranger's update is `None`.
    async fn texts(&mut self) -> Vec<Option<String>> {
        let batch = self.batch().await;
        batch.committed.send(Ok(())).unwrap();
        batch.updates.into_iter().map(text_of).collect()
    }

    async fn state(&mut self, wanted: impl Fn(&TelegramState) -> bool) -> TelegramState {
        timeout(Duration::from_secs(20), self.state.wait_for(|state| wanted(state)))
            .await
            .unwrap()
            .unwrap()
            .clone()
    }
}

fn text_of(update: AcceptedUpdate) -> Option<String> {
    let raw: serde_json::Value = serde_json::from_str(&update.raw?).unwrap();
    Some(raw["message"]["text"].as_str().unwrap().to_owned())
}

async fn pending(fake: &Fake) -> i64 {
    fake.get("/state").await["bots"][0]["pending_updates"].as_i64().unwrap()
}

fn online(state: &TelegramState) -> bool {
    matches!(state, TelegramState::Online { .. })
}

#[tokio::test]
async fn nothing_is_confirmed_before_it_is_stored_and_a_refused_batch_comes_again() {
    let fake = Fake::start().await;
    fake.post("/messages", json!({"from_id": 8, "text": "a stranger"})).await;
    let mut polling = Polling::start(fake.api(), None);
    let first = polling.batch().await;
    let seen = first.updates.clone();
    assert_eq!(seen.len(), 2);
    first.committed.send(Err(Refused)).unwrap();
    polling
        .state(|state| matches!(state, TelegramState::Failing { error, .. } if error.contains("disk")))
        .await;
    let second = polling.batch().await;
    assert_eq!(second.updates, seen);
    drop(second.committed);
    let third = polling.batch().await;
    assert_eq!(third.updates, seen);
    assert_eq!(pending(&fake).await, 2, "still Telegram's");
    third.committed.send(Ok(())).unwrap();
    assert_eq!(seen.into_iter().map(text_of).collect::<Vec<_>>(), [Some("/start".to_owned()), None]);
    polling.state(online).await;
    fake.write("next").await;
    assert_eq!(polling.texts().await, [Some("next".to_owned())]);
    let named = polling.bot.wait_for(|bot| bot.username.is_some()).await.unwrap().clone();
    assert_eq!(named, Bot { id: fake.api().bot_id(), username: Some("fake_bot".to_owned()) });
    drop(polling.batches);
    timeout(Duration::from_secs(1), polling.task).await.expect("ends with its receiver").unwrap();
}

#[tokio::test]
async fn polling_goes_on_behind_the_update_stored_last_and_across_a_renumbering() {
    let fake = Fake::start().await;
    let mut polling = Polling::start(fake.api(), None);
    let batch = polling.batch().await;
    let last = batch.updates[0].id;
    // Stored, but the daemon died before the confirmation.
    polling.task.abort();
    fake.write("two").await;
    let mut polling = Polling::start(fake.api(), Some(last));
    assert_eq!(polling.texts().await, [Some("two".to_owned())]);
    for next in [100, 7_000_000] {
        // Confirmed, or Telegram would rightly send it again.
        while pending(&fake).await > 0 {
            sleep(Duration::from_millis(20)).await;
        }
        fake.post("/updates/renumber", json!({"next": next})).await;
        let text = format!("after {next}");
        fake.write(&text).await;
        assert_eq!(polling.texts().await, [Some(text)]);
    }
}

#[tokio::test]
async fn every_passing_failure_is_survived() {
    let conflict = "Conflict: terminated by other getUpdates request";
    let mut cases = JoinSet::new();
    for fault in [
        json!({"kind": "drop"}),
        json!({"kind": "garbage"}),
        json!({"kind": "truncate"}),
        json!({"kind": "status", "status": 502}),
        json!({"kind": "hang", "seconds": 9}),
        json!({"kind": "error", "error_code": 409, "description": conflict}),
        json!({"kind": "error", "error_code": 429, "description": "x", "parameters": {"retry_after": 1}}),
    ] {
        cases.spawn(async move {
            let fake = Fake::start().await;
            let mut polling = Polling::start(fake.api(), None);
            assert_eq!(polling.texts().await.len(), 1);
            fake.fault("getUpdates", fault.clone()).await;
            let failing = polling.state(|state| matches!(state, TelegramState::Failing { .. })).await;
            assert!(!format!("{failing:?}").contains(&fake.token), "{failing:?}");
            fake.write("after it").await;
            assert_eq!(polling.texts().await, [Some("after it".to_owned())], "{fault}");
            polling.state(online).await;
        });
    }
    for mode in ["refuse", "blackhole"] {
        cases.spawn(async move {
            let fake = Fake::start().await;
            let mut polling = Polling::start(fake.api(), None);
            assert_eq!(polling.texts().await.len(), 1);
            fake.post("/network", json!({"mode": mode})).await;
            polling.state(|state| matches!(state, TelegramState::Failing { .. })).await;
            fake.write(mode).await;
            fake.post("/network", json!({"mode": "up"})).await;
            assert_eq!(polling.texts().await, [Some(mode.to_owned())]);
        });
    }
    cases.join_all().await;
}

#[tokio::test]
async fn a_forgotten_webhook_is_ended_and_keeps_its_updates() {
    let fake = Fake::start().await;
    let client = teloxide_core::net::default_reqwest_settings().build().unwrap();
    let url = format!("{}/bot{}/setWebhook?url=http://127.0.0.1:9/hook", fake.api_url, fake.token);
    assert!(client.get(url).send().await.unwrap().status().is_success());
    let mut polling = Polling::start(fake.api(), None);
    assert_eq!(polling.texts().await, [Some("/start".to_owned())]);
}

#[tokio::test]
async fn a_refused_token_is_told_and_not_hammered() {
    let fake = Fake::start().await;
    let wrong = Api::new(&Secret::new("123456789:wrong-token".to_owned()), &fake.api_url).unwrap();
    let mut polling = Polling::start(wrong, None);
    polling.state(|state| *state == TelegramState::Rejected).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(fake.count(&["getUpdates", "getMe"]).await, [1, 1]);
}

#[tokio::test]
async fn owners_alone_see_the_menu_also_those_who_pair_later() {
    let fake = Fake::start().await;
    fake.post("/messages", json!({"from_id": 8, "text": "hi"})).await;
    let mut polling = Polling::start(fake.api(), None);
    polling.texts().await;
    fake.get("/wait?method=setMyCommands&calls=1").await;
    polling.access.send_modify(|access| {
        access.owners.insert(UserId(8));
    });
    fake.get("/wait?method=setMyCommands&calls=2").await;
    let calls = fake.calls("setMyCommands").await;
    let scopes: Vec<_> = calls.iter().map(|call| call["args"]["scope"].clone()).collect();
    assert_eq!(scopes, [json!({"type": "chat", "chat_id": OWNER}), json!({"type": "chat", "chat_id": 8})]);
    assert!(calls.iter().all(|call| call["status"] == 200), "{calls:?}");
}

#[tokio::test]
async fn an_update_nobody_understands_is_passed_over_once_another_moves_the_offset() {
    let fake = Fake::start().await;
    fake.post("/updates", json!({"kind": "message", "value": {"hologram": [1, 2]}})).await;
    fake.post("/updates", json!({"kind": "callback_query", "value": "not even an object"})).await;
    let mut polling = Polling::start(fake.api(), None);
    assert_eq!(polling.texts().await, [Some("/start".to_owned()), None, None]);
    fake.write("next").await;
    assert_eq!(polling.texts().await, [Some("next".to_owned())]);
}
