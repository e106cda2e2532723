use super::*;
use crate::model::{AgentName, ConversationId, Place};
use crate::store::Conversation;

const LIMITS: Limits = Limits { idle: Duration::from_secs(600), turn: Duration::from_secs(1800) };

fn run(id: i64, attempts: u32) -> Run {
    Run {
        id: RunId(id),
        conversation: Conversation {
            id: ConversationId(1),
            place: Place::Terminal("t".to_owned()),
            agent: AgentName::new("general").unwrap(),
            session: SessionId("s".to_owned()),
            begun: false,
        },
        inbox: None,
        prompt: format!("prompt {id}"),
        reply_to: None,
        state: RunState::Queued,
        attempts,
    }
}

fn enqueue(session: &mut Session, id: i64) -> Vec<Action> {
    session.on(Input::Enqueue(Box::new(run(id, 0)), Arrival::Fresh))
}

/// A session with run 1 at Claude; returns the message id.
fn busy(session: &mut Session) -> String {
    assert_eq!(enqueue(session, 1), [Action::Launch { resume: session.begun }]);
    let actions = session.on(Input::Ready);
    message_of(&actions)
}

fn message_of(actions: &[Action]) -> String {
    actions
        .iter()
        .find_map(|action| match action {
            Action::Hand { message, .. } => Some(message.clone()),
            _ => None,
        })
        .unwrap_or_else(|| panic!("no run was handed over: {actions:?}"))
}

fn endings(actions: &[Action]) -> Vec<(i64, RunState, String)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::End(closing) => Some((closing.run.0, closing.state, closing.text.clone())),
            _ => None,
        })
        .collect()
}

fn answered(message: &str, text: &str) -> Input {
    Input::TurnEnded(TurnEnd {
        text: text.to_owned(),
        messages: vec![message.to_owned()],
        ..TurnEnd::default()
    })
}

fn fresh() -> SessionId {
    SessionId("fresh".to_owned())
}

fn failure(what: &str) -> Failure {
    Failure { what: what.to_owned(), fix: "Fix it".to_owned() }
}

#[test]
fn a_message_starts_claude_streams_and_ends_once() {
    let mut session = Session::new(LIMITS, false);
    let message = busy(&mut session);
    assert!(session.is_busy());
    session.on(Input::TurnStarted);
    assert_eq!(session.on(Input::Text("early".to_owned())), [], "not the run's own turn yet");
    assert_eq!(session.on(Input::Taken(message.clone())), []);
    let streamed = session.on(Input::Text("Hi".to_owned()));
    assert_eq!(streamed, [Action::Emit(Some(RunId(1)), AgentEvent::Text { delta: "Hi".to_owned() })]);
    let actions = session.on(answered(&message, "Hi there"));
    assert_eq!(endings(&actions), [(1, RunState::Finished, "Hi there".to_owned())]);
    assert!(actions.contains(&Action::Begun(None)));
    assert!(actions.contains(&Action::Arm(Timer::Idle, LIMITS.idle)));
    assert!(!session.is_busy());
}

#[test]
fn further_messages_wait_in_order_and_are_handed_over_one_by_one() {
    let mut session = Session::new(LIMITS, false);
    let first = busy(&mut session);
    let queued = |id, ahead| [Action::Emit(Some(RunId(id)), AgentEvent::Queued { ahead })];
    assert_eq!(enqueue(&mut session, 2), queued(2, 1));
    assert_eq!(enqueue(&mut session, 3), queued(3, 2));
    let actions = session.on(answered(&first, "one"));
    assert_eq!(endings(&actions), [(1, RunState::Finished, "one".to_owned())]);
    let second = message_of(&actions);
    session.on(Input::Cancel(RunId(3)));
    let actions = session.on(answered(&second, "two"));
    assert_eq!(endings(&actions), [(2, RunState::Finished, "two".to_owned())]);
    assert!(!actions.iter().any(|a| matches!(a, Action::Hand { .. })), "the third was cancelled");
}

