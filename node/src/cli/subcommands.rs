//! Commands within commands: `device …`, `group …` and `relay …`.

use clap::{Args, Subcommand};

/// `device …`
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Print a link that makes a new installation another device of yours, and wait for it
    #[command(after_help = "\
On the new device: kith init --link 'kith:link…'. Both show a code; say yes here if they agree. The
new device then gets all contacts, conversations and the whole past.

Examples:
  kith device link
  kith device link --yes --timeout 60")]
    Link(DeviceLinkArgs),
    /// Your devices, this one first, and those that wait to be linked
    Ls,
    /// Give one of your devices another name
    Rename {
        /// Which: its name, or the first digits of its id
        device: String,
        /// Its new name
        name: String,
    },
    /// Revoke another device of yours: it reads and writes nothing further, anywhere
    #[command(after_help = "\
For a device that is lost, sold or broken. It can not be taken back; what it has already received
stays there.

Example:
  kith device revoke 'old laptop'")]
    Revoke {
        /// Which: its name, or the first digits of its id
        device: String,
    },
}

/// `device link`
#[derive(Debug, Args)]
pub struct DeviceLinkArgs {
    /// Link whoever uses the link, without asking
    #[arg(long)]
    pub yes: bool,

    /// How long the link lives, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout: u64,
}

/// `group …`
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Found a group with some of your contacts
    #[command(after_help = "\
They are in it at once, whether they are online or not. The group uses your relays.

Example:
  kith group new 'Hiking' Ben Cleo")]
    New {
        /// Its name
        name: String,
        /// Whom to add
        #[arg(required = true, value_name = "CONTACT")]
        contacts: Vec<String>,
    },
    /// Add contacts to a group you own
    Add {
        /// The group
        group: String,
        /// Whom to add
        #[arg(required = true, value_name = "CONTACT")]
        contacts: Vec<String>,
    },
    /// Take somebody out of a group you own: nothing written from now on can be read there
    Remove {
        /// The group
        group: String,
        /// Whom
        contact: String,
    },
    /// Leave a group
    Leave {
        /// The group
        group: String,
    },
    /// Give a group you own another name
    Rename {
        /// The group
        group: String,
        /// Its new name
        name: String,
    },
    /// List groups
    Ls,
}

/// `relay …`
#[derive(Debug, Subcommand)]
pub enum RelayCommand {
    /// Add a relay
    #[command(
        after_help = "Example:\n  kith relay add /dns4/relay.example.org/tcp/4001/p2p/12D3Koo…"
    )]
    Add {
        /// Its address with /p2p/ID
        #[arg(value_name = "MULTIADDR")]
        address: String,

        /// Do not ask it first
        #[arg(long)]
        no_check: bool,
    },
    /// List relays and how they stand
    Ls,
    /// Give a relay up
    Remove {
        /// Its address, or the beginning of its peer id
        #[arg(value_name = "RELAY")]
        relay: String,
    },
}
