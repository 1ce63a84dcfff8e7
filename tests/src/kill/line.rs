//! A line to a device's API: to its running node, or to its profile while no node runs.

use std::path::Path;

use kith_node::{
    api::{
        backend::Backend,
        client::Client,
        error::ApiError,
        types::{Message, Request},
    },
    driver::Local,
    profile::{KeySource, Profile},
};
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

/// Messages asked for at once.
const PAGE: u32 = 500;

/// See the module.
pub(super) struct Line {
    runtime: Runtime,
    backend: Box<dyn Backend>,
}

impl Line {
    /// To a running node.
    pub(super) fn to_node(socket: &Path) -> Result<Self, ApiError> {
        let runtime = runtime();
        let client = runtime.block_on(Client::connect(socket))?;
        Ok(Self { runtime, backend: Box::new(client) })
    }

    /// To a profile whose node is dead: opens its store.
    pub(super) fn to_profile(folder: &Path) -> Result<Self, ApiError> {
        let store = Profile::at(folder)?.open(&KeySource::Default)?;
        Ok(Self { runtime: runtime(), backend: Box::new(Local::open(store)?) })
    }

    /// Asks.
    pub(super) fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, ApiError> {
        let answer = self.runtime.block_on(self.backend.call(request))?;
        serde_json::from_value(answer).map_err(ApiError::internal)
    }

    /// All messages of a chat, oldest first.
    pub(super) fn log(&self, chat: &str) -> Result<Vec<Message>, ApiError> {
        let mut all: Vec<Message> = Vec::new();
        loop {
            let before = all.first().map(|message| message.id.clone());
            let request = Request::Log { chat: chat.to_owned(), limit: PAGE, before };
            let page: Vec<Message> = self.ask(request)?;
            let more = page.len() == PAGE as usize;
            all.splice(0..0, page);
            if !more {
                return Ok(all);
            }
        }
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime starts")
}
