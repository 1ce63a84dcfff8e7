//! Who answers requests: a running node, a profile opened for one command, or a client's
//! connection to a running node.
//!
//! The law: a backend answers every request; one that can not be done right now gives an error
//! that says what to do.

use std::pin::Pin;

use futures::Stream;
use serde_json::Value;

use super::{
    error::ApiError,
    types::{Event, Request},
};

/// A future answer.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Value, ApiError>> + Send + 'a>>;

/// Events as they happen. An error is the last item.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<Event, ApiError>> + Send>>;

/// Answers requests and tells of events.
pub trait Backend: Send + Sync {
    /// Does what is asked. The value is the result type the request names, as JSON.
    fn call(&self, request: Request) -> Answer<'_>;

    /// First the kept events after the cursor `after`, then each new one; without a cursor only
    /// new ones. Nothing that happens after this function returned is left out.
    fn events(&self, after: Option<u64>) -> EventStream;
}
