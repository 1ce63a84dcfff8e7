//! Which records of a device list count.
//!
//! 1. A record counts only once all its ancestors are here. Its *generation* is one more than the
//!    highest of its parents; records are taken by (generation, id), so a device always comes after
//!    the one that certified it: the older first. The root comes before all.
//! 2. Each signer's revocations are settled in that order. A revocation can be undone only by one of
//!    an older signer, or of the root: two devices that revoke each other leave the older one, and
//!    whatever the newer device did after the cut is void.
//! 3. With all revocations settled, certificates are read again: those beyond a cut of their signer
//!    are void, and with them what they brought.
//!
//! Of several concurrent revocations of one device the furthest cut holds; every one that says
//! "compromised" must hold besides (the nearest). No clock takes part.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    bits::Bits,
    devices::{RecordId, Signer, Statement, VerifiedRecord},
    id::DeviceId,
    limits::CHAIN_LINKS_MAX,
};

/// What a set of records amounts to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Devices with a valid certificate, and which.
    pub(crate) certified: BTreeMap<DeviceId, RecordId>,
    /// Devices with a revocation that counts.
    pub(crate) revoked: BTreeSet<DeviceId>,
}

/// Judges a set of records of one user.
pub(crate) fn judge(records: &BTreeMap<RecordId, VerifiedRecord>) -> Verdict {
    let dag = Dag::new(records);
    let cuts = settle_revocations(&dag);
    let mut certified = Certified::new();
    for (at, record) in dag.order.iter().enumerate() {
        if let Some(links) = links(&dag, &cuts, &certified, at) {
            certified.entry(record.record().device).or_default().push((links, at));
        }
    }
    let shortest = |(device, certificates): (DeviceId, Vec<(usize, usize)>)| {
        certificates.into_iter().min().map(|(_, at)| (device, dag.order[at].id()))
    };
    Verdict {
        certified: certified.into_iter().filter_map(shortest).collect(),
        revoked: cuts.0.keys().copied().collect(),
    }
}

/// Per device its certificates that count: (links from the root, index).
type Certified = BTreeMap<DeviceId, Vec<(usize, usize)>>;

/// Records whose ancestry is complete, by (generation, id).
struct Dag<'a> {
    order: Vec<&'a VerifiedRecord>,
    /// Per record, itself and all its ancestors, as indices.
    past: Vec<Bits>,
    index: BTreeMap<RecordId, usize>,
}

impl<'a> Dag<'a> {
    fn new(records: &'a BTreeMap<RecordId, VerifiedRecord>) -> Self {
        let mut dag = Self { order: Vec::new(), past: Vec::new(), index: BTreeMap::new() };
        let mut waiting: Vec<&VerifiedRecord> = records.values().collect();
        // One round per generation; `waiting` stays in the order of ids.
        loop {
            let (ready, rest): (Vec<_>, Vec<_>) = waiting
                .into_iter()
                .partition(|r| r.record().parents.iter().all(|id| dag.index.contains_key(id)));
            if ready.is_empty() {
                return dag;
            }
            let ready = ready.into_iter().map(|record| dag.past_of(record)).collect::<Vec<_>>();
            for (record, mut past) in ready {
                let at = dag.order.len();
                past.insert(at);
                dag.order.push(record);
                dag.past.push(past);
                dag.index.insert(record.id(), at);
            }
            waiting = rest;
        }
    }

    fn past_of(&self, record: &'a VerifiedRecord) -> (&'a VerifiedRecord, Bits) {
        (record, self.closure(&record.record().parents))
    }

    /// The named records that are here, and all before them.
    fn closure(&self, ids: &[RecordId]) -> Bits {
        let mut closure = Bits::default();
        for at in ids.iter().filter_map(|id| self.index.get(id)) {
            closure.union(&self.past[*at]);
        }
        closure
    }
}

/// Per revoked device, what the revocations leave of it.
#[derive(Default)]
struct Cuts(BTreeMap<DeviceId, Vec<Cut>>);

struct Cut {
    /// The revocation.
    at: usize,
    /// Records of the device that still count.
    kept: Bits,
    compromised: bool,
}

impl Cuts {
    /// Whether a record of `device` lies within all that was cut.
    fn keep(&self, dag: &Dag<'_>, device: &DeviceId, record: usize) -> bool {
        let Some(cuts) = self.0.get(device) else { return true };
        let kept = |cut: &Cut| cut.kept.contains(record);
        // A revocation made in knowledge of an earlier one can not widen it.
        let first = |cut: &&Cut| {
            let earlier = |other: &Cut| other.at != cut.at && dag.past[cut.at].contains(other.at);
            !cuts.iter().filter(|other| !other.compromised).any(earlier)
        };
        let ordinary: Vec<&Cut> =
            cuts.iter().filter(|cut| !cut.compromised).filter(first).collect();
        cuts.iter().filter(|cut| cut.compromised).all(kept)
            && (ordinary.is_empty() || ordinary.into_iter().any(kept))
    }
}

fn settle_revocations(dag: &Dag<'_>) -> Cuts {
    let mut cuts = Cuts::default();
    let revocations: Vec<usize> = (0..dag.order.len())
        .filter(|at| matches!(dag.order[*at].record().statement, Statement::Revoke { .. }))
        .collect();
    for at in &revocations {
        if dag.order[*at].record().signer == Signer::Root {
            count(dag, &mut cuts, *at);
        }
    }
    let mut certified = Certified::new();
    let mut counted = BTreeSet::new();
    for (at, record) in dag.order.iter().enumerate() {
        let Some(links) = links(dag, &cuts, &certified, at) else { continue };
        let device = record.record().device;
        certified.entry(device).or_default().push((links, at));
        for revocation in &revocations {
            let by_device = dag.order[*revocation].record().signer == Signer::Device(device);
            let knows_certificate = dag.past[*revocation].contains(at);
            if by_device
                && knows_certificate
                && !counted.contains(revocation)
                && cuts.keep(dag, &device, *revocation)
            {
                counted.insert(*revocation);
                count(dag, &mut cuts, *revocation);
            }
        }
    }
    cuts
}

fn count(dag: &Dag<'_>, cuts: &mut Cuts, at: usize) {
    let record = dag.order[at].record();
    if let Statement::Revoke { cuts: kept, compromised } = &record.statement {
        // What is kept lies in the revocation's own past: nobody vouches for the future.
        let mut kept = dag.closure(kept);
        kept.intersect(&dag.past[at]);
        let cut = Cut { at, kept, compromised: *compromised };
        cuts.0.entry(record.device).or_default().push(cut);
    }
}

/// How many links lead from the root to this record, if it is a certificate that counts.
fn links(dag: &Dag<'_>, cuts: &Cuts, certified: &Certified, at: usize) -> Option<usize> {
    let record = dag.order[at].record();
    match (&record.statement, record.signer) {
        (Statement::Revoke { .. }, _) => None,
        (Statement::Certify { .. }, Signer::Root) => Some(1),
        (Statement::Certify { .. }, Signer::Device(signer)) => {
            let known = certified.get(&signer)?.iter().filter(|(links, certificate)| {
                *links < CHAIN_LINKS_MAX && dag.past[at].contains(*certificate)
            });
            let links = known.map(|(links, _)| links + 1).min()?;
            cuts.keep(dag, &signer, at).then_some(links)
        }
    }
}
