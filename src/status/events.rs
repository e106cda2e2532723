//! The live stream: `<main>` again whenever it changed.
//!
//! Invariant: nothing is rendered and no timer runs unless a browser watches.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::{epoch_seconds, page};
use crate::model::Overview;

/// The shortest time between two events of one stream.
pub(super) const PACE: Duration = Duration::from_secs(1);
/// Without a change the ages are still refreshed, or a comment shows that the connection stands.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);

/// The body of `/events`. Holds one of the few places until it is dropped.
pub(super) struct Events {
    next: Option<Next>,
}

type Next = Pin<Box<dyn Future<Output = Option<(Bytes, Feed)>> + Send>>;

struct Feed {
    overview: watch::Receiver<Arc<Overview>>,
    shown: String,
    not_before: Instant,
    _place: OwnedSemaphorePermit,
}

impl Events {
    pub(super) fn new(mut overview: watch::Receiver<Arc<Overview>>, place: OwnedSemaphorePermit) -> Self {
        // The first event is what is there now: a browser that comes back may have missed much.
        overview.mark_changed();
        let feed = Feed { overview, shown: String::new(), not_before: Instant::now(), _place: place };
        Self { next: Some(Box::pin(feed.next())) }
    }
}

impl Feed {
    /// Waits for the next thing to say; `None` when the daemon ends.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        sleep_until(self.not_before).await;
        if let Ok(Err(_)) = timeout(HEARTBEAT, self.overview.changed()).await {
            return None;
        }
        let shown = page::fragment(&self.overview.borrow_and_update(), epoch_seconds());
        self.not_before = Instant::now() + PACE;
        let event = if shown == self.shown { ":\n\n".to_owned() } else { event(&shown) };
        self.shown = shown;
        Some((event.into(), self))
    }
}

/// One event; a text of many lines takes many `data:`.
fn event(text: &str) -> String {
    let mut event = String::with_capacity(text.len() + 64);
    for line in text.split('\n') {
        event.push_str("data: ");
        event.push_str(line);
        event.push('\n');
    }
    event.push('\n');
    event
}

impl Body for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(next) = self.next.as_mut() else { return Poll::Ready(None) };
        match std::task::ready!(next.as_mut().poll(cx)) {
            Some((bytes, feed)) => {
                self.next = Some(Box::pin(feed.next()));
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            None => {
                self.next = None;
                Poll::Ready(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::sync::Semaphore;

    use super::*;

    async fn next(events: &mut Events) -> Option<(Duration, String)> {
        let began = Instant::now();
        let frame = events.frame().await?.unwrap();
        let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
        Some((began.elapsed(), text))
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_sent_at_most_once_a_second_and_silence_has_a_heartbeat() {
        let (sender, receiver) = watch::channel(Arc::new(Overview::default()));
        let places = Arc::new(Semaphore::new(1));
        let mut events = Events::new(receiver, Arc::clone(&places).try_acquire_owned().unwrap());
        let (waited, first) = next(&mut events).await.unwrap();
        assert_eq!(waited, Duration::ZERO);
        assert!(first.starts_with("data: <h1>All quiet</h1>") && first.ends_with("\n\n"), "{first}");

        let working = |running| {
            let mut overview = Overview::default();
            overview.queue.running = running;
            Arc::new(overview)
        };
        sender.send_replace(working(1));
        sender.send_replace(working(2));
        let (waited, second) = next(&mut events).await.unwrap();
        assert!(waited >= PACE && waited < PACE + Duration::from_millis(10), "{waited:?}");
        assert!(second.contains("Working on 2 runs"), "only the latest: {second}");

        let (waited, silence) = next(&mut events).await.unwrap();
        assert!(waited >= HEARTBEAT, "{waited:?}");
        assert_eq!(silence, ":\n\n");
        drop(sender);
        assert_eq!(next(&mut events).await, None);
        assert_eq!(places.available_permits(), 1);
    }

    #[test]
    fn a_text_of_many_lines_is_one_event() {
        assert_eq!(event("a\n\nb"), "data: a\ndata: \ndata: b\n\n");
    }
}
