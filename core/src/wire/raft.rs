//! The codec of consensus and bootstrap messages on the server port (raft.md §3).
//!
//! Entries travel without index and chain: both follow from the position they are appended after,
//! so that a decoded message is consistent in itself and a chain that does not fit shows at the
//! receiver's own log. Numbers and lengths are bounded by [`super::pack`].

use super::DecodeError;
use super::pack::{Pack, Reader, put_array};
use crate::id::{LogIndex, NodeId, StoreId, Term};
use crate::log::chain;
use crate::raft::bootstrap::{BootstrapMessage, Promise, Verdict};
use crate::raft::{
    Append, AppendReject, Body, Campaign, Condition, Entry, EntryKind, Header, Message, Refusal,
    SnapshotBlock, Unfit,
};
use crate::{pack_enum, pack_struct};
use bytes::Bytes;
use std::time::Duration;

pack_struct!(Header { cluster, from, address, from_store, to, term, sent_at });
pack_struct!(Message { header, body });
pack_struct!(Campaign { term, last_index, last_term, transfer_from });
pack_enum!(Unfit { 1 => NotVoter, 2 => DiskStalled, 3 => Recovering, 4 => DiskFull });
pack_struct!(Condition { applied, patience, unfit });
pack_struct!(SnapshotBlock { snapshot, meta, number, data, last });
pack_struct!(AppendReject { prev_index, hint_index, hint_term });
pack_enum!(EntryKind { 1 => Command, 2 => Noop, 3 => Config });
pack_enum!(Refusal {
    1 => LeaderAlive, 2 => Embargo(Duration), 3 => Term, 4 => Log, 5 => Recovering
});
pack_enum!(Verdict { 1 => Promised, 2 => Refused, 3 => Member(crate::id::ClusterId) });

impl Pack for Append {
    /// `[prev_index, prev_term, prev_chain, commit, [[term, kind, payload], …]]`.
    fn pack(&self, out: &mut Vec<u8>) {
        put_array(out, 5);
        self.prev_index.pack(out);
        self.prev_term.pack(out);
        self.prev_chain.pack(out);
        self.commit.pack(out);
        put_array(out, self.entries.len());
        for entry in &self.entries {
            put_array(out, 3);
            entry.term.pack(out);
            entry.kind.pack(out);
            entry.payload.pack(out);
        }
    }

    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.enter("Append");
        if input.array()? != 5 {
            return Err(input.invalid("has five parts"));
        }
        let prev_index = LogIndex::unpack(input)?;
        let prev_term = Term::unpack(input)?;
        let prev_chain = u64::unpack(input)?;
        let commit = LogIndex::unpack(input)?;
        let count = input.array()?;
        if prev_index.get().checked_add(count as u64).is_none() {
            return Err(input.invalid("the positions are beyond the end of every log"));
        }
        let (mut index, mut before) = (prev_index, prev_chain);
        let mut entries = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            input.enter("Append.entries");
            if input.array()? != 3 {
                return Err(input.invalid("an entry has three parts"));
            }
            let term = Term::unpack(input)?;
            let kind = EntryKind::unpack(input)?;
            let payload = Bytes::unpack(input)?;
            index = index.next();
            before = chain(before, index, term, &kind, &payload);
            entries.push(Entry { index, term, kind, payload, chain: before });
        }
        Ok(Self { prev_index, prev_term, prev_chain, commit, entries })
    }
}

/// A granted or refused vote on the wire.
struct PreVoteAnswer {
    campaign_term: Term,
    refusal: Option<Refusal>,
}
pack_struct!(PreVoteAnswer { campaign_term, refusal });

/// The answer to an append on the wire.
struct AppendOk {
    match_index: LogIndex,
    condition: Condition,
}
pack_struct!(AppendOk { match_index, condition });

/// A heartbeat on the wire.
struct Heartbeat {
    commit: LogIndex,
    round: u64,
}
pack_struct!(Heartbeat { commit, round });

