//! The broker: the model API as a cell sees it, on the cell's own loopback.
//!
//! The daemon holds the listening socket; the cell's `ANTHROPIC_BASE_URL` points at it. `agent` makes one
//! [`CellBroker`] per cell and drops it with the cell. The parts:
//!
//! | file | what it decides |
//! |---|---|
//! | `gate.rs` | pure: which requests pass and what becomes of their headers |
//! | `credential.rs` | pure: the one real header, and recognising the secret where it must not appear |
//! | `refusal.rs` | pure: answers of our own, in the API's error shape |
//! | `usage.rs` | pure: bytes of an answer to tokens |
//! | `relay.rs` | the two bodies on their way through: bounded, counted, never gathered |
//! | `upstream.rs` | the shared client, and one call through it |
//!
//! Limits, per cell: [`CONNECTIONS`], [`HEADER_BYTES`], [`HEADER_TIME`] (which also ends idle connections), and
//! [`relay::BODY_LIMIT`] for a request's body. A cell that reaches them waits or is refused; its neighbours do not
//! notice.
//!
//! Invariant: the credential is attached only to the two allowed endpoints of the one configured upstream; nothing a
//! cell sends chooses the host, the path or the scheme; no body and no secret is ever logged.

mod credential;
mod gate;
mod refusal;
mod relay;
mod upstream;
mod usage;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use self::credential::Injected;
use self::gate::Verdict;
use self::refusal::Refusal;
use self::relay::AnswerBody;
use self::upstream::Upstream;
use crate::config::Credential;
use crate::model::{AgentName, ModelCall};

/// Connections of one cell that are served at a time; further ones wait in the kernel's queue.
pub const CONNECTIONS: usize = 32;
/// Bytes of a request's line and headers, and of each connection's read buffer.
pub const HEADER_BYTES: usize = 64 * 1024;
/// How long a connection may take to send a request's headers, from the moment the broker waits for them.
pub const HEADER_TIME: Duration = Duration::from_secs(60);
/// Pause after the kernel refused to accept (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a broker could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The upstream is not usable.
    #[error("upstream {url:?} is not usable: {reason}")]
    Upstream {
        /// As configured.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The credential cannot be sent in a header. The text itself is not shown.
    #[error("the model credential has a character that cannot be sent in an HTTP header; enter it again")]
    Credential,
    /// The TLS library has no usable cipher.
    #[error("set up TLS for the model API")]
    Tls(#[source] rustls::Error),
    /// A cell's listener could not be taken over.
    #[error("serve the listener of a cell")]
    Listener(#[source] std::io::Error),
}

/// The broker of all cells: one client, one credential. Clones share both.
#[derive(Clone)]
pub struct Broker {
    shared: Arc<Shared>,
}

struct Shared {
    upstream: Upstream,
    credential: RwLock<Option<Arc<Injected>>>,
}

impl Broker {
    /// A broker for the Messages API under `upstream` (`https://…`, or `http://` on loopback for a stand-in).
    ///
    /// # Errors
    /// When `upstream` is not such an address, or the credential does not fit in a header.
    pub fn new(upstream: &str, credential: Option<Credential>) -> Result<Self, BrokerError> {
        let upstream = Upstream::new(upstream)?;
        let credential = RwLock::new(prepare(credential)?);
        Ok(Self { shared: Arc::new(Shared { upstream, credential }) })
    }

    /// Replaces the credential for every request that begins after this, in every cell.
    ///
    /// # Errors
    /// When it does not fit in a header; the old one is then kept.
    pub fn set_credential(&self, credential: Option<Credential>) -> Result<(), BrokerError> {
        let prepared = prepare(credential)?;
        *self.shared.credential.write().unwrap_or_else(std::sync::PoisonError::into_inner) = prepared;
        Ok(())
    }

    /// Serves one cell's listener until the returned value is dropped. Every call of `/v1/messages` that reached for
    /// the API is reported to `calls` when it ends, and before the cell has the last bytes of a whole answer.
    ///
    /// # Errors
    /// When the listener cannot be made asynchronous.
    pub fn serve(
        &self,
        agent: AgentName,
        listener: TcpListener,
        calls: mpsc::Sender<ModelCall>,
    ) -> Result<CellBroker, BrokerError> {
        listener.set_nonblocking(true).map_err(BrokerError::Listener)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(BrokerError::Listener)?;
        let cell = Arc::new(Cell { shared: Arc::clone(&self.shared), agent, calls });
        Ok(CellBroker { task: tokio::spawn(accept(listener, cell)) })
    }
}

fn prepare(credential: Option<Credential>) -> Result<Option<Arc<Injected>>, BrokerError> {
    credential.map(|c| Injected::new(&c).map(Arc::new).ok_or(BrokerError::Credential)).transpose()
}

/// One cell's door to the model API. Dropping it closes the listener and every connection, both sides.
#[derive(Debug)]
#[must_use = "dropping it closes the cell's door at once"]
pub struct CellBroker {
    task: JoinHandle<()>,
}

impl Drop for CellBroker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What every connection of one cell shares.
struct Cell {
    shared: Arc<Shared>,
    agent: AgentName,
    calls: mpsc::Sender<ModelCall>,
}

/// Owns the connections: when this future is dropped, so are they.
async fn accept(listener: tokio::net::TcpListener, cell: Arc<Cell>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let cell = Arc::clone(&cell);
                connections.spawn(async move {
                    serve_connection(stream, cell).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(agent = %cell.agent, %error, "cannot accept a connection of the cell");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, cell: Arc<Cell>) {
    // Deltas are small and many: none of them may wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let cell = Arc::clone(&cell);
        async move { Ok::<_, Infallible>(cell.answer(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_header_size(HEADER_BYTES)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        // An interrupt, a killed cell and a malformed request all end here.
        tracing::trace!(agent = %cell.agent, %error, "connection of the cell ended");
    }
}

impl Cell {
    async fn answer(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        match gate::judge(request.method(), request.uri(), request.headers()) {
            Verdict::Hello => refusal::hello(),
            Verdict::Refuse(refusal) => self.refuse(refusal, request.into_body()).await,
            Verdict::Pass(endpoint) => {
                let credential =
                    self.shared.credential.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
                let Some(credential) = credential else {
                    return self.refuse(Refusal::NoCredential, request.into_body()).await;
                };
                match self.shared.upstream.call(endpoint, request, credential, &self.agent, &self.calls).await
                {
                    Ok(response) => response,
                    Err((refusal, body)) => match body {
                        Some(body) => self.refuse(refusal, body).await,
                        None => refusal.response(),
                    },
                }
            }
        }
    }

    /// Answers without the API. The rest of the body is taken in first: a socket closed with unread bytes is reset,
    /// and the cell would see a lost connection in place of the answer.
    async fn refuse(&self, refusal: Refusal, body: Incoming) -> Response<AnswerBody> {
        tracing::debug!(agent = %self.agent, ?refusal, "request of the cell refused");
        relay::drain(body).await;
        refusal.response()
    }
}
