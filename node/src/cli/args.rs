//! The command line as outside programs and people write it.
//!
//! What commands do lives beside. The law: this is a contract; commands and flags may join it,
//! none may change its meaning.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::subcommands::{DeviceCommand, GroupCommand, RelayCommand};
use crate::{api::types::State, profile::KeySource};

/// A peer-to-peer messenger: this device, at the command line.
#[derive(Debug, Parser)]
#[command(
    name = "kith",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Begin:
  kith init --name Ana          make this device, once
  kith up                       run it, in a terminal or as a service
  kith invite                   print a link for a friend
  kith accept LINK --wait       use a friend's link
  kith send Ben 'hello'         write
  kith log Ben                  read
  kith demo                     see two people and a relay at work, on this machine only

CHAT, CONTACT and MESSAGE take a name or the beginning of an id. Commands talk to the running
`kith up`; most also work without it, and what they wrote is sent once it runs.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a wait timed out."
)]
pub struct Cli {
    /// Options of every command
    #[command(flatten)]
    pub global: Global,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The folder that holds this device [default: in the platform's data folder]
    #[arg(long, global = true, env = "KITH_PROFILE", hide_env_values = true, value_name = "DIR")]
    pub profile: Option<PathBuf>,

    /// One JSON object per line, errors too
    #[arg(long, global = true)]
    pub json: bool,

    /// The file with the profile's key [default: DIR/key]
    #[arg(long, global = true, value_name = "FILE", conflicts_with_all = ["passphrase_file", "keyring"])]
    pub key_file: Option<PathBuf>,

    /// A file with the passphrase that opens the profile
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "keyring")]
    pub passphrase_file: Option<PathBuf>,

    /// Keep the profile's key in the system's keyring
    #[arg(long, global = true)]
    pub keyring: bool,
}

impl Global {
    /// What opens the profile.
    pub fn key_source(&self) -> KeySource {
        match (&self.key_file, &self.passphrase_file, self.keyring) {
            (Some(path), _, _) => KeySource::File(path.clone()),
            (None, Some(path), _) => KeySource::PassphraseFile(path.clone()),
            (None, None, true) => KeySource::Keyring,
            (None, None, false) => KeySource::Default,
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make this device: a new user, its keys and its profile folder
    #[command(after_help = "\
The 24 words are your identity: with them you can make it anew if all devices are lost. They are
shown once on a terminal; elsewhere they are only written to the file of --words-to.

Examples:
  kith init --name Ana
  kith init --link 'kith:link…'
  kith --profile /srv/bot init --name Bot --words-to /root/bot.words")]
    Init(InitArgs),

    /// Show the 24 words, if they were not confirmed when the device was made
    #[command(after_help = "\
As long as nobody has confirmed the words, they stay sealed in the profile. Once they are, the
paper or file is the only copy.

Examples:
  kith words
  kith words --to ~/kith.words")]
    Words(WordsArgs),

    /// Run this device: connect, send, receive, and answer other commands
    #[command(after_help = "\
Runs until Ctrl-C or SIGTERM. With --json the first line says that it is ready:
  {\"event\":\"ready\",\"user\":…,\"device\":…,\"peer_id\":…,\"listen\":[…],\"api\":…}

Examples:
  kith up
  kith up --relay /dns4/relay.example.org/tcp/4001/p2p/12D3Koo…
  kith up --listen /ip4/127.0.0.1/tcp/0 --no-mdns")]
    Up(UpArgs),

    /// How this device stands: addresses, relays, peers, what waits and what is missing
    Status,

    /// Print a link that makes one person a contact
    #[command(after_help = "\
Give the link to one person over a way you trust; whoever uses it first becomes your contact. It
works while `kith up` runs, and with a relay also while it does not.

Examples:
  kith invite
  kith invite --expires 1h")]
    Invite(InviteArgs),

    /// Use a link somebody gave you
    #[command(after_help = "\
Examples:
  kith accept 'kith:…'
  kith accept 'kith:…' --wait --timeout 60")]
    Accept(AcceptArgs),

    /// People you know
    Contacts,

    /// Conversations, newest first
    Chats,

    /// Write a message and print its id, as soon as it can not be lost any more
    #[command(
        override_usage = "kith send [OPTIONS] <CHAT> <TEXT>\n       kith send [OPTIONS] <CHAT> -- <TEXT>",
        after_help = "\
Needs no running `kith up`: the message is queued until it runs. TEXT `-` reads standard input;
what stands after `--` is taken literally.

Examples:
  kith send Ana 'see you at eight'
  date | kith send Ana -
  kith send Ana -- --not-an-option
  kith send Ana 'urgent' --wait delivered --timeout 30"
    )]
    Send(SendArgs),

    /// Answer a message
    #[command(
        override_usage = "kith reply [OPTIONS] <MESSAGE> <TEXT>\n       kith reply [OPTIONS] <MESSAGE> -- <TEXT>",
        after_help = "Example:\n  kith reply 3fa9 'yes, gladly'"
    )]
    Reply(ReplyArgs),

    /// Give one of your messages a new text
    #[command(
        override_usage = "kith edit [OPTIONS] <MESSAGE> <TEXT>\n       kith edit [OPTIONS] <MESSAGE> -- <TEXT>",
        after_help = "Example:\n  kith edit 3fa9 'see you at nine'"
    )]
    Edit(ReplyArgs),

    /// Delete one of your messages everywhere, or any message for yourself
    #[command(after_help = "Examples:\n  kith delete 3fa9\n  kith delete 3fa9 --for-me")]
    Delete(DeleteArgs),

    /// React to a message with an emoji
    #[command(after_help = "Examples:\n  kith react 3fa9 👍\n  kith react 3fa9 👍 --remove")]
    React(ReactArgs),

    /// Read a conversation, oldest first
    #[command(after_help = "\
