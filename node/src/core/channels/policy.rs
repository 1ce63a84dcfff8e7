//! Who commits, where every member could.
//!
//! The law: a pure function of governance and of the leaves in the tree. Devices that see the same
//! name the same one; where they do not, two commits are made and the fork rule settles it.

use std::collections::{BTreeMap, BTreeSet};

use kith_crdt::id::{DeviceId, UserId};

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
}
