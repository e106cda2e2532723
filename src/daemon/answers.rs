//! Answers to the command line's requests.

use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;

use super::exec;
use super::reload::Reload;
use crate::agent::{Agents, Cells, Running};
use crate::announce::Announcer;
use crate::control::{Call, ControlServer, Reply, Request};
use crate::inbox::Inbox;
use crate::model::{
    Access, AgentEvent, AgentName, Command, Content, InboxId, Origin, Outbound, Place, RunState, SessionId,
    Usage,
};
use crate::overview::Observer;
use crate::store::StoreError;

/// How long a pairing code is good for.
const PAIRING: Duration = Duration::from_secs(600);

/// Everything a request can touch; cheap to clone.
#[derive(Clone)]
pub(super) struct Answers {
    pub observer: Observer,
    pub inbox: Inbox,
    pub announcer: Announcer,
    pub agents: Agents,
    pub access: watch::Sender<Access>,
    pub cells: Cells,
    pub reload: Reload,
}

impl Answers {
    /// Serves the control socket until it fails.
    pub(super) async fn run(
        self,
        server: ControlServer,
        calls_in: mpsc::Sender<Call>,
        mut calls: mpsc::Receiver<Call>,
    ) {
        let answers = Arc::new(self);
        let mut tasks = JoinSet::new();
        let serving = server.run(calls_in);
        tokio::pin!(serving);
        loop {
            tokio::select! {
                ended = &mut serving => {
                    tracing::error!(?ended, "the control socket ended");
                    return;
                }
                Some(call) = calls.recv() => {
                    let answers = Arc::clone(&answers);
                    tasks.spawn(async move { answers.answer(call).await });
                }
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    async fn answer(&self, call: Call) {
        let Call { request, descriptors, reply, .. } = call;
        let last = match request {
            Request::Status => match self.observer.look().await {
                Ok(overview) => Reply::Overview(Box::new(overview)),
                Err(error) => refused(&error),
            },
            Request::Agents => match self.observer.look().await {
                Ok(overview) => Reply::Agents(overview.agents),
                Err(error) => refused(&error),
            },
            Request::Runs { limit } => match self.observer.store.latest_runs(limit).await {
                Ok(runs) => Reply::Runs(runs),
                Err(error) => refused(&error),
            },
            Request::Ask { agent, conversation, text } => {
                self.ask(agent, conversation, &text, &reply).await.unwrap_or_else(|error| refused(&error))
            }
            Request::Stop { conversation, agent } => {
                self.agents.stop(Place::Terminal(conversation), agent).await;
                Reply::Done
            }
            Request::New { conversation, agent } => {
                self.renew(conversation, agent, Running::Finish).await.unwrap_or_else(|error| refused(&error))
            }
            Request::Pair => self.pair(),
            Request::Exec { agent, argv, env } => {
                let settings = self.observer.settings.borrow().agents.get(&agent).cloned();
                match settings {
                    Some(settings) => {
                        exec::in_cell(&self.cells, &agent, &settings, argv, env, descriptors, &reply).await
                    }
                    None => unknown_agent(&agent),
                }
            }
            Request::Version => Reply::Version { version: env!("CARGO_PKG_VERSION").to_owned() },
            Request::Reload => match self.reload.apply().await {
                Ok(done) => Reply::Reloaded { warnings: done.warnings, restart: done.restart },
                Err(errors) => Reply::error(
                    errors.to_string(),
                    "the old settings stay in force; mend the file and reload",
                ),
            },
        };
        // The client may have gone; nothing depends on it.
        let _ = reply.send(last).await;
    }

    /// Stores the words, then passes on what becomes of them.
    async fn ask(
        &self,
        agent: Option<AgentName>,
        conversation: String,
        text: &str,
        reply: &mpsc::Sender<Reply>,
    ) -> Result<Reply, StoreError> {
        if let Some(name) = &agent
            && !self.observer.settings.borrow().agents.contains_key(name)
        {
            return Ok(unknown_agent(name));
        }
        let content = match Command::parse(text, None) {
            // The terminal talks to one agent: the command is meant for it, not for the place's own.
            Some(Command::New) if agent.is_some() => {
                return self.renew(conversation, agent, Running::Stop).await;
            }
            Some(command) => Content::Command(command),
            None => Content::Text { agent, text: text.to_owned(), reply_to: None },
        };
        let origin = Origin { place: Place::Terminal(conversation), user: None, message: None };
        // Subscribed before it is submitted: the first event must not be missed.
        let events = self.announcer.watch();
        let inbox = self.inbox.submit(origin, content).await?;
        if reply.send(Reply::Accepted { inbox }).await.is_err() {
            return Ok(Reply::Done);
        }
        self.follow(inbox, events, reply).await
    }

    async fn follow(
        &self,
        inbox: InboxId,
        mut events: broadcast::Receiver<Outbound>,
        reply: &mpsc::Sender<Reply>,
    ) -> Result<Reply, StoreError> {
        loop {
            let received = tokio::select! {
                received = events.recv() => received,
                // The words are stored and will be answered all the same.
                () = reply.closed() => return Ok(Reply::Done),
            };
            let outbound = match received {
                Ok(outbound) if outbound.inbox == Some(inbox) => outbound,
                Ok(_) => continue,
                Err(broadcast::error::RecvError::Lagged(_)) => match self.missed(inbox).await? {
                    Some(outbound) => outbound,
                    None => continue,
                },
                Err(broadcast::error::RecvError::Closed) => {
                    return Ok(Reply::error(
                        "the daemon is going down",
                        "what you asked is stored: skep runs",
                    ));
                }
            };
            let ended = matches!(
                outbound.event,
                AgentEvent::Finished { .. } | AgentEvent::Failed(_) | AgentEvent::Cancelled
            );
            if reply.send(Reply::Event(outbound)).await.is_err() || ended {
                return Ok(Reply::Done);
            }
        }
    }

    /// The ending of a run whose events this terminal was too slow to take.
    async fn missed(&self, inbox: InboxId) -> Result<Option<Outbound>, StoreError> {
        let Some((run, overview, answer)) = self.observer.store.ended_run_of(inbox).await? else {
            return Ok(None);
        };
        let event = match overview.state {
            RunState::Cancelled => AgentEvent::Cancelled,
            RunState::Failed => AgentEvent::Failed(crate::model::Failure {
                what: overview.error.clone().unwrap_or_default(),
                fix: "skep runs shows more".to_owned(),
            }),
            _ => AgentEvent::Finished { text: answer.unwrap_or_default(), usage: Usage::default() },
        };
        Ok(Some(Outbound {
            place: overview.place,
            conversation: crate::model::ConversationId(0),
            agent: overview.agent,
            run: Some(run),
            inbox: Some(inbox),
            event,
        }))
    }

    async fn renew(
        &self,
        conversation: String,
        agent: Option<AgentName>,
        running: Running,
    ) -> Result<Reply, StoreError> {
        let place = Place::Terminal(conversation);
        let agent = match agent {
            Some(agent) => agent,
            None => match self.observer.store.place_agent(&place).await? {
                Some(agent) => agent,
                None => self.observer.settings.borrow().default_agent.clone(),
            },
        };
        let conversation = self.observer.store.conversation(place, agent).await?;
        let session = SessionId::random();
        self.observer.store.set_session(conversation.id, session.clone()).await?;
        self.agents.renew(conversation, session, running).await;
        Ok(Reply::Done)
    }

    /// A fresh one-time code, good for a while; an older one is void from now on.
    fn pair(&self) -> Reply {
        let Some(code) = pairing_code() else {
            return Reply::error("the system gives no random numbers", "try again; this should never happen");
        };
        self.access.send_modify(|access| access.pairing = Some(code.clone()));
        let (access, mine) = (self.access.clone(), code.clone());
        tokio::spawn(async move {
            tokio::time::sleep(PAIRING).await;
            access.send_if_modified(|access| {
                let expired = access.pairing.as_ref() == Some(&mine);
                if expired {
                    access.pairing = None;
                }
                expired
            });
        });
        Reply::Code { code, expires_in: PAIRING.as_secs() }
    }
}

/// Eight characters without look-alikes: 40 bits for ten minutes.
fn pairing_code() -> Option<String> {
    const LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).ok()?;
    let mut code: String = bytes.iter().map(|b| char::from(LETTERS[usize::from(b % 32)])).collect();
    code.insert(4, '-');
    Some(code)
}

fn unknown_agent(name: &AgentName) -> Reply {
    Reply::error(format!("there is no agent {name}"), "skep agents lists those there are")
}

fn refused(error: &StoreError) -> Reply {
    tracing::error!(error = error as &dyn std::error::Error, "a request of the command line failed");
    Reply::error(error.to_string(), "the disk may be full; journalctl -u skep says more")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairing_codes_are_readable_and_differ() {
        let (one, other) = (pairing_code().unwrap(), pairing_code().unwrap());
        assert_ne!(one, other);
        assert_eq!((one.len(), one.as_bytes()[4]), (9, b'-'));
        assert!(
            one.bytes().all(|b| b == b'-' || (b.is_ascii_alphanumeric() && !b"IO01".contains(&b))),
            "{one}"
        );
    }
}