#[test]
fn a_turn_of_claudes_own_is_delivered_and_does_not_end_the_run() {
    let mut session = Session::new(LIMITS, false);
    let message = busy(&mut session);
    let own = TurnEnd { text: "task done".to_owned(), own: true, ..TurnEnd::default() };
    let actions = session.on(Input::TurnEnded(own.clone()));
    let deliver = Action::Deliver { text: "task done".to_owned(), cost_micros: 0 };
    assert_eq!(actions, [Action::Disarm(Timer::HardStop), deliver]);
    assert!(session.is_busy());
    let actions = session.on(answered(&message, "answer"));
    assert_eq!(endings(&actions).len(), 1);
    session.on(Input::TurnStarted);
    assert!(session.is_busy(), "a turn of its own keeps the cell");
    let actions = session.on(Input::TurnEnded(own));
    assert!(actions.contains(&Action::Deliver { text: "task done".to_owned(), cost_micros: 0 }));
}

#[test]
fn a_message_folded_into_a_turn_of_claudes_own_is_answered_by_it() {
    let mut session = Session::new(LIMITS, false);
    let first = busy(&mut session);
    session.on(answered(&first, "one"));
    session.on(Input::TurnStarted);
    let second = message_of(&enqueue(&mut session, 2));
    let end = TurnEnd {
        own: true,
        ..match answered(&second, "both") {
            Input::TurnEnded(e) => e,
            _ => unreachable!(),
        }
    };
    assert_eq!(endings(&session.on(Input::TurnEnded(end))), [(2, RunState::Finished, "both".to_owned())]);
}

#[test]
fn stop_interrupts_then_kills_and_keeps_what_was_said() {
    let mut session = Session::new(LIMITS, false);
    let message = busy(&mut session);
    session.on(Input::Taken(message.clone()));
    session.on(Input::Text("half".to_owned()));
    assert_eq!(session.on(Input::Stop), [Action::Interrupt, Action::Arm(Timer::HardStop, INTERRUPT_GRACE)]);
    let end = TurnEnd {
        interrupted: true,
        failure: Some(failure("x")),
        messages: vec![message],
        ..TurnEnd::default()
    };
    let actions = session.on(Input::TurnEnded(end));
    assert_eq!(endings(&actions), [(1, RunState::Cancelled, "half\n\n⏹ Stopped.".to_owned())]);

    let mut session = Session::new(LIMITS, false);
    let message = busy(&mut session);
    session.on(Input::Taken(message));
    session.on(Input::Stop);
    assert_eq!(session.on(Input::Timer(Timer::HardStop)), [Action::Kill]);
    let actions = session.on(Input::Exited { said: String::new() });
    assert_eq!(endings(&actions), [(1, RunState::Cancelled, "⏹ Stopped.".to_owned())]);
}

#[test]
fn stop_with_nothing_running_does_nothing() {
    let mut session = Session::new(LIMITS, true);
    assert_eq!(session.on(Input::Stop), []);
    let mut session = Session::new(LIMITS, true);
    enqueue(&mut session, 1);
    let actions = session.on(Input::Stop);
    assert_eq!(endings(&actions), [(1, RunState::Cancelled, "⏹ Stopped.".to_owned())]);
}

#[test]
fn the_turn_limit_is_told_with_its_fix() {
    let mut session = Session::new(LIMITS, false);
    let message = busy(&mut session);
    let actions = session.on(Input::Timer(Timer::TurnLimit));
    assert_eq!(actions, [Action::Interrupt, Action::Arm(Timer::HardStop, INTERRUPT_GRACE)]);
    let actions = session.on(answered(&message, "so far"));
    let told = "so far\n\n⚠️ This took longer than 30 min and was stopped.\n\
                Ask for a smaller step, or raise turn_limit in skep.toml.";
    assert_eq!(endings(&actions), [(1, RunState::Failed, told.to_owned())]);
}

