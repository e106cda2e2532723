//! Tables of updates as Telegram sends them, and of what it never should.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn access() -> Access {
    Access { owners: [UserId(42)].into(), pairing: Some("K7QF-2M9X".to_owned()) }
}

fn bot() -> Bot {
    Bot { id: UserId(99), username: Some("skep_bot".to_owned()) }
}

fn agents() -> Vec<AgentName> {
    ["general", "coder"].map(|name| AgentName::new(name).unwrap()).to_vec()
}

fn update(fields: Value) -> String {
    let mut message = json!({"message_id": 7, "date": 1, "from": {"id": 42, "is_bot": false, "first_name": "O"},
        "chat": {"id": 42, "type": "private", "first_name": "O"}});
    for (key, value) in fields.as_object().unwrap() {
        message[key] = value.clone();
    }
    json!({"update_id": 5, "message": message}).to_string()
}

fn content(fields: Value) -> Content {
    decode(&update(fields), &access(), &bot(), &agents()).unwrap().1
}

fn text(agent: Option<&str>, text: &str) -> Content {
    Content::Text {
        agent: agent.map(|name| AgentName::new(name).unwrap()),
        text: text.to_owned(),
        reply_to: None,
    }
}

#[test]
fn a_private_message_of_an_owner_is_read() {
    let cases = [
        (json!({"text": "hello"}), text(None, "hello")),
        (json!({"text": "@coder fix it"}), text(Some("coder"), "fix it")),
        (json!({"text": "@Coder: fix\nit "}), text(Some("coder"), "fix\nit")),
        (json!({"text": "@coder"}), text(None, "@coder")),
        (json!({"text": "@coders do"}), text(None, "@coders do")),
        (json!({"text": "@nobody do"}), text(None, "@nobody do")),
        (json!({"text": "mail a@coder now"}), text(None, "mail a@coder now")),
        (json!({"text": "/stop"}), Content::Command(Command::Stop)),
        (json!({"text": "/stop@skep_bot"}), Content::Command(Command::Stop)),
        (json!({"text": "/etc/passwd is a file"}), text(None, "/etc/passwd is a file")),
        (
            json!({"text": "/frob"}),
            Content::Command(Command::Unknown("/frob is not a command here".to_owned())),
        ),
        (
            json!({"text": "x", "reply_to_message": {"message_id": 3, "from": {"id": 99}}}),
            Content::Text { agent: None, text: "x".to_owned(), reply_to: Some(MessageId(3)) },
        ),
        (json!({"photo": [{}]}), Content::Unsupported("a photo".to_owned())),
        (json!({"voice": {"duration": 3}}), Content::Unsupported("a voice message".to_owned())),
        (
            json!({"photo": [{}], "caption": "@coder what is this?"}),
            text(
                Some("coder"),
                "what is this?\n\n[a photo came with this message; it could not be passed on]",
            ),
        ),
        (
            json!({"hologram": {"depth": 3}}),
            Content::Unsupported("a message of a kind I do not know".to_owned()),
        ),
        (json!({"text": "new", "hologram": {"depth": 3}}), text(None, "new")),
        (json!({"text": "dated", "entities": [{"type": "date_time"}]}), text(None, "dated")),
        (json!({"pinned_message": {"message_id": 1}}), Content::Nothing),
        (json!({"new_chat_title": "x"}), Content::Nothing),
        (json!({"forum_topic_created": {"name": "x"}}), Content::Nothing),
    ];
    for (fields, expected) in cases {
        assert_eq!(content(fields.clone()), expected, "{fields}");
    }
}

#[test]
fn a_stranger_is_not_kept_unless_the_words_are_the_code() {
    let stranger = json!({"id": 8});
    let cases = [
        (json!({"text": "hello"}), Content::Nothing, false),
        (json!({"text": "/start"}), Content::Nothing, false),
        (json!({"text": "k7qf-2m9x"}), Content::Pair, true),
        (json!({"text": "/start K7QF-2M9X"}), Content::Pair, true),
        (json!({"text": "K7QF-2M9X", "chat": {"id": -5, "type": "group"}}), Content::Nothing, false),
    ];
    for (mut fields, expected, keep) in cases {
        fields["from"] = stranger.clone();
        let raw = update(fields);
        assert_eq!(decode(&raw, &access(), &bot(), &agents()).unwrap().1, expected, "{raw}");
        assert_eq!(classify(&raw, &access(), &bot()), Some((UpdateId(5), keep)), "{raw}");
    }
    assert_eq!(content(json!({"from": null, "text": "hello"})), Content::Nothing);
}

