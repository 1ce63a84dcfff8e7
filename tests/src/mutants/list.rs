//! The mutations: every rule that others must be able to rely on, broken once.

/// Tests that are expected to notice: package, target (`lib` or a test's name), what picks them.
pub type Tests = (&'static str, &'static str, &'static [&'static str]);

/// One rule, broken.
#[derive(Debug, Clone, Copy)]
pub struct Mutation {
    /// Its name.
    pub name: &'static str,
    /// The file.
    pub file: &'static str,
    /// Text that stands there exactly once: an expression, or whole statements ending in `;`.
    pub from: &'static str,
    /// What stands there while the mutation is on.
    pub to: &'static str,
    /// Who is to notice.
    pub tests: Tests,
}

const fn m(
    name: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
    tests: Tests,
) -> Mutation {
    Mutation { name, file, from, to, tests }
}

const ORDER: Tests = ("kith-crdt", "lib", &["order", "aggregate", "replica"]);
const GOV: Tests = ("kith-crdt", "lib", &["gov"]);
const DEVICES: Tests = ("kith-crdt", "lib", &["devices"]);
const VALIDITY: Tests = ("kith-node", "lib", &["mls::validity"]);
const HISTORY: Tests = ("kith-node", "lib", &["core::history", "--skip", "growth"]);
const SEAL: Tests = ("kith-node", "lib", &["store::seal"]);
const STORY: Tests = ("kith-node", "lib", &["store::tests::story"]);
const ERASURE: Tests = ("kith-node", "lib", &["store::tests::erasure::what_was"]);
const CUT: Tests = ("kith-node", "lib", &["store::tests::erasure::wherever"]);
const STAGE: Tests = ("kith-tests", "stage", &["claims"]);
const STAGED: Tests = ("kith-tests", "stage", &["devices", "trust"]);
const CRASH: Tests = ("kith-tests", "scenarios", &["nothing_that_send_returned"]);
const FULL: Tests = ("kith-tests", "scenarios", &["a_full_disk_refuses"]);
const TIME: Tests = ("kith-tests", "stage", &["time"]);
const RELAY_DISK: Tests = ("kith-relay", "lib", &["storage::"]);
const RELAY: Tests = ("kith-relay", "lib", &["engine::"]);

const ORDER_RS: &str = "crdt/src/order.rs";
const AGGREGATE_RS: &str = "crdt/src/aggregate.rs";
const GOV_RS: &str = "crdt/src/gov.rs";
const JUDGE_RS: &str = "crdt/src/gov/judge.rs";
const DEVICES_RS: &str = "crdt/src/devices.rs";
const VERDICT_RS: &str = "crdt/src/verdict.rs";
const VALIDITY_RS: &str = "node/src/mls/validity.rs";
const SETTLE_RS: &str = "node/src/core/history/settle.rs";
const ACCEPT_RS: &str = "node/src/core/history/accept.rs";
const FOLD_RS: &str = "node/src/core/history/fold.rs";
const RECEIPTS_RS: &str = "node/src/core/receipts/mod.rs";
const LINK_RS: &str = "node/src/core/parcels/link.rs";
const INTRODUCTIONS_RS: &str = "node/src/core/introductions.rs";
const MACHINE_RS: &str = "node/src/driver/machine.rs";
const SEAL_RS: &str = "node/src/store/seal.rs";
const STORE_RS: &str = "node/src/store/mod.rs";
const TXN_RS: &str = "node/src/store/txn.rs";
const TREE_RS: &str = "node/src/store/tree.rs";
const ERASURE_RS: &str = "node/src/store/erasure.rs";
const ENGINE_RS: &str = "relay/src/engine/mod.rs";
const RELAY_ERASURE_RS: &str = "relay/src/storage/erasure.rs";
const RELAY_REDB_RS: &str = "relay/src/storage/redb.rs";
const VIEWS_RS: &str = "node/src/core/views.rs";
const PROMISE_RS: &str = "relay/src/engine/promise.rs";
const WRITE_RS: &str = "relay/src/engine/write.rs";
const READ_RS: &str = "relay/src/engine/read.rs";

