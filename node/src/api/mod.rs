//! The local API: what programs on this machine say to a device, and what it answers.
//!
//! JSON-RPC 2.0 over a Unix socket, one JSON object per line. [`types`] is the vocabulary,
//! [`server`] and [`client`] speak it, [`backend`] is who answers. The command line, the app, bots
//! and tests use it; nothing reaches into a running node another way. What a request *does* lives
//! in the core.
//!
//! ```text
//! > {"jsonrpc":"2.0","id":1,"method":"send","params":{"chat":"Ana","text":"hi"}}
//! < {"jsonrpc":"2.0","id":1,"result":{"id":"9f…","chat":"51…","entry":"9f…","state":"queued"}}
//! > {"jsonrpc":"2.0","id":2,"method":"subscribe","params":{"after":41}}
//! < {"jsonrpc":"2.0","id":2,"result":{}}
//! < {"jsonrpc":"2.0","method":"event","params":{"cursor":42,"event":"state",…}}
//! ```
//!
//! A connection's requests are done one after the other, in their order. `subscribe` (without
//! `after`: from now on) turns events into notifications until the connection ends. Errors carry
//! an [`ApiError`](error::ApiError) as `data`; their `code` is -32000, or JSON-RPC's own for
//! requests that can not be understood.
//!
//! The law: a field once published keeps its name, type and meaning; new ones may join it.

pub mod backend;
pub mod client;
pub mod error;
pub mod limits;
mod rpc;
pub mod server;
pub mod types;

/// The version of this API, raised when something published changes its meaning.
pub const API_VERSION: u32 = 1;

/// The request in one line of a connection; `None` if the line subscribes to events. The error is
/// what the line is answered with.
pub fn request_of(line: &[u8]) -> Result<Option<types::Request>, error::ApiError> {
    match rpc::parse(line) {
        Ok(incoming) => Ok(match incoming.call {
            rpc::Call::Request(request) => Some(request),
            rpc::Call::Subscribe { .. } => None,
        }),
        Err(refusal) => Err(refusal.error),
    }
}
