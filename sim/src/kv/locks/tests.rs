//! Orders of single locks, and random histories against trying every order.

use super::*;
use crate::checker::linear::tests::some_order;
use crate::checker::linear::{Verdict, linearizable};
use proptest::prelude::*;

const END: Deed = Deed::End { deletes: false, delays: false };

fn session(number: u8) -> Option<SessionId> {
    Some(SessionId::from_bytes([number; 16]))
}

/// One after the other.
fn is_legal(all: &[(Deed, u8, Option<Told>)]) -> bool {
    let one = |(at, (deed, of, told)): (u64, &(Deed, u8, Option<Told>))| LockOp {
        deed: *deed,
        session: session(*of).filter(|_| *deed != Deed::Get),
        invoked: 2 * at,
        returned: told.map(|told| (2 * at + 1, told)),
    };
    let all: Vec<LockOp> = (0..).zip(all).map(one).collect();
    linearizable(&all) == Verdict::Legal
}

#[test]
fn a_lock_is_free_for_another_once_its_holder_let_go_or_ended() {
    let took = (Deed::Acquire(1), 1, Some(Told::Done));
    let other = (Deed::Acquire(2), 2, Some(Told::Done));
    assert!(!is_legal(&[took, other]));
    assert!(is_legal(&[took, (Deed::Release(3), 1, Some(Told::Done)), other]));
    assert!(is_legal(&[took, (Deed::Release(3), 1, None), other]), "it may have been done");
    assert!(!is_legal(&[took, (Deed::Release(3), 1, Some(Told::Unmet)), other]));
    assert!(is_legal(&[took, (END, 1, None), other]), "it may have expired");
    assert!(!is_legal(&[took, other, (END, 1, None)]), "not before its time was over");
}

#[test]
fn a_session_that_ended_does_not_come_back() {
    let gone = (Deed::Renew, 1, Some(Told::Gone));
    let lives = (Deed::Renew, 1, Some(Told::Done));
    assert!(!is_legal(&[gone]), "nothing ends it");
    assert!(is_legal(&[(END, 1, None), lives, gone]));
    assert!(!is_legal(&[(END, 1, None), gone, lives]));
    assert!(!is_legal(&[(END, 1, Some(Told::Done)), lives]));
    let late = (Deed::Acquire(1), 1, Some(Told::Done));
    assert!(!is_legal(&[(END, 1, None), gone, late]));
    assert!(is_legal(&[(END, 1, None), gone, (Deed::Acquire(1), 1, Some(Told::Gone))]));
}

#[test]
fn what_a_session_holds_goes_with_it() {
    let took = (Deed::Acquire(1), 1, Some(Told::Done));
    let saw = |writer, holder| (Deed::Get, 0, Some(Told::Saw(writer, holder)));
    let ends = |deletes, delays| (Deed::End { deletes, delays }, 1, Some(Told::Done));
    assert!(is_legal(&[took, saw(Some(1), session(1)), ends(false, false), saw(Some(1), None)]));
    assert!(!is_legal(&[took, ends(false, false), saw(Some(1), session(1))]));
    assert!(is_legal(&[took, ends(true, false), saw(None, None)]));
    assert!(!is_legal(&[took, ends(true, false), saw(Some(1), None)]));
    let waits = (Deed::Acquire(2), 2, Some(Told::Unmet));
    assert!(is_legal(&[took, ends(false, true), waits]), "the lock delay");
    assert!(!is_legal(&[took, ends(false, false), waits]), "nobody holds it");
    let both_open = [(Deed::Acquire(1), 1, None), (END, 1, None)];
    assert!(is_legal(&[both_open[0], both_open[1], saw(Some(1), None)]), "swarm seed 1000108");
    assert!(!is_legal(&[both_open[1], saw(Some(1), None)]));
    let let_go = [(Deed::Acquire(1), 1, None), (Deed::Release(2), 1, None), ends(false, false)];
    assert!(is_legal(&[&let_go[..], &[saw(Some(2), None)]].concat()), "before it ended");
    let again = (Deed::Acquire(2), 1, None);
    assert!(is_legal(&[took, again, both_open[1], saw(Some(2), None)]));
}

/// Each of many sessions may have taken the lock, let go of it, and ended: in any order, and with
/// any of them left out (swarm seed 2007056).
#[test]
fn many_operations_without_an_answer_can_be_judged() {
    let of = |number: u8| {
        let id = OpId::from(number) * 2;
        [(Deed::Acquire(id), number, None), (Deed::Release(id + 1), number, None)]
    };
    let mut all: Vec<_> = (1..=15).flat_map(of).collect();
    all.extend((1..=15).map(|number| (END, number, None)));
    let saw = |writer, holder| (Deed::Get, 0, Some(Told::Saw(Some(writer), holder)));
    for number in 1..=15_u8 {
        let id = OpId::from(number) * 2;
        all.extend([saw(id, session(number)), saw(id + 1, None)]);
    }
    assert!(is_legal(&all));
    assert!(!is_legal(&[&all[..], &[saw(2, session(1))]].concat()), "that was long ago");
}

/// An operation of a random history: kind, session, begin, duration, whether it is answered, and
/// which answer is wrongly told.
type Draft = (u8, u8, u64, u64, bool, Option<Told>);

/// A history in which everything happened at its begin; some answers are wrong.
fn history(drafts: &[Draft]) -> Vec<LockOp> {
    let mut drafts = drafts.to_vec();
    drafts.sort_by_key(|draft| draft.2);
    let (mut lock, mut operations) = (Lock::default(), Vec::new());
    for (id, (kind, of, invoked, span, is_answered, wrong)) in (0..).zip(drafts) {
        let deed = match kind {
            0..=2 => Deed::Acquire(id),
            3 | 4 => Deed::Release(id),
            5 | 6 => Deed::End { deletes: of == 1, delays: of == 2 },
            7 => Deed::Renew,
            _ => Deed::Get,
        };
        let session = session(of).filter(|_| deed != Deed::Get);
        let op = |told| LockOp { deed, session, invoked, returned: Some((invoked + span, told)) };
        let answers = [Told::Done, Told::Unmet, Told::Gone, Told::Saw(lock.writer, lock.holder)];
        let fits = |told: &Told| op(*told).after(&lock).is_some();
        let Some(told) = answers.into_iter().find(fits) else { continue };
        let happened = op(told);
        if is_answered || span % 2 == 0 {
            lock = happened.after(&lock).unwrap_or(lock);
        }
        let told = op(wrong.unwrap_or(told));
        operations.push(LockOp { returned: told.returned.filter(|_| is_answered), ..told });
    }
    operations
}

fn any_draft() -> impl Strategy<Value = Draft> {
    let writer = proptest::option::of(0..7_u64);
    let holder = (0..4_u8).prop_map(|of| session(of).filter(|_| of > 0));
    let saw = (writer, holder).prop_map(|(writer, holder)| Told::Saw(writer, holder));
    let told = prop_oneof![Just(Told::Done), Just(Told::Unmet), Just(Told::Gone), saw];
    let wrong = prop_oneof![9 => Just(None), 1 => told.prop_map(Some)];
    (0..10_u8, 1..4_u8, 0..16_u64, 0..10_u64, proptest::bool::weighted(0.6), wrong)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn the_search_agrees_with_trying_every_order(
        drafts in proptest::collection::vec(any_draft(), 1..=8),
    ) {
        let operations = history(&drafts);
        let is_legal = linearizable(&operations) == Verdict::Legal;
        let is_ordered = some_order(&operations, &Lock::default(), &LockOp::after);
        prop_assert_eq!(is_legal, is_ordered, "{:?}", operations);
    }
}