/// The answer to a heartbeat on the wire.
struct HeartbeatAnswer {
    round: u64,
    condition: Condition,
}
pack_struct!(HeartbeatAnswer { round, condition });

/// The permission to campaign on the wire.
struct TimeoutNow {
    transfer: u64,
}
pack_struct!(TimeoutNow { transfer });

/// The answer to it on the wire.
struct TransferReject {
    transfer: u64,
    reason: Unfit,
}
pack_struct!(TransferReject { transfer, reason });

/// How much of a snapshot is stored, on the wire.
struct SnapshotAnswer {
    snapshot: u64,
    next: u64,
}
pack_struct!(SnapshotAnswer { snapshot, next });

/// `Body` with one value for each variant.
enum WireBody {
    PreVote(Campaign),
    PreVoteAnswer(PreVoteAnswer),
    RequestVote(Campaign),
    VoteAnswer(Option<Refusal>),
    Append(Append),
    AppendOk(AppendOk),
    AppendReject(AppendReject),
    HeartbeatAnswer(HeartbeatAnswer),
    Heartbeat(Heartbeat),
    TimeoutNow(TimeoutNow),
    TransferReject(TransferReject),
    SnapshotBlock(SnapshotBlock),
    SnapshotAnswer(SnapshotAnswer),
}
// 8 was a heartbeat without a round.
pack_enum!(WireBody {
    1 => PreVote(Campaign), 2 => PreVoteAnswer(PreVoteAnswer), 3 => RequestVote(Campaign),
    4 => VoteAnswer(Option<Refusal>), 5 => Append(Append), 6 => AppendOk(AppendOk),
    7 => AppendReject(AppendReject), 9 => HeartbeatAnswer(HeartbeatAnswer),
    10 => Heartbeat(Heartbeat), 11 => TimeoutNow(TimeoutNow),
    12 => TransferReject(TransferReject), 13 => SnapshotBlock(SnapshotBlock),
    14 => SnapshotAnswer(SnapshotAnswer),
});

impl Pack for Body {
    fn pack(&self, out: &mut Vec<u8>) {
        let wire = match self.clone() {
            Self::PreVote(campaign) => WireBody::PreVote(campaign),
            Self::PreVoteAnswer { campaign_term, refusal } => {
                WireBody::PreVoteAnswer(PreVoteAnswer { campaign_term, refusal })
            }
            Self::RequestVote(campaign) => WireBody::RequestVote(campaign),
            Self::VoteAnswer { refusal } => WireBody::VoteAnswer(refusal),
            Self::Append(append) => WireBody::Append(append),
            Self::AppendOk { match_index, condition } => {
                WireBody::AppendOk(AppendOk { match_index, condition })
            }
            Self::AppendReject(reject) => WireBody::AppendReject(reject),
            Self::SnapshotBlock(block) => WireBody::SnapshotBlock(block),
            Self::SnapshotAnswer { snapshot, next } => {
                WireBody::SnapshotAnswer(SnapshotAnswer { snapshot, next })
            }
            Self::Heartbeat { commit, round } => WireBody::Heartbeat(Heartbeat { commit, round }),
            Self::HeartbeatAnswer { round, condition } => {
                WireBody::HeartbeatAnswer(HeartbeatAnswer { round, condition })
            }
            Self::TimeoutNow { transfer } => WireBody::TimeoutNow(TimeoutNow { transfer }),
            Self::TransferReject { transfer, reason } => {
                WireBody::TransferReject(TransferReject { transfer, reason })
            }
        };
        wire.pack(out);
    }

    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match WireBody::unpack(input)? {
            WireBody::PreVote(campaign) => Self::PreVote(campaign),
            WireBody::PreVoteAnswer(PreVoteAnswer { campaign_term, refusal }) => {
                Self::PreVoteAnswer { campaign_term, refusal }
            }
            WireBody::RequestVote(campaign) => Self::RequestVote(campaign),
            WireBody::VoteAnswer(refusal) => Self::VoteAnswer { refusal },
            WireBody::Append(append) => Self::Append(append),
            WireBody::AppendOk(AppendOk { match_index, condition }) => {
                Self::AppendOk { match_index, condition }
            }
            WireBody::AppendReject(reject) => Self::AppendReject(reject),
            WireBody::SnapshotBlock(block) => Self::SnapshotBlock(block),
            WireBody::SnapshotAnswer(SnapshotAnswer { snapshot, next }) => {
                Self::SnapshotAnswer { snapshot, next }
            }
            WireBody::Heartbeat(Heartbeat { commit, round }) => Self::Heartbeat { commit, round },
            WireBody::HeartbeatAnswer(HeartbeatAnswer { round, condition }) => {
                Self::HeartbeatAnswer { round, condition }
            }
            WireBody::TimeoutNow(TimeoutNow { transfer }) => Self::TimeoutNow { transfer },
            WireBody::TransferReject(TransferReject { transfer, reason }) => {
                Self::TransferReject { transfer, reason }
            }
        })
    }
}