/// All of them.
#[rustfmt::skip]
pub const MUTATIONS: &[Mutation] = &[
    // ---- order
    m("order-after", ORDER_RS, "next(after_eff_ms)", "0", ORDER),
    m("order-own-previous", ORDER_RS, "next(previous_eff_ms)", "0", ORDER),
    m("order-later-not-equal", ORDER_RS, "ms.saturating_add(1)", "ms", ORDER),
    m("edit-by-anybody", AGGREGATE_RS, "self.edits.get(author)", "self.edits.values().next()", ORDER),
    m("delete-by-anybody", AGGREGATE_RS, "self.deletions.get(author)",
        "self.deletions.values().next()", ORDER),
    m("settle-past-a-fork", SETTLE_RS, "log.forked(seq)", "false", HISTORY),
    m("settle-without-rekey", SETTLE_RS, "self.rekey(&entry, &old, &new)?;", "", HISTORY),
    m("settle-wakes-nobody", SETTLE_RS, "work.extend(self.waiting_for(&id)?);", "", HISTORY),
    m("settle-never-moves", SETTLE_RS,
        "order::settled_ms(entry.header().wall_ms, after_ms, previous_ms)",
        "entry.header().wall_ms", HISTORY),
    m("accept-any-previous", ACCEPT_RS, "entry.previous() != log.head.as_ref()", "false", HISTORY),
    m("accept-counts-past-a-fork", ACCEPT_RS, "self.log(no)?.forked(entry.place().seq)", "false",
        HISTORY),
    m("accept-any-body", ACCEPT_RS, "!self.fits(entry, &body)", "false", HISTORY),
    m("accept-erased-body", ACCEPT_RS, "self.is_erased(entry, &user)?", "false", HISTORY),

    // ---- who may: governance
    m("gov-newest-removal-first", JUDGE_RS, "removals.sort();", "removals.sort(); removals.reverse();", GOV),
    m("gov-root-is-nobody", JUDGE_RS, "node.by_root.is_none().then_some(seniority)",
        "Some(seniority)", GOV),
    m("gov-revokes-others-devices", JUDGE_RS, "own && root_fits", "root_fits", GOV),
    m("gov-any-root-record", JUDGE_RS, "op.by_root.is_none() || node.by_root == Some(user)", "true",
        GOV),
    m("gov-anybody-removes", JUDGE_RS, "self.is_owner(&user) && !self.is_owner(&op.user)", "true",
        GOV),
    m("gov-adds-others-devices", JUDGE_RS, "user == add.user || self.is_owner(&user)", "true", GOV),
    m("gov-revoked-vouch", JUDGE_RS, "self.vouched(at, node)", "true", GOV),
    m("gov-anybody-adds", JUDGE_RS, "standing().is_ok_and(|user| self.is_owner(&user))",
        "standing().is_ok()", GOV),
    m("gov-no-membership", JUDGE_RS, "self.membership(user, place, closure, counts)?;", "", GOV),
    m("gov-no-removal", JUDGE_RS, "self.unremoved(place, id, user, closure)?;", "", GOV),
    m("gov-at-no-point", JUDGE_RS, "closure.contains(*at) && counts.contains(*at)",
        "counts.contains(*at)", GOV),
    m("gov-cut-without-number", JUDGE_RS, "place.seq < cut.seq", "true", GOV),
    m("gov-cut-without-hash", JUDGE_RS, "*id == cut.id", "true", GOV),
    m("gov-compromised-is-ordinary", JUDGE_RS,
        "!nearest.iter().all(|removal| removal.keeps(place, id))", "false", GOV),
    m("gov-nearest-cut", JUDGE_RS, "ordinary.iter().filter(first).any(|r| r.keeps(place, id))",
        "ordinary.iter().filter(first).all(|r| r.keeps(place, id))", GOV),
    m("gov-same-life-again", JUDGE_RS,
        "removals.iter().any(|r| r.cuts.iter().any(|cut| cut.log == place.log))", "false", GOV),
    m("gov-does-not-wait", GOV_RS, "!missing.is_empty()", "false", GOV),

    // ---- who may: device lists
    m("device-any-signature", DEVICES_RS,
        "self.signature\n            .verify(&key, RECORD_CONTEXT, &canonical::encode(record))\n            .map_err(|_| RecordError::Signature)?;",
        "", DEVICES),
    m("device-without-consent", DEVICES_RS,
        "consent\n                .verify(&record.device.0, CONSENT_CONTEXT, &record.user.0)\n                .map_err(|_| RecordError::Consent)?",
        "()", DEVICES),
    m("chain-of-another-user", DEVICES_RS, "record.user != *user", "false", DEVICES),
    m("chain-with-gaps", DEVICES_RS,
        "record.signer != signer || !matches!(record.statement, Statement::Certify { .. })",
        "false", DEVICES),
    m("chain-to-anybody", DEVICES_RS, "signer == Signer::Device(*device)", "true", DEVICES),
    m("verdict-root-revokes-nothing", VERDICT_RS,
        "dag.order[*at].record().signer == Signer::Root", "false", DEVICES),
    m("verdict-before-its-certificate", VERDICT_RS, "dag.past[*revocation].contains(at)", "true",
        DEVICES),
    m("verdict-revoked-still-certifies", VERDICT_RS,
        "cuts.keep(dag, &signer, at).then_some(links)", "Some(links)", DEVICES),
    m("verdict-revoked-still-revokes", VERDICT_RS, "cuts.keep(dag, &device, *revocation)", "true",
        DEVICES),
    m("verdict-vouches-for-the-future", VERDICT_RS, "kept.intersect(&dag.past[at]);", "", DEVICES),
    m("verdict-compromised-is-ordinary", VERDICT_RS,
        "cuts.iter().filter(|cut| cut.compromised).all(kept)", "true", DEVICES),

    // ---- which commits may be
    m("commit-without-path", VALIDITY_RS, "!facts.path", "false", VALIDITY),
    m("commit-other-credential", VALIDITY_RS, "!facts.credential_unchanged", "false", VALIDITY),
    m("commit-other-proposals", VALIDITY_RS, "facts.other_proposals > 0", "false", VALIDITY),
    m("commit-too-many", VALIDITY_RS, "facts.members.len() > MEMBERS_MAX", "false", VALIDITY),
    m("commit-does-not-wait", VALIDITY_RS,
        "governance.roster(&header.gov_heads).ok_or(Invalid::NotYet)?",
        "governance.roster(&header.gov_heads).unwrap_or_default()", VALIDITY),
    m("commit-other-user", VALIDITY_RS, "roster.get(&member.device) == Some(&member.user)",
        "roster.contains_key(&member.device)", VALIDITY),
    m("commit-by-anybody", VALIDITY_RS, "!belongs(&facts.committer)", "false", VALIDITY),
    m("commit-backwards", VALIDITY_RS,
        "!governance.contains(&header.gov_heads, &facts.before.gov_heads)", "false", VALIDITY),
    m("commit-removes-anybody", VALIDITY_RS,
        "facts.removed.iter().any(|member| belongs(member) && !again(member))", "false", VALIDITY),
    m("commit-any-key-package", VALIDITY_RS, "added.key_package.is_err()", "false", VALIDITY),
    m("commit-adds-anybody", VALIDITY_RS, "!belongs(&added.member)", "false", VALIDITY),
    m("commit-adds-twice", VALIDITY_RS,
        "facts.members.windows(2).any(|pair| pair[0].device == pair[1].device)", "false", VALIDITY),
    m("commit-incomplete", VALIDITY_RS, "facts.members.iter().all(belongs)", "true", VALIDITY),
    m("commit-other-parent", VALIDITY_RS, "header.parent == Some(facts.parent)", "true", VALIDITY),
    m("commit-other-depth", VALIDITY_RS, "header.depth == facts.before.depth.saturating_add(1)",
        "true", VALIDITY),
    m("resync-other-header", VALIDITY_RS, "facts.before == *header", "true", VALIDITY),
    m("resync-adds", VALIDITY_RS, "!facts.added.is_empty()", "false", VALIDITY),
    m("resync-removes-others", VALIDITY_RS, "!own_leaf_only", "false", VALIDITY),
    m("resync-twice", VALIDITY_RS,
        "facts.members.iter().filter(|member| **member == facts.committer).count() != 1", "false",
        VALIDITY),

    // ---- what lasts, and what must not
    m("driver-never-commits", MACHINE_RS, "txn.commit()?;", "drop(txn);", CRASH),
    m("driver-answers-before-the-commit", MACHINE_RS,
        "effects.extend(wake_at.map(Effect::WakeAt));",
        "effects.extend(wake_at.map(Effect::WakeAt)); effects = self.reply(effects);", FULL),
    m("link-without-a-word", LINK_RS, "linking.approved", "true", STAGED),
    m("introduction-by-anybody", INTRODUCTIONS_RS, "!is_trusted(ctx, &by)?", "false", STAGED),
    m("idle-promises-nothing", VIEWS_RS, "ctx.live.set(|live| &mut live.was_idle, (), false);", "", TIME),
    m("receipt-in-advance", RECEIPTS_RS, "have.capped(own.next_seq)", "have.clone()", STAGE),
    m("seal-anywhere", SEAL_RS, "aad.extend_from_slice(stored_key);", "", SEAL),
    m("deleted-body-stays", FOLD_RS, "self.kv.delete(Table::Bodies, &rows::seq(no, seq))", "Ok(())", HISTORY),
    m("erase-nothing", STORE_RS, "txn.stale(limits::ERASE_LEAVES_MAX)?",
        "std::collections::BTreeSet::<u64>::new()", STORY),
    m("erase-trusts-one-slot", ERASURE_RS, "self.slots()?.iter().all(same)",
        "self.slots()?.iter().any(same)", CUT),
    m("delete-keeps-the-key", TXN_RS, "self.tree.borrow_mut().forget(slot, &rows)?;", "let _ = (slot, &rows);", ERASURE),
    m("replace-keeps-the-leaf", TREE_RS, "self.stale.insert(split(slot)?.0);", "", ERASURE),
    m("relay-answers-without-commit", ENGINE_RS, "self.commit_storage(&batch)",
        "Ok::<(), StorageError>(())", RELAY),
    m("relay-keeps-half-a-batch", ENGINE_RS, "self.storage.rollback()?;", "", RELAY),
    m("relay-any-signature", ENGINE_RS, "!request.is_right(&binding)", "false", RELAY),
    m("relay-checked-in-another-session", PROMISE_RS, "checked == session", "true", RELAY),
    m("relay-deletes-for-anybody", WRITE_RS, "token.opens(&item.token_hash)", "true", RELAY),
    m("relay-any-item-id", WRITE_RS, "ItemId::of(&item.token_hash, &item.payload) != item.id",
        "false", RELAY),
    m("relay-keeps-keys", RELAY_ERASURE_RS, "self.write(*index, &[0; SLOT_BYTES])?;", "", RELAY_DISK),
    m("relay-forgets-too-early", RELAY_REDB_RS, "self.txn.is_some()", "false", RELAY_DISK),
    m("relay-older-slots-win", WRITE_RS, "held.version >= slot.version", "false", RELAY),
    m("relay-cursor-goes-back", READ_RS, "through <= state.cursor", "false", RELAY),
    m("relay-acknowledges-another-life", READ_RS, "epoch != self.storage.epoch()", "false", RELAY),
    m("relay-acknowledges-the-future", READ_RS, "through > last_seq", "false", RELAY),
];
