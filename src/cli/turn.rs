//! One message and all that comes back, for `ask` and `chat`. Ctrl-C once stops the run, twice leaves.

use tokio::signal::unix::Signal;

use super::client;
use super::failure::CliError;
use super::terminal::complain;
use super::transcript::Outcome;
use crate::config::Paths;
use crate::control::{Reply, Request};
use crate::model::{AgentEvent, AgentName};

/// Where a message goes.
#[derive(Debug, Clone)]
pub(super) struct Thread {
    /// The agent; `None`: the one the conversation is with.
    pub(super) agent: Option<AgentName>,
    /// The terminal conversation.
    pub(super) conversation: String,
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ended {
    /// The run came to its end.
    Run(Outcome),
    /// There was no run: a command was answered.
    Told,
    /// The second Ctrl-C: the run goes on being stopped without us.
    Left,
}

impl Thread {
    /// Sends `text` and shows every event until the run has ended.
    pub(super) async fn say(
        &self,
        paths: &Paths,
        text: &str,
        interrupts: &mut Signal,
        mut show: impl FnMut(&AgentEvent) -> Result<(), CliError>,
    ) -> Result<Ended, CliError> {
        let ask = Request::Ask {
            agent: self.agent.clone(),
            conversation: self.conversation.clone(),
            text: text.to_owned(),
        };
        let mut connection = client::open(paths, &ask).await?;
        let (mut accepted, mut ended, mut stopped) = (None, None, false);
        loop {
            let reply = tokio::select! {
                reply = connection.next() => reply?,
                _ = interrupts.recv() => {
                    if stopped {
                        return Ok(Ended::Left);
                    }
                    stopped = true;
                    tokio::select! {
                        () = self.stop(paths) => continue,
                        _ = interrupts.recv() => return Ok(Ended::Left),
                    }
                }
            };
            match reply {
                Some(Reply::Accepted { inbox }) => accepted = Some(inbox),
                Some(Reply::Event(outbound)) => {
                    show(&outbound.event)?;
                    if outbound.inbox == accepted {
                        ended = Outcome::of(&outbound.event).or(ended);
                    }
                }
                Some(Reply::Done) => return Ok(ended.map_or(Ended::Told, Ended::Run)),
                Some(_) => return Err(client::unexpected()),
                None => {
                    let lost = || CliError::WentAway { start: paths.start_command() };
                    return ended.map(Ended::Run).ok_or_else(lost);
                }
            }
        }
    }

    /// Asks for the end of the running turn; what comes of it is seen in the turn's own events.
    async fn stop(&self, paths: &Paths) {
        let stop = Request::Stop { conversation: self.conversation.clone(), agent: self.agent.clone() };
        match client::single(paths, &stop).await {
            Ok(_) => complain("\nstopping; press Ctrl-C again to leave"),
            Err(error) => complain(&format!("\ncannot stop it: {error}")),
        }
    }

    /// Lets the next message begin a fresh session.
    pub(super) async fn begin_anew(&self, paths: &Paths) -> Result<(), CliError> {
        let new = Request::New { conversation: self.conversation.clone(), agent: self.agent.clone() };
        client::single(paths, &new).await.map(|_| ())
    }
}
