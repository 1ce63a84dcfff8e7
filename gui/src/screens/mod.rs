//! What is on the screen: each screen draws a model and says what the user wants.
//!
//! A screen is a function of the model, its part of the [`View`] and the [`Clock`]; it pushes
//! [`Action`]s. It asks no device and keeps nothing else: `app` applies what it says. The law: a
//! control whose core does not exist is not drawn.

pub mod banners;
pub mod bubble;
pub mod chat_list;
pub mod composer;
pub mod conversation;
pub mod details;
pub mod devices;
pub mod draw;
pub mod meet;
pub mod menus;
pub mod new_group;
pub mod onboarding;
pub mod page;
pub mod person;
pub mod relays;
pub mod safety;
pub mod scroll;
pub mod settings;

use kith_node::api::types::Request;

pub use crate::clock::Clock;
use crate::{
    client::{Command, Tag},
    model::{
        Model,
        kept::{Draft, Theme},
    },
    text::links::Target,
    widgets::EmojiPicker,
};

/// What stands beside the chat list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Route {
    /// The open conversation, if there is one.
    #[default]
    Chats,
    /// Inviting somebody and accepting an invite.
    Meet,
    /// Founding a group.
    NewGroup,
    /// A contact, by user id.
    Person(String),
    /// Preferences.
    Settings,
    /// Own devices.
    Devices,
    /// Relays.
    Relays,
}

/// What stands to the right of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Details {
    /// How far a message got.
    Message(String),
    /// Members and name of the open chat.
    Chat,
}

/// What is asked before something is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirm {
    /// Delete this message.
    Delete(String),
    /// Leave this group.
    Leave(String),
    /// Take a contact out of a group.
    Remove {
        /// Which group.
        group: String,
        /// Whom.
        user: String,
    },
    /// Open this link.
    OpenLink(Target),
}

/// What the user wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Show something else.
    Go(Route),
    /// Open a chat.
    Open(String),
    /// Back to the list, where there is one column.
    Close,
    /// Ask the device; the answer is folded as the tag says.
    Ask(Tag, Request),
    /// Something the local API does not do: make a profile, hand out words, try again.
    Do(Command),
    /// A new message in the open chat.
    Send {
        /// Its text.
        text: String,
        /// What it answers.
        reply_to: Option<String>,
    },
    /// Take back what was just sent.
    Undo,
    /// What is being written in a chat changed.
    Draft(String, Draft),
    /// Bring a message into sight.
    Jump(String),
    /// Bring the newest message into sight.
    JumpNewest,
    /// A page before the first message is needed.
    Older,
    /// A page after the last message is needed.
    Newer,
    /// Messages up to this one were seen.
    Seen(String),
    /// This message stands at the top; none: the end is in sight.
    Place(Option<String>),
    /// Show how far a message got.
    Info(String),
    /// Show something to the right of the conversation, or nothing.
    Details(Option<Details>),
    /// Ask before something is lost.
    Confirm(Confirm),
    /// Put text on the clipboard.
    Copy(String),
    /// Open a link outside.
    OpenLink(String),
    /// This emoji was used.
    Used(String),
    /// Choose a palette.
    Theme(Theme),
    /// Choose the size of text.
    TextScale(f32),
    /// The recovery words go from the screen; they stay kept.
    HideWords,
    /// Put a notice away.
    Dismiss(u64),
}

impl Action {
    /// A request whose events tell the rest.
    pub fn ask(request: Request) -> Self {
        Action::Ask(Tag::Done, request)
    }
}

/// What the screens remember between frames that is not worth keeping.
#[derive(Debug, Default)]
pub struct View {
    /// What stands beside the chat list.
    pub route: Route,
    /// What stands to the right of the conversation.
    pub details: Option<Details>,
    /// What is asked.
    pub confirm: Option<Confirm>,
    /// The chat list's filter.
    pub filter: String,
    /// What is being written.
    pub composer: composer::Composer,
    /// Where the open conversation is scrolled to.
    pub scroll: scroll::Scroll,
    /// Inviting and accepting.
    pub meet: meet::MeetView,
    /// Founding a group.
    pub new_group: new_group::NewGroupView,
    /// Names that are being changed.
    pub names: details::NamesView,
    /// The first run.
    pub onboarding: onboarding::OnboardingView,
    /// Preferences.
    pub settings: settings::SettingsView,
    /// Own devices.
    pub devices: devices::DevicesView,
    /// Relays.
    pub relays: relays::RelaysView,
    /// What is selected is of a chat that is not open any more.
    pub clear_selection: bool,
    /// All emoji, while they are shown.
    pub picker: Option<EmojiPicker>,
    /// The keyboard goes into the composer with the next frame.
    pub focus_composer: bool,
    /// The keyboard goes into the filter with the next frame.
    pub focus_filter: bool,
}

/// What every screen is given.
pub struct Scene<'a> {
    /// What the app knows.
    pub model: &'a Model,
    /// What the screens remember.
    pub view: &'a mut View,
    /// The time.
    pub clock: Clock,
    /// What the user wants, in order.
    pub actions: Vec<Action>,
    /// Whether the window has room for one column only.
    pub narrow: bool,
}

impl Scene<'_> {
    /// The user wants something.
    pub fn want(&mut self, action: Action) {
        self.actions.push(action);
    }
}
