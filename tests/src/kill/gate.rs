//! What threads wait for: a node that runs again, a number of messages written.

use std::{
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::PATIENCE_S;

/// Whether a device's node runs, and where.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    life: u64,
    socket: Option<PathBuf>,
    over: bool,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node runs.
    pub(super) fn open(&self, socket: PathBuf) {
        let mut state = self.state();
        state.life += 1;
        state.socket = Some(socket);
        self.0.1.notify_all();
    }

    /// The node is dead.
    pub(super) fn close(&self) {
        self.state().socket = None;
    }

    /// Nobody is to write any more.
    pub(super) fn end(&self) {
        self.state().over = true;
        self.0.1.notify_all();
    }

    /// Whether nobody is to write any more.
    pub(super) fn is_over(&self) -> bool {
        self.state().over
    }

    /// The node's socket, while it runs.
    pub(super) fn socket(&self) -> Option<PathBuf> {
        self.state().socket.clone()
    }

    /// Waits for a node after the given life; none if it is all over.
    pub(super) fn next(&self, after: u64) -> Option<(u64, PathBuf)> {
        let mut state = self.state();
        loop {
            if state.over {
                return None;
            }
            match &state.socket {
                Some(socket) if state.life > after => return Some((state.life, socket.clone())),
                _ => {}
            }
            state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// How many messages were written in all.
#[derive(Clone, Default)]
pub(super) struct Counter(Arc<(Mutex<u64>, Condvar)>);

impl Counter {
    fn number(&self) -> MutexGuard<'_, u64> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more.
    pub(super) fn count(&self) {
        *self.number() += 1;
        self.0.1.notify_all();
    }

    /// Waits until this many more were written.
    pub(super) fn wait_for(&self, more: u64) {
        let number = self.number();
        let end = *number + more;
        let patience = Duration::from_secs(PATIENCE_S);
        let waited = self.0.1.wait_timeout_while(number, patience, |number| *number < end);
        let (_number, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "nobody writes any more");
    }
}
