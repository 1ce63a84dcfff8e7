//! Waiting for something to happen: on the stream of events, never by asking again and again.
//!
//! The law: the stream is opened before the first look, so nothing falls between the two.

use std::{future::Future, time::Duration};

use futures::StreamExt;

use super::commands::ask;
use crate::api::{
    backend::{Backend, EventStream},
    error::{ApiError, ErrorCode},
    types::{Accepted, EventKind, Idle, InviteState, Message, Request, State},
};

/// Waits until a message got at least as far as `state`; gives how far it got.
pub(super) async fn for_state(
    backend: &dyn Backend,
    message: &str,
    state: State,
) -> Result<Message, ApiError> {
    let mut events = backend.events(None);
    loop {
        let found: Message = ask(backend, Request::Message { message: message.into() }).await?;
        if found.state >= state {
            return Ok(found);
        }
        loop {
            match next(&mut events).await? {
                EventKind::State { id, state: reached, .. }
                    if id == found.id && reached >= state =>
                {
                    break;
                }
                EventKind::Reset {} => break,
                _ => {}
            }
        }
    }
}

/// Waits until nothing is missing and nothing waits to be sent.
pub(super) async fn for_idle(backend: &dyn Backend) -> Result<Idle, ApiError> {
    let mut events = backend.events(None);
    loop {
        let now: Idle = ask(backend, Request::Idle {}).await?;
        if now.idle {
            return Ok(now);
        }
        loop {
            match next(&mut events).await? {
                EventKind::Idle { idle } if idle.idle => break,
                EventKind::Reset {} => break,
                _ => {}
            }
        }
    }
}

/// Accepts an invite and waits for the other side.
pub(super) async fn for_accept(backend: &dyn Backend, link: &str) -> Result<Accepted, ApiError> {
    let mut events = backend.events(None);
    let request = || Request::Accept { link: link.into() };
    let mut invite: Accepted = ask(backend, request()).await?;
    while invite.state == InviteState::Pending {
        match next(&mut events).await? {
            EventKind::Invite { accepted } if accepted.invite == invite.invite => invite = accepted,
            // Accepting is idempotent and tells how it stands.
            EventKind::Reset {} => invite = ask(backend, request()).await?,
            _ => {}
        }
    }
    Ok(invite)
}

/// Waits at most this long; `failure` says what did not happen.
pub(super) async fn within<T>(
    timeout: Option<Duration>,
    failure: &str,
    wait: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let Some(timeout) = timeout else { return wait.await };
    match tokio::time::timeout(timeout, wait).await {
        Ok(result) => result,
        Err(_) => Err(ApiError::new(
            ErrorCode::Timeout,
            format_args!("{failure} within {} s", timeout.as_secs_f64()),
        )
        .hint("it goes on in the background while `kith up` runs")),
    }
}

pub(super) async fn next(events: &mut EventStream) -> Result<EventKind, ApiError> {
    match events.next().await {
        Some(event) => Ok(event?.kind),
        None => Err(ApiError::new(ErrorCode::Disconnected, "the node ended while waiting")
            .hint("start `kith up` again")),
    }
}
