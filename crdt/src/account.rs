//! The account: what all devices of one user share about contacts and devices.
//!
//! An account is a set of registers. An `account` entry in the user's note to self writes one of
//! them; the write with the highest (count, device) holds, whatever order they arrive in (Lamport,
//! "Time, Clocks, and the Ordering of Events in a Distributed System", 1978). No clock takes part:
//! a device with a wrong one neither wins nor loses by it.
//!
//! ```text
//! count u64 | tag: 0 contact, 1 device | the register's name and value (postcard)
//! ```
//!
//! The law: which registers there are and what they hold is a function of the *set* of entries.

use serde::{Deserialize, Serialize};

use crate::{
    canonical::{self, DecodeError},
    id::{DeviceId, UserId},
    limits::{ACCOUNT_COUNT_MAX, ACCOUNT_NAME_BYTES_MAX, ACCOUNT_OP_BYTES_MAX},
};

/// One write to one register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountOp {
    /// One more than the highest the writer has seen in the account.
    pub count: u64,
    /// What is written.
    pub value: AccountValue,
}

/// A register with what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccountValue {
    /// What the user knows of another user.
    Contact(AccountContact),
    /// What the user calls one of its own devices.
    Device {
        /// Which.
        device: DeviceId,
        /// Its name.
        name: String,
    },
}

/// A contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountContact {
    /// Who.
    pub user: UserId,
    /// The name the contact chose, as the writer knew it.
    pub own_name: String,
    /// The name the user gave.
    pub nickname: Option<String>,
    /// When safety numbers were compared, Unix milliseconds.
    pub verified_at_ms: Option<u64>,
}

/// Which register, without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccountKey {
    /// Of a contact.
    Contact(UserId),
    /// Of an own device.
    Device(DeviceId),
}

/// How two writes to one register are compared: the higher holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AccountStamp {
    /// The write's count.
    pub count: u64,
    /// Who wrote.
    pub device: DeviceId,
}

impl AccountOp {
    /// Canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        canonical::encode(self)
    }

    /// From canonical bytes, with every limit checked. Total: any bytes give a value or an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let op: Self = canonical::decode(bytes, ACCOUNT_OP_BYTES_MAX)?;
        op.check()?;
        Ok(op)
    }

    /// Which register it writes.
    pub fn key(&self) -> AccountKey {
        match &self.value {
            AccountValue::Contact(contact) => AccountKey::Contact(contact.user),
            AccountValue::Device { device, .. } => AccountKey::Device(*device),
        }
    }

    /// How it compares with other writes to its register.
    pub fn stamp(&self, device: DeviceId) -> AccountStamp {
        AccountStamp { count: self.count, device }
    }

    fn check(&self) -> Result<(), DecodeError> {
        let fits = |name: &String| {
            name.len() <= ACCOUNT_NAME_BYTES_MAX && !name.chars().any(char::is_control)
        };
        let all_fit = match &self.value {
            AccountValue::Contact(contact) => {
                fits(&contact.own_name) && contact.nickname.as_ref().is_none_or(fits)
            }
            AccountValue::Device { name, .. } => fits(name),
        };
        if !all_fit {
            return Err(DecodeError::Limit("a name in the account"));
        }
        // Nobody can count to the end, where no further write would hold.
        if self.count > ACCOUNT_COUNT_MAX {
            return Err(DecodeError::Limit("the count of a write to the account"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contact(name: &str, nickname: Option<&str>) -> AccountOp {
        let contact = AccountContact {
            user: UserId([7; 32]),
            own_name: name.to_owned(),
            nickname: nickname.map(str::to_owned),
            verified_at_ms: Some(5),
        };
        AccountOp { count: 3, value: AccountValue::Contact(contact) }
    }

    #[test]
    fn what_is_written_is_read() {
        let device = DeviceId([8; 32]);
        let named = AccountValue::Device { device, name: "desk".into() };
        for op in [contact("Ben", Some("Benny")), AccountOp { count: 1 << 40, value: named }] {
            assert_eq!(AccountOp::decode(&op.encode()), Ok(op));
        }
    }

    #[test]
    fn names_beyond_their_limits_are_refused() {
        let long = "x".repeat(ACCOUNT_NAME_BYTES_MAX + 1);
        for op in [contact(&long, None), contact("a\nb", None), contact("Ben", Some(&long))] {
            assert!(AccountOp::decode(&op.encode()).is_err(), "{op:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_operation_or_refused(bytes: Vec<u8>) {
            if let Ok(op) = AccountOp::decode(&bytes) {
                prop_assert_eq!(op.encode(), bytes);
            }
        }
    }
}
