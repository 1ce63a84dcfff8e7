//! Gossip within groups: one envelope for all who listen, instead of one for each device.
//!
//! Who does not listen, or missed something, is sent it directly: gossip proves nothing and keeps
//! nothing back. The topic of a group derives from its routing secret, so it changes with it.

use std::collections::BTreeSet;

use super::{
    CoreError, Ctx,
    inbox::{self, tolerate},
    io::{PeerKey, Topic},
};

/// Who listens to what, as far as the network says.
#[derive(Default)]
pub(crate) struct Listeners(BTreeSet<(Topic, PeerKey)>);

impl Listeners {
    /// A peer began or ceased to listen.
    pub(crate) fn note(&mut self, topic: Topic, peer: PeerKey, listens: bool) {
        if listens {
            self.0.insert((topic, peer));
        } else {
            self.0.remove(&(topic, peer));
        }
    }
}

/// An envelope was gossiped. Who passed it on says nothing: what is inside is judged by itself.
pub(crate) fn heard(ctx: &mut Ctx<'_>, bytes: &[u8]) -> Result<(), CoreError> {
    let result = ctx.attempt(|ctx| inbox::envelope(ctx, None, bytes));
    tolerate(result)
}