#[test]
fn a_crash_is_picked_up_again_with_a_note_and_given_up_in_the_end() {
    let mut session = Session::new(LIMITS, true);
    busy(&mut session);
    for attempt in 1..ATTEMPTS {
        let actions = session.on(Input::Exited { said: "boom".to_owned() });
        assert!(actions.contains(&Action::Launch { resume: true }), "attempt {attempt}: {actions:?}");
        let actions = session.on(Input::Ready);
        let Some(Action::Hand { prompt, .. }) = actions.iter().find(|a| matches!(a, Action::Hand { .. }))
        else {
            panic!("{actions:?}");
        };
        assert!(prompt.ends_with("\n\nprompt 1") && prompt.starts_with("[Note from Skep"), "{prompt}");
    }
    let actions = session.on(Input::Exited { said: "line\nboom\n".to_owned() });
    let [(1, RunState::Failed, text)] = &endings(&actions)[..] else { panic!("{actions:?}") };
    assert!(text.contains("Its last words: boom."), "{text}");
}

#[test]
fn a_run_found_running_after_a_restart_is_resumed_and_says_so() {
    let mut session = Session::new(LIMITS, true);
    let actions = session.on(Input::Enqueue(Box::new(run(1, 1)), Arrival::Recovered));
    assert_eq!(actions, [Action::Launch { resume: true }]);
    let message = message_of(&session.on(Input::Ready));
    let told = session.on(Input::Taken(message.clone()));
    let delta = "_Resumed after an interruption._\n\n".to_owned();
    assert_eq!(told, [Action::Emit(Some(RunId(1)), AgentEvent::Text { delta: delta.clone() })]);
    let actions = session.on(answered(&message, "done"));
    assert_eq!(endings(&actions), [(1, RunState::Finished, format!("{delta}done"))]);
}

#[test]
fn a_run_handed_over_too_often_is_given_up_unstarted() {
    let mut session = Session::new(LIMITS, true);
    session.on(Input::Enqueue(Box::new(run(1, ATTEMPTS)), Arrival::Recovered));
    enqueue(&mut session, 2);
    let actions = session.on(Input::Ready);
    assert_eq!(endings(&actions)[0].1, RunState::Failed);
    message_of(&actions);
}

#[test]
fn a_session_that_is_gone_is_replaced_by_a_fresh_one_and_the_answer_says_so() {
    let mut session = Session::new(LIMITS, true);
    enqueue(&mut session, 1);
    let actions = session.on(Input::StartFailed(StartFailure::NoSession));
    assert_eq!(actions, [Action::RenewSession, Action::Launch { resume: false }]);
    let message = message_of(&session.on(Input::Ready));
    let actions = session.on(answered(&message, "hi"));
    let told = "_The earlier conversation could not be resumed; this is a fresh one._\n\nhi";
    assert_eq!(endings(&actions), [(1, RunState::Finished, told.to_owned())]);
}

#[test]
fn a_slow_start_is_tried_again_before_the_conversation_is_given_up() {
    let mut session = Session::new(LIMITS, true);
    enqueue(&mut session, 1);
    let actions = session.on(Input::StartFailed(StartFailure::Hung(failure("slow"))));
    assert_eq!(actions, [Action::Launch { resume: true }]);
    let actions = session.on(Input::StartFailed(StartFailure::Hung(failure("slow"))));
    assert_eq!(actions, [Action::RenewSession, Action::Launch { resume: false }]);
}

#[test]
fn a_session_that_claude_already_has_is_resumed() {
    let mut session = Session::new(LIMITS, false);
    enqueue(&mut session, 1);
    let actions = session.on(Input::StartFailed(StartFailure::SessionExists));
    assert_eq!(actions, [Action::Begun(None), Action::Launch { resume: true }]);
}

