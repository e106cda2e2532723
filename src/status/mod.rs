//! The status page: what the owner sees in a browser. `daemon` binds it at start and runs it to the end.
//!
//! | route | what |
//! |---|---|
//! | `/` | the page; keeps itself up to date by `/events`, without scripts by reloading |
//! | `/events` | server-sent events, each the new inside of `<main>` (`events.rs`) |
//! | `/api/overview` | the overview as JSON |
//! | `/metrics` | the overview as Prometheus text |
//! | `/healthz` | `ok`; the only route that never asks for the password |
//!
//! GET and HEAD only. Off loopback a password is required; on loopback it is asked for when set. `gate.rs` decides
//! who is answered, `password.rs` checks and paces guesses, `page.rs`, `words.rs` and `metrics.rs` render.
//!
//! Limits: [`CONNECTIONS`] at a time, of these [`WATCHERS`] live streams; further ones are closed or told to come
//! back. A connection has [`HEADER_TIME`] for each request's headers and ends after [`CONNECTION_TIME`].
//!
//! Invariant: the page only reads. No request changes anything, and no request body is ever read.

mod events;
mod gate;
mod metrics;
mod page;
mod password;
mod words;

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use self::events::Events;
use self::gate::{Names, Route};
use self::password::{Admission, Password};
use crate::config::StatusSettings;
use crate::model::Overview;

/// Connections served at a time; further ones are closed at once.
const CONNECTIONS: usize = 16;
/// Browsers that watch at a time.
const WATCHERS: usize = 4;
/// From the moment a request is waited for until its headers are there.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Bytes of a request's headers.
const HEADER_BYTES: usize = 16 * 1024;
/// After this long a connection is closed, so that a peer which stopped reading gives its place back; a browser
/// reconnects by itself.
const CONNECTION_TIME: Duration = Duration::from_secs(30 * 60);
/// Pause after the kernel refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// Why the page cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The address cannot be listened on.
    #[error(
        "the status page cannot listen on {address}; set listen in [status] to a free address, or to \"off\""
    )]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Anybody who reaches the address could read the page.
    #[error("the status page would be open to the network on {0} without a password: set status.password")]
    Unprotected(SocketAddr),
    /// The password's hash cannot be read.
    #[error("status.password is not an Argon2 hash in PHC form ($argon2id$…)")]
    Password,
}

/// The page, bound to its address and not served yet.
pub struct StatusPage {
    listener: TcpListener,
    address: SocketAddr,
    names: Names,
    password: Option<Password>,
}

