//! Reads stored events, one a line: as envelopes in a chain, and as bodies that fold into a session or a run.

use adj_domain::{
    ChainVerifier, Event, EventId, Run, RunEvent, RunId, Session, SessionEvent, SessionId, event::EventBody,
};
use std::fmt::Debug;

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    envelopes(text);
    session(text);
    whole_run(text);
}

fn envelopes(text: &str) {
    let mut verifier: Option<ChainVerifier> = None;
    for event in parse::<Event>(text) {
        let again = serde_json::to_string(&event).expect("an event that was read can be written");
        let again: Event = serde_json::from_str(&again).expect("an event that was written can be read");
        assert_eq!(again.body.get(), event.body.get(), "a body is kept to the byte");

        let verifier = verifier.get_or_insert_with(|| ChainVerifier::new(event.log.clone()));
        let before = verifier.clone();
        assert_eq!(before.clone().check(&event), before.clone().check(&again));
        if verifier.check(&event).is_ok() {
            let mut changed = event.clone();
            changed.epoch = changed.epoch.wrapping_add(1);
            assert!(before.clone().check(&changed).is_err(), "a changed event is not noticed");
        }
        // Any body may be unreadable; none may bring us down.
        let _ = (event.session_event(), event.run_event());
    }
}

fn session(text: &str) {
    let mut session: Option<Session> = None;
    for (number, event) in parse::<SessionEvent>(text).enumerate() {
        stays_the_same(&event);
        // A readable id, so that an input can refer to what came before.
        let id = EventId::try_from(format!("sevt_{number}")).expect("digits make an id");
        match (&mut session, event) {
            (None, SessionEvent::Created { spec }) => {
                session = Some(Session::created(SessionId::derive(&["fuzz"]), *spec));
            }
            (None, _) => {}
            (Some(session), event) => {
                let before = session.clone();
                match session.apply(&id, &event) {
                    Ok(()) => assert_eq!(session.head, before.head + 1, "an event that happened has a number"),
                    Err(_) => assert_eq!(*session, before, "an event that was refused changed something"),
                }
                let _ = (session.estimated_context_tokens(), session.calls_answered());
            }
        }
    }
}

fn whole_run(text: &str) {
    let mut run: Option<Run> = None;
    for event in parse::<RunEvent>(text) {
        stays_the_same(&event);
        match (&mut run, event) {
            (None, RunEvent::Created { spec }) => run = Some(Run::created(RunId::derive(&["fuzz"]), *spec)),
            (None, _) => {}
            (Some(run), event) => {
                let before = run.clone();
                match run.apply(&event) {
                    Ok(()) => assert_eq!(run.head, before.head + 1, "an event that happened has a number"),
                    Err(_) => assert_eq!(*run, before, "an event that was refused changed something"),
                }
                let _ = run.usage();
            }
        }
    }
}

fn parse<T: for<'de> serde::Deserialize<'de>>(text: &str) -> impl Iterator<Item = T> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok())
}

/// What is written of an event reads as the same event.
fn stays_the_same<T>(event: &T)
where
    T: EventBody + Clone + PartialEq + Debug + for<'de> serde::Deserialize<'de>,
{
    let stored = event.clone().into_new(EventId::derive(&["fuzz"]));
    let again: T = serde_json::from_str(&stored.body).expect("an event that was written can be read");
    assert_eq!(again, *event);
}