#[test]
fn a_start_that_fails_fails_its_run_and_tries_again_for_the_next() {
    let mut session = Session::new(LIMITS, false);
    enqueue(&mut session, 1);
    enqueue(&mut session, 2);
    let actions = session.on(Input::StartFailed(StartFailure::Failed(failure("No cell"))));
    assert_eq!(endings(&actions), [(1, RunState::Failed, "⚠️ No cell.\nFix it.".to_owned())]);
    assert!(actions.contains(&Action::Launch { resume: false }));
}

#[test]
fn an_idle_process_is_ended_but_not_while_background_tasks_run() {
    let mut session = Session::new(LIMITS, false);
    let message = busy(&mut session);
    session.on(answered(&message, "x"));
    session.on(Input::Background(1));
    let actions = session.on(Input::Timer(Timer::Idle));
    assert_eq!(actions, [Action::Arm(Timer::Idle, LIMITS.idle)]);
    session.on(Input::Background(0));
    let actions = session.on(Input::Timer(Timer::Idle));
    assert_eq!(actions, [Action::Disarm(Timer::Idle), Action::EndProcess]);
    assert_eq!(enqueue(&mut session, 2), [], "waits for the old process to go");
    let actions = session.on(Input::Exited { said: String::new() });
    assert!(actions.contains(&Action::Launch { resume: true }), "{actions:?}");
}

#[test]
fn new_ends_the_running_turn_and_begins_afresh() {
    let mut session = Session::new(LIMITS, true);
    let message = busy(&mut session);
    assert!(session.on(Input::Renew(fresh(), Running::Stop)).contains(&Action::Interrupt));
    let actions = session.on(answered(&message, "x"));
    assert_eq!(endings(&actions)[0].1, RunState::Cancelled);
    assert!(actions.contains(&Action::EndProcess));
    assert!(!actions.iter().any(|a| matches!(a, Action::Begun(_))), "the old session is not written back");
    let actions = session.on(Input::Exited { said: String::new() });
    assert_eq!(actions.last(), Some(&Action::Adopt(fresh())));
    assert_eq!(enqueue(&mut session, 2), [Action::Launch { resume: false }]);

    let mut cold = Session::new(LIMITS, true);
    assert_eq!(cold.on(Input::Renew(fresh(), Running::Stop)), [Action::Adopt(fresh())]);
}

#[test]
fn a_failed_answer_says_what_and_how_to_mend_it() {
    let mut session = Session::new(LIMITS, false);
    let message = busy(&mut session);
    let end =
        TurnEnd { failure: Some(failure("The key is wrong")), messages: vec![message], ..TurnEnd::default() };
    let actions = session.on(Input::TurnEnded(end));
    assert_eq!(endings(&actions), [(1, RunState::Failed, "⚠️ The key is wrong.\nFix it.".to_owned())]);
}

#[test]
fn a_draining_daemon_lets_the_turn_end_and_hands_nothing_more_over() {
    let mut session = Session::new(LIMITS, false);
    let message = busy(&mut session);
    enqueue(&mut session, 2);
    assert_eq!(session.on(Input::Drain), []);
    let actions = session.on(answered(&message, "x"));
    assert_eq!(endings(&actions).len(), 1);
    assert_eq!(actions.last(), Some(&Action::EndProcess));
    let actions = session.on(Input::Exited { said: String::new() });
    assert!(actions.iter().all(|a| matches!(a, Action::Disarm(_))), "{actions:?}");

    let mut session = Session::new(LIMITS, false);
    busy(&mut session);
    session.on(Input::Drain);
    let actions = session.on(Input::Exited { said: String::new() });
    assert_eq!(endings(&actions), [], "it stays in the store for the next start");
}

#[test]
fn a_process_killed_while_it_starts_is_started_again_and_given_up_in_the_end() {
    let mut session = Session::new(LIMITS, false);
    enqueue(&mut session, 1);
    for _ in 1..ATTEMPTS {
        let actions = session.on(Input::StartFailed(StartFailure::Died(failure("Killed"))));
        assert_eq!(actions, [Action::Launch { resume: false }]);
    }
    let actions = session.on(Input::StartFailed(StartFailure::Died(failure("Killed"))));
    assert_eq!(endings(&actions), [(1, RunState::Failed, "⚠️ Killed.\nFix it.".to_owned())]);
}

