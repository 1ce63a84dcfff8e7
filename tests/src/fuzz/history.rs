//! The history on disk, fed with whatever two devices can sign: places that do not fit, forks, gaps,
//! blocks, bodies, targets that are not there.

use kith_crdt::{
    body::Body,
    entry::Verified,
    header::{Header, Op},
    id::{EntryId, LogId, LogKind, Place, UserId},
};
use kith_node::{
    core::history::{Authority, ConvNo, History, HistoryMut, Standing},
    kv::{KvError, KvRead, MemoryKv, Overlay},
};

use super::{
    Reader,
    crdt::{CONVERSATION, device_id, forged, forged_block, log_of},
};

/// Two users with a device each; governance heads that are not here are waited for.
struct Two;

impl Authority for Two {
    fn standing(
        &self,
        kv: &dyn KvRead,
        _conv: ConvNo,
        entry: &Verified,
        gov: &[EntryId],
    ) -> Result<Standing, KvError> {
        for head in gov {
            if !History::new(kv).contains(head)? {
                return Ok(Standing::Waits);
            }
        }
        let device = entry.place().log.device;
        Ok(match (1..3).find(|number| device_id(*number) == device) {
            Some(number) => Standing::Counts(UserId([number; 32])),
            None => Standing::Void,
        })
    }
}

fn change<T, E>(
    kv: &mut MemoryKv,
    part: impl FnOnce(&mut HistoryMut<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let mut overlay = Overlay::new(kv);
    let result = part(&mut HistoryMut::new(&mut overlay, UserId([1; 32]), &Two))?;
    let changes = overlay.into_changes();
    kv.apply(changes);
    Ok(result)
}

/// A header of any kind, about entries that may be here.
pub(super) fn any_header(
    reader: &mut Reader<'_>,
    known: &[EntryId],
    place: &Place,
    body: &Body,
    previous: Option<EntryId>,
) -> Vec<u8> {
    let some = |reader: &mut Reader<'_>| {
        let at = usize::from(reader.byte());
        known.get(at).copied().unwrap_or(EntryId([at as u8; 32]))
    };
    let reference = body.reference(&CONVERSATION, place);
    let op = match reader.byte() % 12 {
        0 => Op::Close,
        1 => Op::Edit { target: some(reader), body: reference },
        2 => Op::Delete { target: some(reader) },
        3 => Op::React { target: some(reader), emoji: "👍".into(), add: reader.byte() & 1 == 0 },
        4 => Op::Unknown { kind: 8 + u16::from(reader.byte()), bytes: reader.piece(64).to_vec() },
        5 => Op::Text { reply_to: Some(some(reader)), body: reference },
        6 => Op::Gov(reader.piece(256).to_vec()),
        7 => return reader.piece(512).to_vec(),
        _ if place.key() == 0 => Op::Open { previous },
        _ => Op::Text { reply_to: None, body: reference },
    };
    let flags = reader.byte();
    let header = Header {
        wall_ms: reader.number(),
        after: (flags & 1 == 1).then(|| some(reader)),
        gov: match flags >> 1 & 3 {
            0 if !matches!(op, Op::Open { .. }) => None,
            1 => Some(vec![some(reader)]),
            _ => Some(Vec::new()),
        },
        expires_ms: (flags & 8 == 8).then(|| reader.number()),
        op,
    };
    header.encode().unwrap_or_default()
}

fn check(kv: &MemoryKv, conv: ConvNo) {
    let history = History::new(kv);
    for (_, have) in history.have(conv).expect("memory does not fail") {
        assert!(have.is_valid(), "what we claim is valid: {have:?}");
    }
    let _ = history.missing(conv).expect("missing can be told");
    let rows = history.timeline(conv, None, 1000).expect("the timeline can be read");
    let shown = rows.iter().filter(|row| !row.hidden).count() as u64;
    let counts = history.counts(conv).expect("the conversation is there");
    assert_eq!(counts.messages, shown, "every message is counted once");
    for row in rows {
        assert!(history.message(&row.view.id).expect("memory does not fail").is_some());
    }
}

