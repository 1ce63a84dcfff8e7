//! Who commits, where every member could.
//!
//! The law: a pure function of governance and of the leaves in the tree. Devices that see the same
//! name the same one; where they do not, two commits are made and the fork rule settles it.

use std::collections::{BTreeMap, BTreeSet};

use kith_crdt::id::{DeviceId, UserId};

use crate::limits;

/// The device that commits: of the first user in governance's order that has any, the one with the
/// lowest id that still belongs and has a leaf. Whoever has no leaf could not commit at all.
pub(super) fn initiator(
    users: &[UserId],
    live: &BTreeMap<DeviceId, UserId>,
    leaves: &BTreeSet<DeviceId>,
) -> Option<DeviceId> {
    users.iter().find_map(|user| {
        let own = live.iter().filter(|(_, owner)| *owner == user);
        own.map(|(device, _)| *device).find(|device| leaves.contains(device))
    })
}

/// How long a device waits for those who should commit before it: longer for each that is connected,
/// and so may be about to, than for one that may be away.
pub(super) fn patience_ms(
    me: &DeviceId,
    users: &[UserId],
    live: &BTreeMap<DeviceId, UserId>,
    leaves: &BTreeSet<DeviceId>,
    connected: &BTreeSet<DeviceId>,
) -> u64 {
    let of = |user: &UserId| {
        let user = *user;
        live.iter().filter(move |(_, owner)| **owner == user).map(|(device, _)| *device)
    };
    let in_order = users.iter().flat_map(of).filter(|device| leaves.contains(device));
    let before = in_order.take_while(|device| device != me);
    let wait = |device: DeviceId| match connected.contains(&device) {
        true => limits::COMMIT_PATIENCE_CONNECTED_MS,
        false => limits::COMMIT_PATIENCE_AWAY_MS,
    };
    before.map(wait).sum::<u64>().min(limits::COMMIT_PATIENCE_MS_MAX)
}

/// The device that brings another one of its user into a conversation: the one that certified it if
/// that is there, else the lowest.
pub(crate) fn bringer(here: &BTreeSet<DeviceId>, certifier: Option<&DeviceId>) -> Option<DeviceId> {
    let certifier = certifier.filter(|device| here.contains(device));
    certifier.or_else(|| here.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: u8) -> DeviceId {
        DeviceId([number; 32])
    }

    fn user(number: u8) -> UserId {
        UserId([number; 32])
    }

    fn live(devices: &[(u8, u8)]) -> BTreeMap<DeviceId, UserId> {
        devices.iter().map(|(of, owner)| (device(*of), user(*owner))).collect()
    }

    fn leaves(devices: &[u8]) -> BTreeSet<DeviceId> {
        devices.iter().map(|number| device(*number)).collect()
    }

    #[test]
    fn the_lowest_device_of_the_first_user_commits() {
        let live = live(&[(1, 8), (5, 9), (4, 9)]);
        let chosen = initiator(&[user(9), user(8)], &live, &leaves(&[1, 4, 5]));
        assert_eq!(chosen, Some(device(4)), "not device 1, whose user comes later");
    }

    #[test]
    fn it_passes_on_when_a_user_has_no_device_left() {
        let users = [user(9), user(7), user(8)];
        let all = leaves(&[1, 2, 4]);
        assert_eq!(initiator(&users, &live(&[(1, 8), (2, 7)]), &all), Some(device(2)));
        assert_eq!(initiator(&users, &live(&[(1, 8)]), &all), Some(device(1)));
        assert_eq!(initiator(&users, &live(&[]), &all), None);
    }

    #[test]
    fn who_has_no_leaf_commits_nothing() {
        let live = live(&[(3, 9), (4, 9), (1, 8)]);
        let users = [user(9), user(8)];
        assert_eq!(initiator(&users, &live, &leaves(&[4, 1])), Some(device(4)));
        assert_eq!(initiator(&users, &live, &leaves(&[1])), Some(device(1)));
        assert_eq!(initiator(&users, &live, &leaves(&[])), None);
    }

    #[test]
    fn one_device_brings_another() {
        let here = leaves(&[2, 5]);
        assert_eq!(bringer(&here, Some(&device(5))), Some(device(5)), "who certified it");
        assert_eq!(bringer(&here, Some(&device(9))), Some(device(2)), "who is there");
        assert_eq!(bringer(&here, None), Some(device(2)));
        assert_eq!(bringer(&leaves(&[]), None), None);
    }

    #[test]
    fn who_stands_in_waits_for_those_before_it() {
        let live = live(&[(3, 9), (4, 9), (1, 8), (2, 7)]);
        let users = [user(9), user(8), user(7)];
        let all = leaves(&[1, 2, 3, 4]);
        let patience = |me: u8, connected: &[u8]| {
            patience_ms(&device(me), &users, &live, &all, &leaves(connected))
        };
        assert_eq!(patience(3, &[]), 0, "the one who should");
        assert_eq!(patience(4, &[]), limits::COMMIT_PATIENCE_AWAY_MS);
        assert_eq!(patience(4, &[3]), limits::COMMIT_PATIENCE_CONNECTED_MS);
        assert!(patience(1, &[]) < patience(2, &[]), "each its own time");
        assert!(patience(2, &[1, 3, 4]) > patience(2, &[1]));
    }
}