#[test]
fn a_recovered_run_that_waits_is_not_announced_again() {
    let mut session = Session::new(LIMITS, true);
    session.on(Input::Enqueue(Box::new(run(1, 1)), Arrival::Recovered));
    assert_eq!(session.on(Input::Enqueue(Box::new(run(2, 0)), Arrival::Recovered)), []);
}

#[test]
fn a_run_cancelled_while_it_was_handed_over_frees_the_conversation() {
    let mut session = Session::new(LIMITS, false);
    busy(&mut session);
    enqueue(&mut session, 2);
    let actions = session.on(Input::Withdrawn(RunId(1)));
    assert_eq!(endings(&actions), []);
    message_of(&actions);
}

#[test]
fn a_stop_of_claudes_own_turn_never_kills_the_run_that_follows() {
    let mut session = Session::new(LIMITS, false);
    let first = busy(&mut session);
    session.on(answered(&first, "x"));
    session.on(Input::TurnStarted);
    assert!(session.on(Input::Stop).contains(&Action::Arm(Timer::HardStop, INTERRUPT_GRACE)));
    let own = TurnEnd { own: true, interrupted: true, ..TurnEnd::default() };
    assert!(session.on(Input::TurnEnded(own)).contains(&Action::Disarm(Timer::HardStop)));
}

#[test]
fn a_stop_reaches_the_run_behind_a_turn_of_claudes_own() {
    let mut session = Session::new(LIMITS, false);
    busy(&mut session);
    session.on(Input::Stop);
    let own = TurnEnd { own: true, interrupted: true, ..TurnEnd::default() };
    assert!(session.on(Input::TurnEnded(own)).contains(&Action::Interrupt));
}

#[test]
fn a_line_about_a_resumption_is_said_once_and_never_to_another_answer() {
    let mut session = Session::new(LIMITS, true);
    busy(&mut session);
    enqueue(&mut session, 2);
    for _ in 1..ATTEMPTS {
        session.on(Input::Exited { said: String::new() });
        session.on(Input::Ready);
    }
    assert_eq!(session.preface.len(), 1);
    session.on(Input::Exited { said: String::new() });
    let message = message_of(&session.on(Input::Ready));
    let actions = session.on(answered(&message, "two"));
    assert_eq!(endings(&actions), [(2, RunState::Finished, "two".to_owned())]);
}

#[test]
fn a_stopped_run_stays_stopped_when_the_daemon_goes_down() {
    let mut session = Session::new(LIMITS, false);
    busy(&mut session);
    session.on(Input::Stop);
    session.on(Input::Drain);
    let actions = session.on(Input::Exited { said: String::new() });
    assert_eq!(endings(&actions)[0].1, RunState::Cancelled);
}

#[test]
fn a_draining_daemon_ends_a_process_that_becomes_ready_meanwhile() {
    let mut session = Session::new(LIMITS, false);
    enqueue(&mut session, 1);
    session.on(Input::Drain);
    assert!(session.on(Input::Ready).contains(&Action::EndProcess));
}

#[test]
fn a_fresh_session_for_the_next_question_lets_the_running_one_end() {
    let mut session = Session::new(LIMITS, true);
    let message = busy(&mut session);
    assert_eq!(session.on(Input::Renew(fresh(), Running::Finish)), []);
    enqueue(&mut session, 2);
    let actions = session.on(answered(&message, "one"));
    assert_eq!(endings(&actions), [(1, RunState::Finished, "one".to_owned())]);
    assert!(
        actions.contains(&Action::EndProcess) && !actions.iter().any(|a| matches!(a, Action::Hand { .. }))
    );
    let actions = session.on(Input::Exited { said: String::new() });
    assert!(actions.ends_with(&[Action::Adopt(fresh()), Action::Launch { resume: false }]), "{actions:?}");
}