What is shown counts as read, and the others learn so, unless --keep-unread is given.

Examples:
  kith log Ana
  kith log Ana --limit 500
  kith log Ana --before 3fa9
  kith --json log Ana --follow")]
    Log(LogArgs),

    /// How far a message got, on each device it is for
    Info(MessageArgs),

    /// Wait until a message got somewhere, or until there is nothing left to do
    #[command(after_help = "\
Exit code 3 if the time is over first.

Examples:
  kith wait 3fa9 --state delivered --timeout 30
  kith wait --idle --timeout 60")]
    Wait(WaitArgs),

    /// Follow what happens, one event per line
    #[command(after_help = "\
Without --after only what happens from now on. A program that was away gives the last cursor it
saw; 0 gives everything that is kept.

Examples:
  kith --json events
  kith --json events --after 1042")]
    Events(EventsArgs),

    /// Groups: found one, change who is in it
    Group {
        /// What to do
        #[command(subcommand)]
        command: GroupCommand,
    },

    /// Your devices: link a new one, see, name and revoke them
    Device {
        /// What to do
        #[command(subcommand)]
        command: DeviceCommand,
    },

    /// Relays that keep messages for people who are away
    Relay {
        /// What to do with them
        #[command(subcommand)]
        command: RelayCommand,
    },

    /// Show the number to compare with a contact, so that nobody stands between you
    #[command(after_help = "\
Compare the number with the one the contact sees, by telephone or in person.

Examples:
  kith verify Ana
  kith verify Ana --done")]
    Verify(VerifyArgs),

    /// Give a contact a name of your own; an empty one takes it back
    #[command(after_help = "Example:\n  kith name Ana 'Ana from work'")]
    Name(NameArgs),

    /// Show two people and a relay at work, on this machine only
    #[command(after_help = "\
Starts a relay and two devices as processes of their own in a temporary folder, lets them meet,
write, leave and come back, checks every step, and leaves nothing behind.")]
    Demo(DemoArgs),

    /// The relay inside `demo`
    #[command(hide = true)]
    RelayServe(RelayServeArgs),

    /// Print what makes a shell complete kith's commands
    #[command(
        after_help = "Example:\n  kith completions bash > ~/.local/share/bash-completion/completions/kith"
    )]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// `init`
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The name others see
    #[arg(long, required_unless_present = "link", conflicts_with = "link")]
    pub name: Option<String>,

    /// Join the devices of a user: the link that `kith device link` printed on one of them
    #[arg(long, value_name = "URI", conflicts_with = "words_to")]
    pub link: Option<String>,

    /// What your devices call this one; otherwise the machine's own name
    #[arg(long, value_name = "NAME")]
    pub device_name: Option<String>,

    /// Return only when the whole past is here; with --link
    #[arg(long, requires = "link")]
    pub wait_history: bool,

    /// How long to wait for the other device, in seconds; with --link
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout: u64,

    /// Write the 24 words to a new file only you can read
    #[arg(long, value_name = "FILE")]
    pub words_to: Option<PathBuf>,
}

impl InitArgs {
    /// What this device is to be called: as was said, or as this machine is.
    pub(super) fn device_name(&self) -> String {
        if let Some(name) = &self.device_name {
            return name.clone();
        }
        let named = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
        let name: String = named.trim().chars().filter(|c| !c.is_control()).take(16).collect();
        if name.is_empty() { "device".into() } else { name }
    }
}

/// `words`
#[derive(Debug, Args)]
pub struct WordsArgs {
    /// Write them to a new file only you can read
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
}

/// `up`
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Listen here instead of on all interfaces (TCP and QUIC); may be repeated
    #[arg(long, value_name = "MULTIADDR")]
    pub listen: Vec<String>,

    /// Add a relay; may be repeated
    #[arg(long, value_name = "MULTIADDR")]
    pub relay: Vec<String>,

    /// Do not look for contacts on the local network
    #[arg(long)]
    pub no_mdns: bool,

    /// Serve as a relay for contacts, too
    #[arg(long)]
    pub serve_relay: bool,

    /// End when standard input does: for parents whose children must not outlive them
    #[arg(long, hide = true)]
    pub until_stdin_ends: bool,
}

