//! A device opened for one command: everything but the network.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::stream;
use tokio::sync::oneshot;

use super::machine::{Job, Machine};
use crate::{
    api::{
        backend::{Answer, Backend, EventStream},
        error::ApiError,
        types::{EventPage, Request},
    },
    store::Store,
};

/// See the module. What is written waits in the outbox until a node runs.
pub struct Local {
    machine: Mutex<Machine>,
}

impl Local {
    /// Over an open store.
    pub fn open(store: Store) -> Result<Self, ApiError> {
        Ok(Self { machine: Mutex::new(Machine::new(store)?) })
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, request: Request) -> Result<serde_json::Value, ApiError> {
        let (answer, mut result) = oneshot::channel();
        // What the command deleted becomes unreadable when the store is closed.
        self.machine().run(vec![Job::Call(request, answer)]);
        result.try_recv().unwrap_or_else(|_| Err(ApiError::not_running("this")))
    }
}

impl Backend for Local {
    fn call(&self, request: Request) -> Answer<'_> {
        Box::pin(async move { self.run(request) })
    }

    fn events(&self, after: Option<u64>) -> EventStream {
        // Only what is kept: without a node nothing new happens.
        let Some(mut after) = after else { return Box::pin(stream::empty()) };
        let mut events = Vec::new();
        loop {
            let page = self
                .run(Request::Events { after })
                .and_then(|page| serde_json::from_value(page).map_err(ApiError::internal));
            match page {
                Ok(EventPage { events: found, next, more }) => {
                    events.extend(found.into_iter().map(Ok));
                    if !more || next == after {
                        break;
                    }
                    after = next;
                }
                Err(error) => {
                    events.push(Err(error));
                    break;
                }
            }
        }
        Box::pin(stream::iter(events))
    }
}