pub(super) fn history(bytes: &[u8]) {
    let mut kv = MemoryKv::default();
    let conv = change(&mut kv, |history| history.open_conversation(&CONVERSATION));
    let conv = conv.expect("memory does not fail");
    let mut reader = Reader::new(bytes);
    let mut known: Vec<EntryId> = Vec::new();
    // The logs as their devices continue them: where, and after what.
    let mut tips: Vec<(LogId, u64, Option<EntryId>)> = [1u8, 2, 3]
        .into_iter()
        .flat_map(|number| [LogKind::Content, LogKind::Gov].map(|kind| log_of(number, kind)))
        .map(|log| (log, 0, None))
        .collect();
    let body = Body::text("a text", [3; 32]).expect("a short text");
    for _ in 0..48 {
        if reader.is_empty() {
            break;
        }
        let what = reader.byte();
        let count = tips.len();
        let tip = &mut tips[usize::from(what >> 4) % count];
        let by = 1 + (usize::from(what >> 4) % count / 2) as u8;
        match what & 15 {
            // The next entry, or one at any place after anything.
            0..=7 => {
                let wild = what & 7 == 7;
                let seq = if wild { reader.number() } else { tip.1 };
                let previous = match (wild, reader.byte()) {
                    (true, at) => known.get(usize::from(at)).copied(),
                    (false, _) => tip.2,
                };
                let place = Place { log: tip.0, seq };
                let header = any_header(&mut reader, &known, &place, &body, previous);
                let entry = forged(place, previous, &header, by);
                let Ok(verified) = entry.verify(&CONVERSATION) else { continue };
                let brought = (reader.byte() & 1 == 0).then(|| body.clone());
                known.push(*verified.id());
                if !wild {
                    *tip = (tip.0, verified.next_seq(), Some(*verified.id()));
                }
                // Once in a while an entry is kept back, so that there are gaps.
                if reader.byte() % 8 == 7 {
                    continue;
                }
                let _ = change(&mut kv, |history| history.accept(conv, &verified, brought));
            }
            8 | 9 => {
                let mut headers = Vec::new();
                let (log, first, mut previous) = *tip;
                for at in 0..u64::from(reader.byte() % 6) {
                    let place = Place { log, seq: first.saturating_add(at) };
                    let header = any_header(&mut reader, &known, &place, &body, previous);
                    previous = Some(EntryId([0; 32]));
                    headers.push(header);
                }
                let block = forged_block(log, first, tip.2, headers, by);
                let Ok(entries) = block.verify(&CONVERSATION) else { continue };
                if let Some(last) = entries.last() {
                    *tip = (log, last.next_seq(), Some(*last.id()));
                }
                known.extend(entries.iter().map(|entry| *entry.id()));
                let bodies = vec![(reader.number(), body.clone()), (first, body.clone())];
                let _ = change(&mut kv, |history| history.accept_block(conv, &block, bodies));
            }
            10 => {
                let log = tip.0;
                let (from, most) = (reader.number(), usize::from(reader.byte()) * 64);
                let _ = History::new(&kv).range(conv, &log, from, most);
                let until = reader.number();
                let _ = History::new(&kv).bodies(conv, &log, (from, until), most);
                let _ = History::new(&kv).entries(conv, &log, from, 10);
            }
            11 => {
                let _ = change(&mut kv, |history| history.retry_undecided(conv));
            }
            12 => {
                let (log, from) = (tip.0, reader.number());
                let _ = change(&mut kv, |history| history.reauthorise(conv, &log, from));
            }
            13 => {
                let id = known.get(usize::from(reader.byte())).copied();
                let id = id.unwrap_or(EntryId([1; 32]));
                let _ = change(&mut kv, |history| history.mark_read(conv, &id));
                let _ = change(&mut kv, |history| history.hide(conv, &id));
                let _ = History::new(&kv).timeline(conv, Some(&id), 5);
            }
            14 => {
                let id = known.get(usize::from(reader.byte())).copied();
                let id = id.unwrap_or(EntryId([1; 32]));
                let _ = change(&mut kv, |history| history.accept_body(conv, &id, body.clone()));
            }
            _ => {
                let log = tip.0;
                let bodies = vec![(reader.number(), body.clone()), (1, body.clone())];
                let _ = change(&mut kv, |history| history.accept_bodies(conv, &log, bodies));
            }
        }
        check(&kv, conv);
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    // An open and some texts of either device, an edit, a deletion, a range, a wild entry.
    let open = |log: u8| vec![log << 4, 0, 9, 0, 5, 0, 0];
    let text = |log: u8| vec![log << 4, 0, 9, 0, 6, 0, 0];
    let edit = |log: u8| vec![log << 4, 0, 1, 1, 0, 7, 0, 0];
    let delete = |log: u8| vec![log << 4, 0, 2, 1, 0, 8, 0, 0];
    let range = vec![10, 0, 9, 200];
    let wild = vec![7, 3, 2, 9, 0, 6, 0, 0];
    let gap = |log: u8| vec![log << 4, 0, 9, 0, 6, 0, 7];
    let join = |parts: &[Vec<u8>]| parts.concat();
    vec![
        join(&[open(0), text(0), text(0), edit(0), delete(0), range.clone()]),
        join(&[open(0), text(0), open(2), text(2), edit(2), wild, text(0)]),
        join(&[open(1), text(1), open(0), gap(0), text(0), text(0), range, vec![11, 12, 0]]),
        join(&[
            open(0),
            text(0),
            vec![13, 1],
            vec![14, 1],
            vec![15, 1],
            vec![8, 3, 9, 0, 5, 9, 0, 5],
        ]),
    ]
}