/// `relay-serve`
#[derive(Debug, Clone, Args)]
pub struct RelayServeArgs {
    /// Where queues are stored
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// Listen here; may be repeated
    #[arg(long, value_name = "MULTIADDR")]
    pub listen: Vec<String>,

    /// End when standard input does
    #[arg(long)]
    pub until_stdin_ends: bool,
}

/// `demo`
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {}

/// `invite`
#[derive(Debug, Args)]
pub struct InviteArgs {
    /// How long the link works: a number and s, m, h, d or w
    #[arg(long, default_value = "7d", value_parser = lifetime)]
    pub expires: Duration,
}

/// `accept`
#[derive(Debug, Args)]
pub struct AcceptArgs {
    /// The `kith:` link
    pub link: String,

    /// Wait until the other side answered
    #[arg(long)]
    pub wait: bool,

    /// Give up waiting after this many seconds
    #[arg(long, value_name = "S", value_parser = seconds, requires = "wait")]
    pub timeout: Option<Duration>,
}

/// A text to write.
#[derive(Debug, Args)]
pub struct TextArgs {
    /// The text; `-` reads standard input, and what stands after `--` is taken literally
    #[arg(required_unless_present = "literal")]
    pub text: Option<String>,

    /// The text after `--`.
    #[arg(last = true, hide = true, conflicts_with = "text", value_name = "TEXT")]
    pub literal: Option<String>,
}

/// How far a message must get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Until {
    /// A relay stored it
    Relayed,
    /// The recipient's device has it
    Delivered,
    /// The recipient saw it
    Read,
}

impl From<Until> for State {
    fn from(until: Until) -> Self {
        match until {
            Until::Relayed => State::Relayed,
            Until::Delivered => State::Delivered,
            Until::Read => State::Read,
        }
    }
}

/// `send`
#[derive(Debug, Args)]
pub struct SendArgs {
    /// The conversation
    pub chat: String,

    /// The text
    #[command(flatten)]
    pub text: TextArgs,

    /// Wait until it got this far
    #[arg(long, value_enum, value_name = "STATE")]
    pub wait: Option<Until>,

    /// Give up waiting after this many seconds
    #[arg(long, value_name = "S", value_parser = seconds, requires = "wait")]
    pub timeout: Option<Duration>,
}

/// `reply` and `edit`
#[derive(Debug, Args)]
pub struct ReplyArgs {
    /// The message
    pub message: String,

    /// The text
    #[command(flatten)]
    pub text: TextArgs,
}

/// `delete`
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The message
    pub message: String,

    /// Only on your own devices
    #[arg(long)]
    pub for_me: bool,
}

/// `react`
#[derive(Debug, Args)]
pub struct ReactArgs {
    /// The message
    pub message: String,

    /// One emoji
    pub emoji: String,

    /// Take it back
    #[arg(long)]
    pub remove: bool,
}

/// `log`
#[derive(Debug, Args)]
pub struct LogArgs {
    /// The conversation
    pub chat: String,

    /// How many messages at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,

    /// Only what stands before this message
    #[arg(long, value_name = "ID", conflicts_with = "follow")]
    pub before: Option<String>,

    /// Go on with new messages as they come
    #[arg(long)]
    pub follow: bool,

    /// Do not count what is shown as read
    #[arg(long)]
    pub keep_unread: bool,
}

/// `info`
#[derive(Debug, Args)]
pub struct MessageArgs {
    /// The message
    pub message: String,
}

/// `wait`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(false))]
pub struct WaitArgs {
    /// The message
    #[arg(group = "what", requires = "state")]
    pub message: Option<String>,

    /// How far it must get: queued, relayed, delivered, received or read
    #[arg(long, conflicts_with = "idle")]
    pub state: Option<State>,

    /// Until nothing is missing and nothing waits to be sent
    #[arg(long, group = "what")]
    pub idle: bool,

    /// Give up after this many seconds
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub timeout: Option<Duration>,
}

/// `events`
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// The cursor of the last event already seen
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<u64>,
}

/// `verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The contact
    pub contact: String,

    /// The numbers are the same
    #[arg(long, conflicts_with = "undo")]
    pub done: bool,

    /// Take that back
    #[arg(long)]
    pub undo: bool,
}

/// `name`
#[derive(Debug, Args)]
pub struct NameArgs {
    /// The contact
    pub contact: String,

    /// Your name for them
    pub nickname: String,
}

/// A number of seconds, such as `30` or `0.5`.
fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "give a number of seconds, such as 30")?;
    Duration::try_from_secs_f64(number).map_err(|_| "give a number of seconds, such as 30".into())
}

/// A number with a unit, such as `7d`.
fn lifetime(text: &str) -> Result<Duration, String> {
    let wrong = || "give a number and s, m, h, d or w, such as 7d".to_owned();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(wrong()),
    };
    match number.checked_mul(unit) {
        Some(0) | None => Err(wrong()),
        Some(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
