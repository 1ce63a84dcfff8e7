//! The core of a device: a pure state machine.
//!
//! [`Core::handle`] takes the time, a random source, the storage and one [`Input`]; it gives back
//! what changes and what to do once that is durable. It reads no clock, draws no entropy of its
//! own, touches no file and no socket and spawns nothing, so the same code runs under the real
//! driver and under the simulator.
//!
//! ```text
//! commands ─▶ chat, parcels ─▶ history, channels ─▶ outbox ─▶ effects (peers, relays)
//! frames, pushes ─▶ inbox ─▶ history, receipts, sync ─▶ events
//! ```
//!
//! The law: what only lies in memory ([`Live`]) can be lost at any moment without losing a message.

pub mod account;
pub mod address;
pub mod channels;
pub mod chat;
pub mod commands;
pub mod envelope;
pub mod events;
pub mod frame;
pub mod gossip;
pub mod groups;
pub mod history;
pub mod inbox;
pub mod introductions;
pub mod io;
pub mod letter;
pub mod live;
pub mod lookup;
pub mod me;
pub mod outbox;
pub mod parcels;
pub mod people;
pub mod receipts;
pub mod record;
pub mod relays;
pub mod rows;
pub mod siblings;
pub mod sync;
pub mod views;

use rand_core::CryptoRng;
use serde::Serialize;
use serde_json::Value;

use self::{
    io::{Effect, Input},
    live::{Live, Timer},
    me::Me,
};
use crate::{
    api::{
        error::{ApiError, ErrorCode},
        types::Request,
    },
    kv::{Changes, Kv, KvError, KvRead, Overlay},
    mls::Mls,
};

/// One device.
pub struct Core {
    me: Me,
    live: Live,
}

/// What came of one input.
pub struct Step {
    /// To be made durable first.
    pub changes: Changes,
    /// To be carried out then, in order.
    pub effects: Vec<Effect>,
}

/// Why an input was not carried through. Whatever it had changed is dropped.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// The storage failed.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A local program asked for what can not be done.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Something from outside was refused.
    #[error("refused {0}")]
    Refused(&'static str),
}

/// All that one input may use.
pub struct Ctx<'a> {
    /// Unix milliseconds.
    pub now_ms: u64,
    /// The only source of random numbers.
    pub rng: &'a mut dyn CryptoRng,
    /// The storage.
    pub kv: &'a mut dyn Kv,
    /// Who we are.
    pub me: &'a Me,
    /// What is only in memory.
    pub live: &'a mut Live,
    /// What is to be done.
    pub effects: &'a mut Vec<Effect>,
}

impl Ctx<'_> {
    /// The keys of groups.
    pub(crate) fn mls(&mut self) -> Mls<'_> {
        Mls::with(self.kv, self.rng, &mut self.live.groups)
    }

    /// Runs a part whose failure must not undo the rest: on an error its changes and effects are
    /// dropped, and what is in memory is as if it had not run.
    pub fn attempt<T>(
        &mut self,
        part: impl FnOnce(&mut Ctx<'_>) -> Result<T, CoreError>,
    ) -> Result<T, CoreError> {
        let mut effects = Vec::new();
        let mut overlay = Overlay::over(&*self.kv);
        let mark = self.live.mark();
        let result = part(&mut Ctx {
            now_ms: self.now_ms,
            rng: self.rng,
            kv: &mut overlay,
            me: self.me,
            live: self.live,
            effects: &mut effects,
        });
        let result = match result {
            Ok(result) => result,
            Err(error) => {
                self.live.roll_back(mark);
                return Err(error);
            }
        };
        for ((table, key), value) in overlay.into_changes() {
            match value {
                Some(value) => self.kv.put(table, &key, &value)?,
                None => self.kv.delete(table, &key)?,
            }
        }
        self.effects.append(&mut effects);
        Ok(result)
    }
}

/// Answers a command.
pub(crate) fn reply<T: Serialize>(ctx: &mut Ctx<'_>, id: u64, answer: &T) {
    let result = serde_json::to_value(answer).map_err(ApiError::internal);
    ctx.effects.push(Effect::Reply { id, result });
}

impl Core {
    /// The device of a profile; `None` if the profile was never set up.
    ///
    /// Reads a handful of rows, however long the history is.
    pub fn open(kv: &dyn KvRead) -> Result<Option<Self>, KvError> {
        let Some(me) = Me::load(kv)? else { return Ok(None) };
        Ok(Some(Self { me, live: Live::default() }))
    }

    /// Who this device is.
    pub fn me(&self) -> &Me {
        &self.me
    }

