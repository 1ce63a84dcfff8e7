//! Tests of the device list.

use proptest::prelude::*;

use super::*;

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn device(n: u8) -> DeviceId {
    DeviceId(key(n).verifying_key().to_bytes())
}

const ROOT: u8 = 100;

fn user() -> UserId {
    UserId(key(ROOT).verifying_key().to_bytes())
}

fn sign(signer: u8, about: u8, parents: &[RecordId], statement: Statement) -> VerifiedRecord {
    let mut parents = parents.to_vec();
    parents.sort();
    parents.dedup();
    let record = Record {
        user: user(),
        device: device(about),
        issued_ms: 1,
        signer: if signer == ROOT { Signer::Root } else { Signer::Device(device(signer)) },
        parents,
        statement,
    };
    record.sign(&key(signer)).verify().unwrap()
}

fn certify(signer: u8, about: u8, parents: &[RecordId]) -> VerifiedRecord {
    sign(signer, about, parents, Statement::Certify { consent: consent(&key(about), &user()) })
}

fn revoke(signer: u8, about: u8, parents: &[RecordId], cuts: &[RecordId]) -> VerifiedRecord {
    let mut cuts = cuts.to_vec();
    cuts.sort();
    sign(signer, about, parents, Statement::Revoke { cuts, compromised: false })
}

fn list(records: &[&VerifiedRecord]) -> DeviceList {
    let mut list = DeviceList::new(user());
    list.insert(records.iter().map(|record| (*record).clone())).unwrap();
    list
}

fn live(list: &DeviceList) -> Vec<u8> {
    (1..20).filter(|n| list.live().contains(&device(*n))).collect()
}

#[test]
fn a_chain_leads_from_the_root_to_every_certified_device() {
    let first = certify(ROOT, 1, &[]);
    let second = certify(1, 2, &[first.id()]);
    let third = certify(2, 3, &[second.id()]);
    let list = list(&[&third, &first, &second]);
    assert_eq!(live(&list), [1, 2, 3]);
    assert_eq!(list.heads(), [third.id()]);
    let chain = list.chain(&device(3)).unwrap();
    assert_eq!(chain.len(), 3);
    assert!(verify_chain(&user(), &device(3), &chain).is_ok());
    assert_eq!(verify_chain(&user(), &device(2), &chain).err(), Some(RecordError::Chain));
    assert_eq!(verify_chain(&user(), &device(3), &chain[1..]).err(), Some(RecordError::Chain));
    let other = UserId([9; 32]);
    assert_eq!(verify_chain(&other, &device(3), &chain).err(), Some(RecordError::OtherUser));
    assert!(list.chain(&device(4)).is_none());
}

#[test]
fn chains_end_somewhere() {
    let mut records = vec![certify(ROOT, 1, &[])];
    for n in 2..=CHAIN_LINKS_MAX as u8 + 2 {
        let last = records[records.len() - 1].id();
        records.push(certify(n - 1, n, &[last]));
    }
    let list = list(&records.iter().collect::<Vec<_>>());
    assert_eq!(list.live().len(), CHAIN_LINKS_MAX);
}

#[test]
fn a_record_waits_for_its_parents() {
    let first = certify(ROOT, 1, &[]);
    let second = certify(1, 2, &[first.id()]);
    let mut list = list(&[&second]);
    assert!(live(&list).is_empty());
    assert_eq!(list.missing(), [first.id()].into());
    list.insert([first]).unwrap();
    assert_eq!(live(&list), [1, 2]);
}

#[test]
fn nobody_claims_another_device_or_signs_for_another() {
    let stolen = sign(ROOT, 1, &[], Statement::Revoke { cuts: vec![], compromised: false });
    let record = Record {
        statement: Statement::Certify { consent: consent(&key(2), &user()) },
        ..stolen.record().clone()
    };
    assert_eq!(record.clone().sign(&key(ROOT)).verify().err(), Some(RecordError::Consent));
    assert_eq!(record.sign(&key(5)).verify().err(), Some(RecordError::Signature));
    let foreign = SignedRecord::by_root(&key(9), &key(1), 1).verify().unwrap();
    assert_eq!(DeviceList::new(user()).insert([foreign]).err(), Some(RecordError::OtherUser));
    // A device that was never certified certifies in vain.
    let first = certify(ROOT, 1, &[]);
    let vain = certify(7, 8, &[first.id()]);
    assert_eq!(live(&list(&[&first, &vain])), [1]);
}

#[test]
fn a_revocation_leaves_what_lies_before_its_cut() {
    let first = certify(ROOT, 1, &[]);
    let second = certify(1, 2, &[first.id()]);
    let third = certify(2, 3, &[second.id()]);
    let late = certify(2, 4, &[third.id()]);
    let revocation = revoke(1, 2, &[third.id()], &[third.id()]);
    let list = list(&[&first, &second, &third, &late, &revocation]);
    assert_eq!(live(&list), [1, 3]);
    assert!(list.is_certified(&device(2)) && list.is_revoked(&device(2)));
    assert!(!list.is_certified(&device(4)));
    // Revoked is for good.
    let again = certify(1, 2, &[revocation.id()]);
    let mut list = list;
    list.insert([again]).unwrap();
    assert_eq!(live(&list), [1, 3]);
}