impl StatusPage {
    /// Takes the address of `settings`.
    ///
    /// # Errors
    /// When it is in use or not ours, when it is open to the network without a password, or the hash is broken.
    pub async fn bind(settings: &StatusSettings) -> Result<Self, StatusError> {
        let password = match &settings.password {
            Some(hash) => Some(Password::new(hash).ok_or(StatusError::Password)?),
            None if settings.listen.ip().is_loopback() => None,
            None => return Err(StatusError::Unprotected(settings.listen)),
        };
        let bind = |source| StatusError::Bind { address: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        // Without its own name the machine is still found by address.
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Ok(Self { listener, address, names: Names::new(address, &machine), password })
    }

    /// Where it listens: with the port the kernel chose when the settings said 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the page until this future is dropped, which also closes every connection.
    pub async fn serve(self, overview: watch::Receiver<Arc<Overview>>) {
        let Self { listener, names, password, .. } = self;
        let watchers = Arc::new(Semaphore::new(WATCHERS));
        let site = Arc::new(Site { names, password, overview, watchers });
        let mut connections = JoinSet::new();
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    while connections.try_join_next().is_some() {}
                    if connections.len() < CONNECTIONS {
                        connections.spawn(serve_connection(stream, peer.ip(), Arc::clone(&site)));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the status page cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// What every connection shares.
struct Site {
    names: Names,
    password: Option<Password>,
    overview: watch::Receiver<Arc<Overview>>,
    watchers: Arc<Semaphore>,
}

type Answer = Response<Either<Full<Bytes>, Events>>;

async fn serve_connection(stream: TcpStream, peer: IpAddr, site: Arc<Site>) {
    let service = service_fn(|request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(site.answer(request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_header_size(HEADER_BYTES)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::trace!(%peer, %error, "connection to the status page ended"),
    }
}

impl Site {
    async fn answer(&self, request: Request<Incoming>, peer: IpAddr) -> Answer {
        let mut answer = match gate::judge(request.method(), request.uri(), request.headers(), &self.names) {
            Err(status) => refusal(status),
            Ok(Route::Health) => text(StatusCode::OK, "text/plain; charset=utf-8", "ok\n".to_owned()),
            Ok(route) => match self.admit(request.headers(), peer).await {
                Admission::Admitted => self.show(route, request.method()),
                Admission::Refused => unauthorised(),
                Admission::Later(wait) => later(wait),
            },
        };
        protect(answer.headers_mut());
        answer
    }

    async fn admit(&self, headers: &HeaderMap, peer: IpAddr) -> Admission {
        match &self.password {
            Some(password) => password.admit(headers, peer).await,
            None => Admission::Admitted,
        }
    }

    fn show(&self, route: Route, method: &Method) -> Answer {
        let overview = || Arc::clone(&self.overview.borrow());
        match route {
            Route::Page => {
                let nonce = uuid::Uuid::new_v4().simple().to_string();
                let page = page::document(&overview(), &nonce, epoch_seconds());
                let mut answer = text(StatusCode::OK, "text/html; charset=utf-8", page);
                set(answer.headers_mut(), CONTENT_SECURITY_POLICY, &policy(&nonce));
                answer
            }
            Route::Events => self.events(method),
            Route::Metrics => {
                text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics::render(&overview()))
            }
            Route::Overview => match serde_json::to_string(&*overview()) {
                Ok(json) => text(StatusCode::OK, "application/json", json),
                Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR),
            },
            Route::Health => refusal(StatusCode::NOT_FOUND),
        }
    }

    fn events(&self, method: &Method) -> Answer {
        let mut answer = if method == Method::HEAD {
            text(StatusCode::OK, "", String::new())
        } else {
            let Ok(place) = Arc::clone(&self.watchers).try_acquire_owned() else {
                return later(Duration::from_secs(10));
            };
            Response::new(Either::Right(Events::new(self.overview.clone(), place)))
        };
        set(answer.headers_mut(), CONTENT_TYPE, "text/event-stream");
        answer
    }
}

/// Style and script of this one answer, its own stream, its own icon; nothing else, and in no frame.
fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// Headers of every answer.
fn protect(headers: &mut HeaderMap) {
    if !headers.contains_key(CONTENT_SECURITY_POLICY) {
        set(headers, CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    }
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}

fn text(status: StatusCode, kind: &str, text: String) -> Answer {
    let mut answer = Response::new(Either::Left(Full::from(text)));
    *answer.status_mut() = status;
    set(answer.headers_mut(), CONTENT_TYPE, kind);
    answer
}

fn refusal(status: StatusCode) -> Answer {
    let words = match status {
        StatusCode::MISDIRECTED_REQUEST => {
            "This is not the address of this page. Use localhost or its own address.\n"
        }
        StatusCode::METHOD_NOT_ALLOWED => "This page can only be read.\n",
        StatusCode::FORBIDDEN => "Another site may not read this.\n",
        StatusCode::NOT_FOUND => "There is no such page.\n",
        _ => "This did not work.\n",
    };
    let mut answer = text(status, "text/plain; charset=utf-8", words.to_owned());
    if status == StatusCode::METHOD_NOT_ALLOWED {
        set(answer.headers_mut(), ALLOW, "GET, HEAD");
    }
    answer
}

fn unauthorised() -> Answer {
    let mut answer =
        text(StatusCode::UNAUTHORIZED, "text/plain; charset=utf-8", "The password, please.\n".to_owned());
    set(answer.headers_mut(), WWW_AUTHENTICATE, "Basic realm=\"skep\", charset=\"UTF-8\"");
    answer
}

fn later(wait: Duration) -> Answer {
    let words = "Too many at once. Come back in a moment.\n".to_owned();
    let mut answer = text(StatusCode::TOO_MANY_REQUESTS, "text/plain; charset=utf-8", words);
    set(answer.headers_mut(), RETRY_AFTER, &wait.as_secs().max(1).to_string());
    answer
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Every value is our own ASCII text.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn epoch_seconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |passed| passed.as_secs().try_into().unwrap_or(i64::MAX))
}