    /// Carries out one input. An error means that the storage failed: nothing was changed.
    pub fn handle(
        &mut self,
        now_ms: u64,
        rng: &mut dyn CryptoRng,
        kv: &dyn KvRead,
        input: Input,
    ) -> Result<Step, KvError> {
        let command = match &input {
            Input::Command { id, .. } => Some(*id),
            _ => None,
        };
        let mut effects = Vec::new();
        let mut overlay = Overlay::new(kv);
        self.live.tell_time(now_ms);
        let mut ctx = Ctx {
            now_ms,
            rng,
            kv: &mut overlay,
            me: &self.me,
            live: &mut self.live,
            effects: &mut effects,
        };
        let result = dispatch(&mut ctx, input);
        let changes = match result {
            Ok(()) => {
                if std::mem::take(&mut self.live.me_changed)
                    && let Some(me) = Me::load(&overlay)?
                {
                    self.me = me;
                }
                self.live.settle();
                overlay.into_changes()
            }
            Err(error) => {
                effects.clear();
                self.live.me_changed = false;
                self.live.roll_back(0);
                failed(command, error, &mut effects)?;
                Changes::new()
            }
        };
        if let Some(at_ms) = self.live.next_wake() {
            effects.push(Effect::WakeAt(at_ms));
        }
        Ok(Step { changes, effects })
    }

    /// Answers a question, changing nothing.
    pub fn query(
        &self,
        now_ms: u64,
        kv: &dyn KvRead,
        request: &Request,
    ) -> Result<Value, ApiError> {
        views::answer(&views::View { now_ms, kv, me: &self.me, live: &self.live }, request)
    }
}

/// Whether a request changes nothing and goes to [`Core::query`]. [`Request::Idle`] does not, though it
/// could be answered there: who is told that something is left is told when nothing is.
pub fn is_query(request: &Request) -> bool {
    matches!(
        request,
        Request::Status {}
            | Request::Contacts {}
            | Request::Chats {}
            | Request::Log { .. }
            | Request::LogFrom { .. }
            | Request::Info { .. }
            | Request::Message { .. }
            | Request::Events { .. }
            | Request::RelayLs {}
            | Request::Verify { mark: None, .. }
    )
}

fn dispatch(ctx: &mut Ctx<'_>, input: Input) -> Result<(), CoreError> {
    match input {
        Input::Listening { addresses } => people::listening(ctx, addresses),
        Input::Command { id, request } => commands::run(ctx, id, request),
        Input::PeerUp { peer } => people::peer_up(ctx, &peer),
        Input::PeerDown { peer } => people::peer_down(ctx, &peer),
        Input::PeerFrame { peer, bytes } => inbox::frame(ctx, &peer, &bytes),
        Input::Gossip { bytes, .. } => gossip::heard(ctx, &bytes),
        Input::Subscribed { peer, topic, listens } => {
            gossip::subscribed(ctx, topic, &peer, listens);
            Ok(())
        }
        Input::DialFailed { peer } => people::dial_failed(ctx, &peer),
        Input::Discovered { peer, addresses } => people::discovered(ctx, &peer, addresses),
        Input::RelayUp { relay, hello } => relays::up(ctx, &relay, hello),
        Input::RelayDown { relay, why } => relays::down(ctx, &relay, why),
        Input::RelayReply { relay, request, reply } => relays::reply(ctx, &relay, request, reply),
        Input::RelayPush { relay, queue, push } => relays::push(ctx, &relay, &queue, push),
        Input::Wake => wake(ctx),
    }
}

/// Does what is due, each part on its own: one failing conversation does not hold up the others,
/// and what failed is tried again.
fn wake(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    for timer in ctx.live.due(ctx.now_ms) {
        let result = ctx.attempt(|ctx| match timer {
            Timer::Receipt(conversation) => receipts::send(ctx, conversation),
            Timer::Pump(conversation) => outbox::pump(ctx, conversation),
            Timer::Dial(peer) => people::dial(ctx, &peer),
            Timer::Sync(conversation) => sync::resume(ctx, conversation),
            Timer::Topics => gossip::tell(ctx),
            Timer::Parcels => parcels::send_all(ctx),
            Timer::Upkeep => channels::upkeep_due(ctx),
            Timer::Relay(relay) => relays::look_after(ctx, relay),
            Timer::Readers(relay) => relays::read_again(ctx, relay),
            Timer::Deletes(relay) => outbox::delete(ctx, relay),
            Timer::Renew => outbox::renew(ctx),
            Timer::Tidy => relays::tidy(ctx),
            Timer::Questions => sync::look_after_questions(ctx),
            Timer::Answers => sync::serve(ctx),
            Timer::Idle => views::announce_idle(ctx),
        });
        ctx.live.rung(timer, result.is_ok());
        inbox::tolerate(result)?;
    }
    Ok(())
}

/// A storage failure is the driver's matter; a command's failure is answered; all else is logged.
fn failed(
    command: Option<u64>,
    error: CoreError,
    effects: &mut Vec<Effect>,
) -> Result<(), KvError> {
    let error = match (error, command) {
        (CoreError::Kv(error @ (KvError::Io(_) | KvError::DiskFull)), _) => return Err(error),
        (CoreError::Kv(error), Some(_)) => ApiError::from(error),
        (CoreError::Api(error), Some(_)) => error,
        (CoreError::Refused(what), Some(_)) => ApiError::new(ErrorCode::Limit, what),
        (error, None) => {
            tracing::warn!(%error, "an input was dropped");
            return Ok(());
        }
    };
    let Some(id) = command else { return Ok(()) };
    effects.push(Effect::Reply { id, result: Err(error) });
    Ok(())
}
