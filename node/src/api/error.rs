//! How the local API says no: a stable code, one sentence, and what to do about it.
//!
//! The law: programs match on the code, people read message and hint; neither holds a secret.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::kv::KvError;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What went wrong, as a word that never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
            /// A code of a newer kith.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl ErrorCode {
            /// Every code this version gives.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name),*];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => $text,)*
                    ErrorCode::Unknown => "unknown",
                }
            }
        }
    };
}

codes! {
    /// Arguments or parameters that can never work. Exit code 2.
    Usage = "usage",
    /// A wait ended before what it waited for. Exit code 3.
    Timeout = "timeout",
    /// Needs a running node: start `kith up`.
    NotRunning = "not_running",
    /// The connection to the running node broke, or a reader was too slow.
    Disconnected = "disconnected",
    /// There is no profile in the folder: run `kith init`.
    NoProfile = "no_profile",
    /// There is a profile in the folder already.
    ProfileExists = "profile_exists",
    /// Another process holds the profile and does not answer on its socket.
    ProfileInUse = "profile_in_use",
    /// The key file is missing, or a passphrase file or keyring is needed to open the profile.
    KeyMissing = "key_missing",
    /// The key or passphrase is not the one of this profile.
    WrongKey = "wrong_key",
    /// A key file that others can read.
    KeyPermissions = "key_permissions",
    /// The store is damaged.
    StoreDamaged = "store_damaged",
    /// The store was written by a newer kith.
    StoreTooNew = "store_too_new",
    /// The disk is full; nothing stored was harmed.
    DiskFull = "disk_full",
    /// The operating system refused to read or write something.
    Io = "io",
    /// No chat of that name or id.
    UnknownChat = "unknown_chat",
    /// No contact of that name or id.
    UnknownContact = "unknown_contact",
    /// No message of that id.
    UnknownMessage = "unknown_message",
    /// No own device of that name or id.
    UnknownDevice = "unknown_device",
    /// No relay of that address or peer id.
    UnknownRelay = "unknown_relay",
    /// A name or id prefix that fits several; they are listed as candidates.
    Ambiguous = "ambiguous",
    /// The text is longer than a message may be.
    TextTooLong = "text_too_long",
    /// The text is empty.
    TextEmpty = "text_empty",
    /// The text is not valid UTF-8.
    InvalidUtf8 = "invalid_utf8",
    /// A reaction is one emoji.
    InvalidEmoji = "invalid_emoji",
    /// A name is empty, too long or has control characters.
    InvalidName = "invalid_name",
    /// Not a network address, or one without what is needed (`/p2p/…`).
    InvalidAddress = "invalid_address",
    /// This device waits to be linked to the user's others.
    NotLinked = "not_linked",
    /// Another device of the user revoked this one.
    Revoked = "revoked",
    /// Only the author can do this to a message, or the owner to a group.
    NotYours = "not_yours",
    /// We left the group or were taken out of it.
    NotAMember = "not_a_member",
    /// The message is deleted.
    MessageDeleted = "message_deleted",
    /// The invite link is malformed or cut off.
    InviteMalformed = "invite_malformed",
    /// The invite is over.
    InviteExpired = "invite_expired",
    /// Somebody used the invite already.
    InviteUsed = "invite_used",
    /// One's own invite.
    InviteOwn = "invite_own",
    /// An invite nobody could answer: neither `kith up` runs nor is there a relay.
    NoRoute = "no_route",
    /// The relay does not answer.
    RelayUnreachable = "relay_unreachable",
    /// The relay has no room.
    RelayFull = "relay_full",
    /// The relay refused, or what answers is no relay.
    RelayRefused = "relay_refused",
    /// The conversation needs a newer kith.
    Frozen = "frozen",
    /// A limit was reached that time or a smaller request lifts.
    Limit = "limit",
    /// Not available in this build or on this system.
    Unsupported = "unsupported",
    /// A fault of kith: worth a report.
    Internal = "internal",
}

impl ErrorCode {
    /// The exit code of the command line: 2 wrong usage, 3 a wait timed out, else 1.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorCode::Usage => 2,
            ErrorCode::Timeout => 3,
            _ => 1,
        }
    }
}

/// What a name or prefix could have meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The whole id, lower-case hex.
    pub id: String,
    /// The name (of chats and contacts) or the beginning of the text (of messages).
    pub name: String,
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// For programs.
    pub code: ErrorCode,
    /// One sentence, lower case, without a full stop.
    pub message: String,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
    /// Of [`ErrorCode::Ambiguous`]: what it could have been.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
}

impl ApiError {
    /// An error without a hint.
    pub fn new(code: ErrorCode, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string(), hint: None, candidates: Vec::new() }
    }

    /// The same with what to do about it.
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// `what` needs a running node.
    pub fn not_running(what: impl fmt::Display) -> Self {
        Self::new(ErrorCode::NotRunning, format_args!("{what} needs a running node"))
            .hint("start `kith up` in another terminal, then try again")
    }

    /// `given` fits several chats, contacts or messages.
    pub fn ambiguous(given: &str, candidates: Vec<Candidate>) -> Self {
        let list: Vec<_> = candidates
            .iter()
            .map(|found| format!("{} ({})", found.name, found.id.get(..12).unwrap_or(&found.id)))
            .collect();
        Self {
            code: ErrorCode::Ambiguous,
            message: format!("{given:?} could be any of {}", candidates.len()),
            hint: Some(format!("use more of the id: {}", list.join(", "))),
            candidates,
        }
    }

    /// A fault of kith.
    pub fn internal(what: impl fmt::Display) -> Self {
        Self::new(ErrorCode::Internal, format_args!("internal error: {what}"))
            .hint("this is a fault of kith: please report it with the log (KITH_LOG=debug)")
    }
}

impl From<KvError> for ApiError {
    fn from(error: KvError) -> Self {
        match &error {
            KvError::DiskFull => Self::new(ErrorCode::DiskFull, error)
                .hint("nothing stored was harmed, and nothing was sent"),
            KvError::Io(_) => Self::new(ErrorCode::Io, error),
            KvError::Damaged { .. } => Self::new(ErrorCode::StoreDamaged, error)
                .hint("keep the profile folder and restore a copy of it beside, if you have one"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_json_and_new_ones_are_tolerated() {
        for code in ErrorCode::ALL {
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(json, format!("\"{}\"", code.as_str()));
            assert_eq!(serde_json::from_str::<ErrorCode>(&json).unwrap(), *code);
        }
        assert_eq!(
            serde_json::from_str::<ErrorCode>("\"from_the_future\"").unwrap(),
            ErrorCode::Unknown
        );
    }

    #[test]
    fn an_ambiguous_name_lists_what_it_could_be() {
        let error = ApiError::ambiguous(
            "a",
            vec![
                Candidate { id: "a1".repeat(32), name: "Ana".into() },
                Candidate { id: "ab".into(), name: "Abe".into() },
            ],
        );
        assert_eq!(error.hint.as_deref(), Some("use more of the id: Ana (a1a1a1a1a1a1), Abe (ab)"));
        assert_eq!(error.code.exit_code(), 1);
    }
}