#[test]
fn a_revocation_knows_its_signer_and_vouches_for_its_past_only() {
    let first = certify(ROOT, 1, &[]);
    let second = certify(1, 2, &[first.id()]);
    let third = certify(1, 3, &[first.id()]);
    // Signed without naming what made its signer a device.
    let groundless = revoke(2, 3, &[third.id()], &[third.id()]);
    assert_eq!(live(&list(&[&first, &second, &third, &groundless])), [1, 2, 3]);
    // It can not leave standing what was signed after it.
    let late = certify(2, 4, &[second.id()]);
    let revocation = revoke(1, 2, &[second.id()], &[late.id()]);
    assert_eq!(live(&list(&[&first, &second, &late, &revocation])), [1]);
}

#[test]
fn a_compromised_device_keeps_only_what_every_revocation_leaves() {
    let first = certify(ROOT, 1, &[]);
    let second = certify(1, 2, &[first.id()]);
    let third = certify(2, 3, &[second.id()]);
    let lost = revoke(1, 2, &[third.id()], &[third.id()]);
    assert_eq!(live(&list(&[&first, &second, &third, &lost])), [1, 3]);
    let statement = Statement::Revoke { cuts: vec![second.id()], compromised: true };
    let stolen = sign(ROOT, 2, &[third.id()], statement);
    assert_eq!(live(&list(&[&first, &second, &third, &lost, &stolen])), [1]);
}

#[test]
fn the_older_device_beats_the_newer_and_the_root_beats_both() {
    let first = certify(ROOT, 1, &[]);
    let second = certify(1, 2, &[first.id()]);
    let by_newer = revoke(2, 1, &[second.id()], &[second.id()]);
    let by_older = revoke(1, 2, &[second.id()], &[second.id()]);
    assert_eq!(live(&list(&[&first, &second, &by_newer])), [2]);
    assert_eq!(live(&list(&[&first, &second, &by_newer, &by_older])), [1]);
    let by_root = revoke(ROOT, 1, &[second.id()], &[second.id()]);
    assert_eq!(live(&list(&[&first, &second, &by_older, &by_root])), [2]);
}

#[test]
fn record_bytes_are_stable() {
    let record = certify(ROOT, 1, &[]);
    let bytes = record.signed().encode();
    assert_eq!(SignedRecord::decode(&bytes).unwrap(), *record.signed());
    assert!(bytes.len() <= RECORD_BYTES_MAX);
    // Golden: other versions must compute the same id.
    assert_eq!(
        data_encoding::HEXLOWER.encode(&record.id().0),
        "776232fcec73f2186b87d11f8aa7fb9437f25679313e00d960fbc238502e7e3a"
    );
}

fn random_records() -> impl Strategy<Value = Vec<VerifiedRecord>> {
    let draft = (0u8..6, 1u8..6, any::<bool>(), any::<bool>(), any::<u16>(), any::<u16>());
    proptest::collection::vec(draft, 1..14).prop_map(|drafts| {
        let mut records = vec![certify(ROOT, 1, &[])];
        for (signer, about, revokes, compromised, a, b) in drafts {
            let signer = if signer == 0 { ROOT } else { signer };
            let recent = |n: u16| {
                let back = usize::from(n) % records.len().min(4) + 1;
                records[records.len() - back].id()
            };
            let record = if revokes {
                let cuts = vec![recent(b)];
                sign(signer, about, &[recent(a)], Statement::Revoke { cuts, compromised })
            } else {
                certify(signer, about, &[recent(a), recent(b)])
            };
            records.push(record);
        }
        records
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..Default::default() })]

    /// Any order and any duplication give the same list; every certified device has its chain.
    #[test]
    fn a_list_is_a_function_of_the_set(
        records in random_records(),
        picks in proptest::collection::vec(any::<prop::sample::Index>(), 20),
    ) {
        let straight = list(&records.iter().collect::<Vec<_>>());
        let mut shuffled = DeviceList::new(user());
        for record in picks.iter().map(|pick| pick.get(&records)).chain(records.iter().rev()) {
            shuffled.insert([record.clone()]).unwrap();
        }
        prop_assert_eq!(&straight, &shuffled);
        for n in 1..6 {
            let device = device(n);
            if straight.is_certified(&device) {
                let chain = straight.chain(&device).unwrap();
                prop_assert!(verify_chain(&user(), &device, &chain).is_ok());
            }
        }
    }

    /// What the root says last about a device holds, whatever devices said.
    #[test]
    fn the_root_always_has_its_way(records in random_records()) {
        let mut list = list(&records.iter().collect::<Vec<_>>());
        let heads = list.heads();
        list.insert([revoke(ROOT, 1, &heads, &heads[..1]), certify(ROOT, 9, &heads)]).unwrap();
        prop_assert!(!list.live().contains(&device(1)));
        prop_assert!(list.live().contains(&device(9)));
    }

    #[test]
    fn no_bytes_panic(
        random in proptest::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let _ = SignedRecord::decode(&random).map(|record| record.verify());
        let mut bytes = certify(ROOT, 1, &[]).signed().encode();
        let at = at.index(bytes.len());
        let same = bytes[at] == byte;
        bytes[at] = byte;
        let verified = SignedRecord::decode(&bytes).is_ok_and(|record| record.verify().is_ok());
        prop_assert_eq!(verified, same);
    }
}