/// `BootstrapMessage::Ask` on the wire.
struct Ask {
    to: NodeId,
    promise: Promise,
    round: u64,
    expect: u32,
}
pack_struct!(Ask { to, promise, round, expect });

/// `BootstrapMessage::Answer` on the wire.
struct Answer {
    to: NodeId,
    from: NodeId,
    store: StoreId,
    round: u64,
    verdict: Verdict,
}
pack_struct!(Answer { to, from, store, round, verdict });

/// `BootstrapMessage::Query` on the wire.
struct Query {
    to: NodeId,
    from: NodeId,
    promise: Promise,
    question: u64,
}
pack_struct!(Query { to, from, promise, question });

/// `BootstrapMessage::Release` on the wire.
struct Release {
    to: NodeId,
    question: u64,
}
pack_struct!(Release { to, question });

/// `BootstrapMessage` with one value for each variant.
enum WireBootstrap {
    Ask(Ask),
    Answer(Answer),
    Query(Query),
    Release(Release),
}
pack_enum!(WireBootstrap {
    1 => Ask(Ask), 2 => Answer(Answer), 3 => Query(Query), 4 => Release(Release),
});

impl Pack for BootstrapMessage {
    fn pack(&self, out: &mut Vec<u8>) {
        let wire = match *self {
            Self::Ask { to, promise, round, expect } => {
                WireBootstrap::Ask(Ask { to, promise, round, expect })
            }
            Self::Answer { to, from, store, round, verdict } => {
                WireBootstrap::Answer(Answer { to, from, store, round, verdict })
            }
            Self::Query { to, from, promise, question } => {
                WireBootstrap::Query(Query { to, from, promise, question })
            }
            Self::Release { to, question } => WireBootstrap::Release(Release { to, question }),
        };
        wire.pack(out);
    }

    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match WireBootstrap::unpack(input)? {
            WireBootstrap::Ask(Ask { to, promise, round, expect }) => {
                Self::Ask { to, promise, round, expect }
            }
            WireBootstrap::Answer(Answer { to, from, store, round, verdict }) => {
                Self::Answer { to, from, store, round, verdict }
            }
            WireBootstrap::Query(Query { to, from, promise, question }) => {
                Self::Query { to, from, promise, question }
            }
            WireBootstrap::Release(Release { to, question }) => Self::Release { to, question },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ClusterId;
    use crate::log::Log;
    use crate::raft::SnapshotMeta;
    use crate::wire::pack::{from_bytes, to_bytes};
    use proptest::prelude::*;
    use std::net::SocketAddr;

    fn header(n: u8) -> Header {
        Header {
            cluster: ClusterId::from_bytes([n; 16]),
            address: SocketAddr::from(([10, 0, 0, 2], 8300)),
            from: NodeId::from_bytes([n; 16]),
            from_store: StoreId::from_bytes([3; 16]),
            to: NodeId::from_bytes([4; 16]),
            term: Term::new(u64::from(n)),
            sent_at: 77,
        }
    }

    fn bodies() -> Vec<Body> {
        let mut log = Log::default();
        for (term, kind) in [(1, EntryKind::Config), (2, EntryKind::Noop), (2, EntryKind::Command)]
        {
            log.append_new(Term::new(term), kind, Bytes::from_static(b"payload"));
        }
        let (one, two) = (LogIndex::new(1), Term::new(2));
        let last_term = Term::new(1);
        let campaign = Campaign { term: two, last_index: one, last_term, transfer_from: None };
        let transferred = Campaign { transfer_from: Some(Term::new(1)), ..campaign };
        let patience = Duration::from_secs(1);
        let condition = Condition { applied: one, patience, unfit: Some(Unfit::Recovering) };
        vec![
            Body::PreVote(campaign),
            Body::PreVoteAnswer { campaign_term: two, refusal: Some(Refusal::Embargo(patience)) },
            Body::RequestVote(campaign),
            Body::VoteAnswer { refusal: None },
            Body::Append(Append {
                prev_index: one,
                prev_term: Term::new(1),
                prev_chain: log.position(one).unwrap().chain,
                commit: one,
                entries: log.slice(LogIndex::new(2), 9, 9000),
            }),
            Body::AppendOk { match_index: one, condition },
            Body::AppendReject(AppendReject { prev_index: one, hint_index: one, hint_term: two }),
            Body::Heartbeat { commit: one, round: 3 },
            Body::HeartbeatAnswer { round: 3, condition },
            Body::RequestVote(transferred),
            Body::TimeoutNow { transfer: 1 },
            Body::TransferReject { transfer: 1, reason: Unfit::DiskStalled },
            Body::SnapshotBlock(SnapshotBlock {
                snapshot: 3,
                meta: SnapshotMeta { index: one, term: two, ..SnapshotMeta::default() },
                number: 1,
                data: Bytes::from_static(b"block"),
                last: true,
            }),
            Body::SnapshotAnswer { snapshot: 3, next: 2 },
        ]
    }

    #[test]
    fn every_message_survives_its_wire_form() {
        for (n, body) in bodies().into_iter().enumerate() {
            let message = Message { header: header(u8::try_from(n).unwrap()), body };
            assert_eq!(from_bytes(&to_bytes(&message)), Ok(message));
        }
        let promise =
            Promise { proposer: NodeId::from_bytes([1; 16]), store: StoreId::from_bytes([2; 16]) };
        let (to, from) = (promise.proposer, NodeId::from_bytes([9; 16]));
        let verdict = Verdict::Member(promise.cluster());
        for message in [
            BootstrapMessage::Ask { to, promise, round: 5, expect: 3 },
            BootstrapMessage::Answer { to, from, store: promise.store, round: 5, verdict },
            BootstrapMessage::Query { to, from, promise, question: 6 },
            BootstrapMessage::Release { to, question: 6 },
        ] {
            assert_eq!(from_bytes(&to_bytes(&message)), Ok(message));
        }
    }

    #[test]
    fn positions_beyond_the_end_of_every_log_are_refused() {
        let Body::Append(mut append) = bodies().remove(4) else { unreachable!() };
        append.prev_index = LogIndex::new(u64::MAX);
        assert!(matches!(
            from_bytes::<Append>(&to_bytes(&append)),
            Err(DecodeError::Invalid { .. })
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = from_bytes::<Message>(&bytes);
            let _ = from_bytes::<BootstrapMessage>(&bytes);
            let _ = from_bytes::<crate::raft::Configuration>(&bytes);
        }

        #[test]
        fn a_damaged_message_never_panics(which in 0usize..14, at in 0usize..400, byte: u8) {
            let message = Message { header: header(1), body: bodies().remove(which) };
            let mut bytes = to_bytes(&message).to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = from_bytes::<Message>(&bytes);
        }
    }
}
