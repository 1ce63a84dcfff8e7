//! What needs no engine: checking what a request is signed with, and signing what is promised.
//!
//! Both cost more than all the rest of a deposit, so whoever drives an engine may do them on other
//! threads than the one that owns the store. A request that comes unchecked is checked by the engine.
//!
//! The law: a promise is signed only after [`Engine::release`](super::Engine::release) gave it out,
//! which is after the commit.

use ed25519_dalek::SigningKey;

use super::SessionId;
use crate::protocol::{
    ClientFrame, Deposited, RelayError, Reply, ServerFrame, SessionBinding, Statement, Stored,
};

/// A request as it is handed to the engine.
#[derive(Debug)]
pub struct Arrived {
    pub(super) frame: ClientFrame,
    /// In which session its signatures were checked, and whether they are right there.
    checked: Option<(SessionBinding, bool)>,
}

impl Arrived {
    /// Checks what a request of a session is signed with. A wrong one is the engine's to refuse.
    pub fn checked(session: &SessionBinding, frame: ClientFrame) -> Self {
        let right = session.check(&frame.request);
        Self { frame, checked: Some((*session, right)) }
    }

    /// Whether its signatures are right in a session; checked now unless that was done.
    pub(super) fn is_right(&self, session: &SessionBinding) -> bool {
        match &self.checked {
            Some((checked, right)) if checked == session => *right,
            _ => session.check(&self.frame.request),
        }
    }
}

impl From<ClientFrame> for Arrived {
    fn from(frame: ClientFrame) -> Self {
        Self { frame, checked: None }
    }
}

/// What a request came to.
#[derive(Debug)]
pub(super) enum Answer {
    Reply(Reply),
    /// Of deposited items, what is promised of each.
    Promises(Vec<Result<Statement, RelayError>>),
}

/// What a commit released for a session.
#[derive(Debug)]
pub struct Released {
    /// The session.
    pub session: SessionId,
    /// The frame.
    pub frame: Unsigned,
    /// What to report with [`Engine::flushed`](super::Engine::flushed) once it is written; 0 for
    /// replies.
    pub cost: u64,
}

/// A frame whose promises are not signed yet.
#[derive(Debug)]
pub struct Unsigned(Kind);

#[derive(Debug)]
enum Kind {
    Frame(ServerFrame),
    Promises { request_id: u64, outcomes: Vec<Result<Statement, RelayError>> },
}

impl Unsigned {
    pub(super) fn reply(request_id: u64, result: Result<Answer, RelayError>) -> Self {
        match result {
            Ok(Answer::Promises(outcomes)) => Self(Kind::Promises { request_id, outcomes }),
            Ok(Answer::Reply(reply)) => ServerFrame::Reply { request_id, result: Ok(reply) }.into(),
            Err(refusal) => ServerFrame::Reply { request_id, result: Err(refusal) }.into(),
        }
    }

    /// Whether it answers a request.
    pub fn is_reply(&self) -> bool {
        matches!(self.0, Kind::Promises { .. } | Kind::Frame(ServerFrame::Reply { .. }))
    }

    /// Why a request is refused, if this says so.
    pub fn refusal(&self) -> Option<&RelayError> {
        match &self.0 {
            Kind::Frame(ServerFrame::Reply { result, .. }) => result.as_ref().err(),
            _ => None,
        }
    }

    /// Signs what is promised, with the relay's own key.
    pub fn sign(self, key: &SigningKey) -> ServerFrame {
        match self.0 {
            Kind::Frame(frame) => frame,
            Kind::Promises { request_id, outcomes } => {
                let sign = |promise: Result<_, _>| promise.map(|said| Stored::sign(said, key));
                let outcomes = outcomes.into_iter().map(sign).collect();
                let result = Ok(Reply::Deposited(Deposited { outcomes }));
                ServerFrame::Reply { request_id, result }
            }
        }
    }
}

impl From<ServerFrame> for Unsigned {
    fn from(frame: ServerFrame) -> Self {
        Self(Kind::Frame(frame))
    }
}
