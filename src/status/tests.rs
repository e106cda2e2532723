use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::PasswordHasher;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::*;

struct Served {
    address: SocketAddr,
    overview: watch::Sender<Arc<Overview>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listen: &str, password: Option<&str>) -> Served {
    let params = argon2::Params::new(8, 1, 1, None).unwrap();
    let hasher = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let hash = |text: &str| {
        hasher.hash_password_with_salt(text.as_bytes(), b"saltsaltsaltsalt").unwrap().to_string()
    };
    let settings = StatusSettings { listen: listen.parse().unwrap(), password: password.map(hash) };
    let page = StatusPage::bind(&settings).await.unwrap();
    let address = page.address();
    let (overview, receiver) = watch::channel(Arc::new(sample::overview(epoch_seconds())));
    let task = tokio::spawn(page.serve(receiver));
    Served { address, overview, task }
}

impl Served {
    async fn open(&self, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    async fn get(&self, line: &str, extra: &str) -> (u16, String) {
        let head = format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{extra}\r\n");
        let mut stream = self.open(&head).await;
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        tokio::time::timeout(Duration::from_secs(10), read).await.expect("an answer").unwrap();
        let text = String::from_utf8(bytes).unwrap();
        (text.split(' ').nth(1).unwrap().parse().unwrap(), text)
    }
}

fn basic(password: &str) -> String {
    // Base64 of what is asked for here only.
    let encoded = match password {
        "honey" => "b3duZXI6aG9uZXk=",
        "wrong" => "b3duZXI6d3Jvbmc=",
        _ => unreachable!(),
    };
    format!("authorization: Basic {encoded}\r\n")
}

#[tokio::test]
async fn every_route_answers_with_its_kind_and_the_protecting_headers() {
    let page = serve("127.0.0.1:0", None).await;
    let cases = [
        ("GET /", 200, "text/html; charset=utf-8", "<title>Skep</title>"),
        ("GET /healthz", 200, "text/plain; charset=utf-8", "ok\n"),
        ("GET /metrics", 200, "text/plain; version=0.0.4; charset=utf-8", "skep_runs_running 1\n"),
        ("GET /api/overview", 200, "application/json", "\"bot\":\"my_skep_bot\""),
        ("HEAD /", 200, "text/html; charset=utf-8", ""),
        ("HEAD /events", 200, "text/event-stream", ""),
        ("GET /nothing", 404, "text/plain; charset=utf-8", "no such page"),
        ("POST /", 405, "text/plain; charset=utf-8", "only be read"),
    ];
    for (line, status, kind, words) in cases {
        let (got, text) = page.get(line, "").await;
        assert_eq!(got, status, "{line}");
        assert!(text.contains(&format!("content-type: {kind}\r\n")), "{line}: {text}");
        assert!(text.contains(words), "{line}: {text}");
        for header in [
            "cache-control: no-store",
            "nosniff",
            "no-referrer",
            "frame-ancestors 'none'",
            "default-src 'none'",
        ] {
            assert!(text.contains(header), "{line}: {header}");
        }
        if line.starts_with("HEAD") {
            assert!(text.ends_with("\r\n\r\n"), "{line} has no body");
        }
    }
    let nonce = |text: &str| text.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    let (_, first) = page.get("GET /", "").await;
    let (_, second) = page.get("GET /", "").await;
    assert!(first.contains(&format!("<script nonce=\"{}\">", nonce(&first))));
    assert_ne!(nonce(&first), nonce(&second));
}

#[tokio::test]
async fn a_foreign_name_is_misdirected() {
    let page = serve("127.0.0.1:0", None).await;
    let mut stream = page.open("GET / HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n").await;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 421 "), "{text}");
    assert!(!text.contains("coder"));
}

#[tokio::test]
async fn the_network_is_listened_on_only_with_a_password_and_an_address_in_use_is_said() {
    let open = StatusSettings { listen: "0.0.0.0:0".parse().unwrap(), password: None };
    let refused = StatusPage::bind(&open).await.err().map(|error| error.to_string());
    let expected =
        "the status page would be open to the network on 0.0.0.0:0 without a password: set status.password";
    assert_eq!(refused.as_deref(), Some(expected));
    let plain = StatusSettings { password: Some("honey".to_owned()), ..open };
    assert!(matches!(StatusPage::bind(&plain).await, Err(StatusError::Password)));
    let page = serve("127.0.0.1:0", None).await;
    let taken = StatusSettings { listen: page.address, password: None };
    let refused = StatusPage::bind(&taken).await.err().map(|error| error.to_string());
    let told = format!(
        "the status page cannot listen on {}; set listen in [status] to a free address, or to \"off\"",
        page.address
    );
    assert_eq!(refused, Some(told));
    let _open = serve("0.0.0.0:0", Some("honey")).await;
}

#[tokio::test]
async fn the_password_is_asked_for_and_guesses_are_paced() {
    let page = serve("127.0.0.1:0", Some("honey")).await;
    for route in ["/", "/metrics", "/api/overview", "/events"] {
        let (status, text) = page.get(&format!("GET {route}"), "").await;
        assert_eq!(status, 401, "{route}");
        assert!(text.contains("www-authenticate: Basic realm=\"skep\""), "{text}");
    }
    assert_eq!(page.get("GET /healthz", "").await.0, 200);
    for _ in 0..10 {
        assert_eq!(page.get("GET /", &basic("honey")).await.0, 200, "right ones are never limited");
    }
    let strip = |text: String| text.lines().filter(|line| !line.starts_with("date:")).collect::<String>();
    let without = strip(page.get("GET /", "").await.1);
    for _ in 0..5 {
        let (status, text) = page.get("GET /", &basic("wrong")).await;
        assert_eq!(status, 401);
        assert_eq!(strip(text), without, "a wrong password is answered as none");
    }
    let (status, text) = page.get("GET /", &basic("wrong")).await;
    assert_eq!(status, 429);
    assert!(text.contains("retry-after: "), "{text}");
    assert_eq!(page.get("GET /", &basic("honey")).await.0, 429, "right and wrong look the same meanwhile");
}

#[tokio::test]
async fn a_change_reaches_a_watching_browser_and_the_fifth_is_told_to_come_back() {
    let page = serve("127.0.0.1:0", None).await;
    let request = "GET /events HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: same-origin\r\n\r\n";
    let mut watching = Vec::new();
    for _ in 0..4 {
        watching.push(page.open(request).await);
        read_until(watching.last_mut().unwrap(), "Working on 1 run").await;
    }
    assert_eq!(page.get("GET /events", "").await.0, 429);
    page.overview.send_modify(|overview| Arc::make_mut(overview).queue.running = 7);
    for stream in &mut watching {
        read_until(stream, "Working on 7 runs").await;
    }
    watching.pop();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut again = page.open(request).await;
    read_until(&mut again, "Working on 7 runs").await;
}

async fn read_until(stream: &mut TcpStream, words: &str) {
    let mut seen = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&seen).contains(words) {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "{}", String::from_utf8_lossy(&seen));
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading).await.expect("the words come");
}

#[tokio::test(start_paused = true)]
async fn slow_and_silent_connections_are_closed() {
    let page = serve("127.0.0.1:0", None).await;
    for start in ["", "GET / HTTP/1.1\r\nhost: local"] {
        let began = tokio::time::Instant::now();
        let mut stream = page.open(start).await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert_eq!(rest, b"");
        assert!(began.elapsed() < HEADER_TIME + Duration::from_secs(1));
    }
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_the_places_come_back() {
    let page = serve("127.0.0.1:0", None).await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.push(page.open("").await);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut one_more = page.open("").await;
    let mut byte = [0; 1];
    assert!(matches!(one_more.read(&mut byte).await, Ok(0) | Err(_)));
    held.clear();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(page.get("GET /healthz", "").await.0, 200);
}
