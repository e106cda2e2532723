//! Calls, one by one.

use std::time::Duration;

use serde_json::json;

use super::support::{Fake, OWNER};
use crate::config::Secret;
use crate::model::{ChatId, MessageId, UserId};
use crate::telegram::api::{NewMessage, Sound};
use crate::telegram::error::ApiError;
use crate::telegram::markup::{Rendered, render, split};
use crate::telegram::{Api, Me, SetupError};

fn message(body: &Rendered) -> NewMessage<'_> {
    NewMessage {
        chat: ChatId(OWNER),
        thread: None,
        body,
        buttons: &[],
        reply_to: Some(MessageId(999)),
        sound: Sound::On,
    }
}

#[test]
fn a_bad_token_or_address_is_refused_before_anything_is_sent() {
    let new = |token: &str, url: &str| Api::new(&Secret::new(token.to_owned()), url);
    for token in ["", "abc", "x:y", ":y", "-1:y"] {
        assert!(matches!(new(token, "https://api.example.com"), Err(SetupError::Token)), "{token}");
    }
    for url in ["", "api.example.com", "mailto:x", "file:///x"] {
        assert!(matches!(new("1:y", url), Err(SetupError::Address(_))), "{url}");
    }
    let api = new("12345:secret-part", "https://api.example.com/prefix/").unwrap();
    assert_eq!(api.bot_id(), UserId(12345));
    assert!(!format!("{api:?}").contains("secret"), "{api:?}");
}

#[tokio::test]
async fn every_failure_is_told_by_what_it_means_for_a_retry() {
    let fake = Fake::start().await;
    let api = fake.api();
    assert_eq!(api.get_me().await.unwrap(), Me { id: api.bot_id(), username: Some("fake_bot".to_owned()) });
    let body = Rendered::plain("hello");
    let unknown = |error: &ApiError| matches!(error, ApiError::Unknown(_));
    for fault in [
        json!({"kind": "drop", "perform": true}),
        json!({"kind": "reset"}),
        json!({"kind": "truncate"}),
        json!({"kind": "garbage"}),
        json!({"kind": "status", "status": 502}),
        json!({"kind": "hang", "seconds": 5}),
        json!({"kind": "error", "error_code": 500, "description": "Internal Server Error"}),
    ] {
        fake.fault("sendMessage", fault.clone()).await;
        let begun = std::time::Instant::now();
        let error = api.send_message(message(&body)).await.unwrap_err();
        assert!(unknown(&error), "{fault}: {error:?}");
        assert!(begun.elapsed() < Duration::from_secs(3), "no call sleeps on its own: {fault}");
        assert!(!error.to_string().contains(&fake.token), "{error}");
    }
    let after =
        json!({"kind": "error", "error_code": 429, "description": "x", "parameters": {"retry_after": 9}});
    fake.fault("sendMessage", after).await;
    let error = api.send_message(message(&body)).await.unwrap_err();
    assert_eq!(error, ApiError::RetryAfter(Duration::from_secs(9)));
    let sent = api.send_message(message(&body)).await.unwrap();
    let edited = api.edit_message(ChatId(OWNER), sent, &body, &[]).await;
    assert_eq!(edited, Err(ApiError::NotModified));
    let missing = api.edit_message(ChatId(OWNER), MessageId(9999), &body, &[]).await;
    assert!(matches!(missing, Err(ApiError::BadRequest(_))), "{missing:?}");
    fake.post("/blocks", json!({"user_id": OWNER})).await;
    let gone = api.send_message(message(&body)).await;
    assert!(matches!(gone, Err(ApiError::Gone(_))), "{gone:?}");

    let wrong = Api::new(&Secret::new("123456789:wrong-token".to_owned()), &fake.api_url).unwrap();
    assert_eq!(wrong.get_me().await, Err(ApiError::Unauthorized));
    // Nothing listens on the discard port of the loopback.
    let nowhere = Api::new(&Secret::new("123456789:wrong-token".to_owned()), "http://127.0.0.1:9").unwrap();
    let error = nowhere.get_me().await.unwrap_err();
    assert!(matches!(error, ApiError::Unsent(_)), "{error:?}");
    assert!(!format!("{error:?}").contains("wrong-token"), "{error:?}");
}

#[tokio::test]
async fn what_we_render_is_what_the_server_shows() {
    let fake = Fake::start().await;
    let off = json!({"strict_entities": true, "flood": {"enabled": false}});
    fake.post("/config", off).await;
    let api = fake.api();
    let nasty = [
        "# Title `x`\n\n> quote **bold `code`**\n>> deeper\n\n- [ ] todo\n  1. one\n  2. *two*",
        "```rust\nfn main() { println!(\"🐝 {}\", 1); }\n```\n\n| a | b |\n|---|--:|\n| 🐝 | 2 |",
        "**unfinished *and `wild\n\n```\nopen fence",
        "[x](https://example.com/a?b=(c)) [y](http://localhost) [z](mailto:a@example.com) <https://example.com>",
        "a_b*c[d]e(f)~g`h>i#j+k-l=m|n{o}p.q!r\\s",
        "e\u{301}\u{30a} \u{202e}rtl\u{202c} \u{0}nul\tTab\r\nend  ",
        "~~***`x`***~~ **a** **b****c** 👨‍👩‍👧‍👦 *👩🏽‍🚀*",
        "<b>raw</b> &lt;tag&gt; &#128029; <!-- comment --> <br> x",
        "- - - nested\n\n> - in quote\n>   ```sh\n>   ls  \n>   ```\n\n[a **b** `c`](https://example.com/)",
    ];
    for markdown in nasty {
        for limit in [4096, 40, 7] {
            for part in split(&render(markdown), limit) {
                let id = api.send_message(message(&part)).await.unwrap_or_else(|e| panic!("{e}: {part:?}"));
                let same = api.edit_message(ChatId(OWNER), id, &part, &[]).await;
                assert_eq!(same, Err(ApiError::NotModified), "{part:?}");
                assert_eq!(fake.screen().await.pop(), Some(part.text));
            }
        }
    }
    assert_eq!(fake.get("/warnings").await, json!([]));
}