#[test]
fn in_a_group_only_what_is_addressed_to_the_bot_counts() {
    let cases = [
        (json!({"text": "hello all"}), Content::Nothing),
        (json!({"text": "@skep_bot hello"}), text(None, "hello")),
        (json!({"text": "@Skep_Bot, @coder hello"}), text(Some("coder"), "hello")),
        (json!({"text": "what do you say, @skep_bot?"}), text(None, "what do you say, @skep_bot?")),
        (json!({"text": "@skep_bot_2 hello"}), Content::Nothing),
        (json!({"text": "@coder hello"}), Content::Nothing),
        (json!({"text": "/stop"}), Content::Command(Command::Stop)),
        (json!({"text": "/stop@other_bot"}), Content::Nothing),
        (json!({"text": "/roll"}), Content::Nothing),
        (
            json!({"text": "/roll@skep_bot"}),
            Content::Command(Command::Unknown("/roll is not a command here".to_owned())),
        ),
        (json!({"photo": [{}]}), Content::Nothing),
        (
            json!({"text": "yes", "reply_to_message": {"message_id": 3, "from": {"id": 99}}}),
            Content::Text { agent: None, text: "yes".to_owned(), reply_to: Some(MessageId(3)) },
        ),
        (json!({"text": "yes", "reply_to_message": {"message_id": 3, "from": {"id": 8}}}), Content::Nothing),
    ];
    for (mut fields, expected) in cases {
        fields["chat"] = json!({"id": -100, "type": "supergroup"});
        assert_eq!(content(fields.clone()), expected, "{fields}");
    }
}

#[test]
fn a_topic_is_told_from_a_chain_of_replies() {
    let chat = json!({"id": -100, "type": "supergroup", "is_forum": true});
    let created = json!({"message_id": 2, "from": {"id": 99}, "forum_topic_created": {"name": "x"}});
    let raw = update(json!({"chat": chat, "text": "/new", "message_thread_id": 2, "is_topic_message": true,
        "reply_to_message": created}));
    let place = Place::Telegram { chat: ChatId(-100), thread: Some(ThreadId(2)) };
    let origin = Origin { place, user: Some(UserId(42)), message: Some(MessageId(7)) };
    let expected = Some((origin, Content::Command(Command::New)));
    assert_eq!(decode(&raw, &access(), &bot(), &agents()), expected);
    let raw = update(json!({"chat": chat, "text": "/new", "message_thread_id": 2}));
    let place = Place::Telegram { chat: ChatId(-100), thread: None };
    assert_eq!(decode(&raw, &access(), &bot(), &agents()).unwrap().0.place, place);
}

#[test]
fn a_press_cancels_its_run_for_an_owner_only() {
    let press = |user: i64, data: &str| {
        json!({"update_id": 6, "callback_query": {"id": "abc", "from": {"id": user}, "data": data,
            "message": {"message_id": 3, "date": 0, "chat": {"id": 42, "type": "private"}}}})
        .to_string()
    };
    let cancel = Content::CancelRun { run: RunId(12), callback: Some("abc".to_owned()) };
    for (raw, expected) in [
        (press(42, "cancel:12"), cancel),
        (press(8, "cancel:12"), Content::Nothing),
        (press(42, "cancel:x"), Content::Nothing),
        (press(42, "future"), Content::Nothing),
    ] {
        let (origin, content) = decode(&raw, &access(), &bot(), &agents()).unwrap();
        assert_eq!((origin.message, content), (Some(MessageId(3)), expected), "{raw}");
    }
}

#[test]
fn an_id_is_found_even_in_an_update_of_another_form() {
    let cases = [
        (r#"{"update_id":5}"#, Some(5)),
        (r#"{"update_id":5,"update_id":6}"#, Some(6)),
        (r#"{"update_id":"5"}"#, Some(5)),
        (r#"{"update_id":5.0}"#, Some(5)),
        (r#"[{"update_id" : 5}]"#, Some(5)),
        (r#"{"update_id":99999999999999999999}"#, None),
        (r#"{"update_id":null}"#, None),
        (r#"{"future":1}"#, None),
        ("", None),
    ];
    for (raw, id) in cases {
        assert_eq!(classify(raw, &access(), &bot()), id.map(|id| (UpdateId(id), false)), "{raw}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(raw in ".{0,300}") {
        let _ = classify(&raw, &access(), &bot());
    }

    #[test]
    fn no_message_text_panics_or_is_lost(words in "[@/a-z_é🐝 :,\n]{0,60}") {
        let content = content(json!({"text": words}));
        prop_assert_eq!(content == Content::Nothing, words.trim().is_empty());
    }

    #[test]
    fn a_mangled_update_never_panics(cut in 0usize..400, byte in any::<u8>(), at in 0usize..400) {
        let mut raw = update(json!({"text": "@coder hi", "photo": [{"file_id": "x"}], "entities": [{}]})).into_bytes();
        let at = at % raw.len();
        raw[at] = byte;
        raw.truncate(cut);
        let _ = classify(&String::from_utf8_lossy(&raw), &access(), &bot());
    }
}
