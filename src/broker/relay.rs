//! The two bodies of one call on their way through: the request bounded, the answer counted; neither is gathered.
//!
//! Each frame is asked for only when the other side has room, so a slow reader slows the writer and memory stays at
//! the sockets' and hyper's buffers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;

use super::credential::Injected;
use super::usage::Counter;
use crate::model::{AgentName, ModelCall};

/// Bytes of a request's body: what the Messages API itself takes.
pub(super) const BODY_LIMIT: u64 = 32 * 1024 * 1024;
/// How long the cell may leave a body unfinished without a byte.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// A refused request's body is read to its end within these bounds.
const DRAIN_LIMIT: usize = 64 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// How long a count waits for a reader that is behind.
const REPORT_TIME: Duration = Duration::from_secs(60);

/// The body of every answer to a cell.
pub(super) type AnswerBody = Either<Full<Bytes>, Answer>;

/// Why a request's body was not carried to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// More than [`BODY_LIMIT`].
    #[error("the body is too large")]
    TooLarge,
    /// Nothing came for [`STALL_LIMIT`].
    #[error("the body stalled")]
    Stalled,
    /// The cell's connection failed.
    #[error("the cell's connection failed")]
    Cell(#[source] hyper::Error),
}

/// A request's body on its way to the API. Dropped unfinished, it gives the rest back to [`Rest`].
pub(super) struct Upload {
    body: Option<Incoming>,
    carried: u64,
    stall: Option<Pin<Box<Sleep>>>,
    begun: Option<oneshot::Sender<()>>,
    rest: Option<oneshot::Sender<Incoming>>,
}

/// What the caller of an upload can wait for.
pub(super) struct Rest {
    /// Resolves when the API's connection stands and asks for the body (or there is none).
    pub begun: oneshot::Receiver<()>,
    /// The rest of a body that was not carried.
    pub rest: oneshot::Receiver<Incoming>,
}

impl Upload {
    pub(super) fn new(body: Incoming) -> (Self, Rest) {
        let (begun, begun_receiver) = oneshot::channel();
        let (rest, rest_receiver) = oneshot::channel();
        let empty = body.is_end_stream();
        let mut upload =
            Self { body: Some(body), carried: 0, stall: None, begun: Some(begun), rest: Some(rest) };
        if empty {
            upload.begin();
        }
        (upload, Rest { begun: begun_receiver, rest: rest_receiver })
    }

    fn begin(&mut self) {
        if let Some(begun) = self.begun.take() {
            // Nobody listens any more when the answer came first.
            let _ = begun.send(());
        }
    }

    fn judge(&mut self, frame: Frame<Bytes>) -> Option<Result<Frame<Bytes>, UploadError>> {
        // Trailers have no meaning to the API.
        let data = frame.into_data().ok()?;
        self.carried = self.carried.saturating_add(data.len() as u64);
        Some(if self.carried > BODY_LIMIT { Err(UploadError::TooLarge) } else { Ok(Frame::data(data)) })
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        self.begin();
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        match Pin::new(body).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.stall = None;
                Poll::Ready(match frame {
                    Some(Ok(frame)) => self.judge(frame),
                    Some(Err(error)) => Some(Err(UploadError::Cell(error))),
                    None => None,
                })
            }
            Poll::Pending => {
                let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL_LIMIT)));
                stall.as_mut().poll(cx).map(|()| Some(Err(UploadError::Stalled)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(body), Some(rest)) = (self.body.take(), self.rest.take()) {
            // The caller is gone when the cell is.
            let _ = rest.send(body);
        }
    }
}

/// Reads a body to its end, within bounds.
pub(super) async fn drain(mut body: Incoming) {
    let reading = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > DRAIN_LIMIT {
                break;
            }
        }
    };
    // Whatever is left after that is the cell's loss.
    let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
}

/// One model call being counted: reported exactly once, at the latest when this is dropped.
pub(super) struct Tally {
    calls: mpsc::Sender<ModelCall>,
    call: Option<ModelCall>,
    counter: Option<Counter>,
}

impl Tally {
    /// A call that nobody has answered yet.
    pub(super) fn new(agent: AgentName, calls: mpsc::Sender<ModelCall>) -> Self {
        let call =
            ModelCall { agent, model: String::new(), status: 0, usage: crate::model::Usage::default() };
        Self { calls, call: Some(call), counter: None }
    }

    /// The API answers.
    pub(super) fn answered(&mut self, status: u16, content_type: &str) {
        if let Some(call) = &mut self.call {
            call.status = status;
        }
        self.counter = Some(Counter::new(status, content_type));
    }

    fn feed(&mut self, bytes: &[u8]) {
        if self.counter.as_mut().is_some_and(|counter| counter.feed(bytes)) {
            self.report();
        }
    }

    fn report(&mut self) {
        let Some(mut call) = self.call.take() else { return };
        if let Some(mut counter) = self.counter.take() {
            let counted = counter.finish();
            call.model = counted.model;
            call.usage = counted.usage;
        }
        let Err(TrySendError::Full(call)) = self.calls.try_send(call) else { return };
        // The stream does not wait for its bookkeeper.
        let calls = self.calls.clone();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if calls.send_timeout(call, REPORT_TIME).await.is_err() {
                tracing::warn!("a model call was not counted: nobody took it for a minute");
            }
        });
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.report();
    }
}

/// The secret came back in an answer.
#[derive(Debug, thiserror::Error)]
#[error("the answer held the credential")]
pub(super) struct Reflected;

/// An answer's body on its way to the cell. Dropped midway, it closes the API's connection.
pub(super) struct Answer {
    body: Incoming,
    tally: Option<Tally>,
    credential: Arc<Injected>,
    /// How much of the credential the last bytes were.
    matched: usize,
}

impl Answer {
    pub(super) fn new(body: Incoming, tally: Option<Tally>, credential: Arc<Injected>) -> Self {
        Self { body, tally, credential, matched: 0 }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(cx));
        // Trailers would be one more way for a secret to come back; the API sends none.
        let data = match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => data,
            Some(Err(error)) => {
                this.tally = None;
                return Poll::Ready(Some(Err(error.into())));
            }
            Some(Ok(Err(_))) | None => {
                this.tally = None;
                return Poll::Ready(None);
            }
        };
        if this.credential.find(&mut this.matched, &data) {
            this.tally = None;
            tracing::error!("the model API's answer held the credential; it was cut off");
            return Poll::Ready(Some(Err(Reflected.into())));
        }
        if let Some(tally) = &mut this.tally {
            tally.feed(&data);
            if this.body.is_end_stream() {
                this.tally = None;
            }
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
