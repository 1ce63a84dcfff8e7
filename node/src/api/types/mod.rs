//! The vocabulary of the local API: requests, results and events, as JSON.
//!
//! Ids are strings of lower-case hex digits (64, of `peer_id`s base58); times are Unix
//! milliseconds. `chat`, `contact` and `message` parameters take a name (of chats and contacts)
//! or a unique prefix of an id, which the core resolves.
//!
//! The law: nothing here is secret except an invite's link, and nothing is shown as reached that
//! was not proven.

mod device;
mod event;
mod message;
mod people;
mod request;

pub use self::{
    device::{Idle, OwnDevice, OwnDeviceState, Peer, RelayInfo, RelayState, Route, Status},
    event::{Event, EventKind, EventPage, MessageChange},
    message::{
        Chat, ChatKind, DeviceState, Info, Member, Message, MessageKind, Reaction, Sent, State,
    },
    people::{Accepted, Contact, Invite, InviteState, Verify},
    request::Request,
};
