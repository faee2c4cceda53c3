//! Recorded histories, and random ones against trying every order.

use super::*;
use proptest::prelude::*;

fn op(deed: Deed, invoked: u64, returned: u64, told: Told) -> KeyOp {
    KeyOp { deed, invoked, returned: Some((returned, told)) }
}

fn open(deed: Deed, invoked: u64) -> KeyOp {
    KeyOp { deed, invoked, returned: None }
}

fn is_legal(operations: &[KeyOp]) -> bool {
    match linearizable(operations) {
        Verdict::Legal => true,
        Verdict::Illegal(_) => false,
        Verdict::Undecided => panic!("a short history can be judged"),
    }
}

#[test]
fn a_read_may_not_show_what_was_overwritten_before_it_began() {
    let writes = [op(Deed::Put(1), 1, 2, Told::Done), op(Deed::Put(2), 3, 6, Told::Done)];
    let read = |from, seen| [writes[0], writes[1], op(Deed::Get, from, 8, Told::Saw(Some(seen)))];
    assert!(is_legal(&read(7, 2)));
    assert!(is_legal(&read(5, 1)), "the second write was still on its way");
    assert!(!is_legal(&read(7, 1)), "a stale read");
}

#[test]
fn an_acknowledged_write_may_not_get_lost() {
    let put = op(Deed::Put(1), 1, 2, Told::Done);
    assert!(!is_legal(&[put, op(Deed::Get, 3, 4, Told::Saw(None))]));
    let deleted = op(Deed::Delete, 2, 9, Told::Done);
    assert!(is_legal(&[put, deleted, op(Deed::Get, 3, 4, Told::Saw(None))]));
}

#[test]
fn two_writes_on_one_condition_are_not_both_done() {
    let put = op(Deed::Put(1), 1, 2, Told::Done);
    let cas = |value, told| op(Deed::Cas(Some(1), value), 3, 9, told);
    assert!(is_legal(&[put, cas(2, Told::Done), cas(3, Told::Unmet)]));
    assert!(!is_legal(&[put, cas(2, Told::Done), cas(3, Told::Done)]));
    assert!(!is_legal(&[put, cas(2, Told::Unmet), cas(3, Told::Unmet)]), "one must be met");
}

#[test]
fn an_open_write_takes_effect_once_or_never() {
    let put = op(Deed::Put(1), 1, 2, Told::Done);
    let lost = open(Deed::Put(2), 3);
    let saw = |at, value| op(Deed::Get, at, at + 1, Told::Saw(Some(value)));
    assert!(is_legal(&[put, lost, saw(4, 1), saw(8, 1)]));
    assert!(is_legal(&[put, lost, saw(4, 1), saw(8, 2)]));
    assert!(!is_legal(&[put, lost, saw(4, 2), saw(8, 1)]));
    let later = open(Deed::Put(2), 9);
    assert!(!is_legal(&[put, later, saw(4, 2)]), "it had not begun");
}

#[test]
fn open_writes_may_build_on_each_other() {
    let chain = [open(Deed::Put(1), 1), open(Deed::Cas(Some(1), 2), 2), open(Deed::Delete, 3)];
    let saw = |at, value| op(Deed::Get, at, at + 1, Told::Saw(value));
    let with = |reads: &[KeyOp]| [&chain, reads].concat();
    assert!(is_legal(&with(&[saw(4, None), saw(6, Some(2)), saw(8, None)])));
    assert!(!is_legal(&with(&[saw(4, Some(2)), saw(6, Some(1))])));
}

#[test]
fn a_conditional_deletion_of_a_missing_key_is_done() {
    let delete = |told| op(Deed::DeleteCas(Some(7)), 1, 2, told);
    assert!(is_legal(&[delete(Told::Done)]));
    assert!(!is_legal(&[delete(Told::Unmet)]));
}

#[test]
fn a_history_that_is_too_long_is_left_undecided() {
    let get = |at: u64| op(Deed::Get, 2 * at, 2 * at + 1, Told::Saw(None));
    let long: Vec<KeyOp> = (0..OPERATIONS_MAX as u64 + 1).map(get).collect();
    assert_eq!(linearizable(&long), Verdict::Undecided);
    assert_eq!(linearizable(&long[1..]), Verdict::Legal);
}

/// Any number of writes at one time may have come before a value that nobody wrote.
#[test]
fn a_search_that_takes_too_much_is_left_undecided() {
    let puts = |number: u64| (0..number).map(|value| op(Deed::Put(value), 1, 2, Told::Done));
    let read = op(Deed::Get, 3, 4, Told::Saw(None));
    let with_read = |number| puts(number).chain([read]).collect::<Vec<_>>();
    assert!(!is_legal(&with_read(8)));
    assert_eq!(linearizable(&with_read(40)), Verdict::Undecided);
}

/// What a deed makes of a value, and what its client is told; written apart from the search.
fn run(deed: Deed, value: Value) -> (Value, Told) {
    match deed {
        Deed::Get => (value, Told::Saw(value)),
        Deed::Put(new) => (Some(new), Told::Done),
        Deed::Cas(wanted, new) if wanted == value => (Some(new), Told::Done),
        Deed::Delete => (None, Told::Done),
        Deed::DeleteCas(wanted) if value.is_none() || wanted == value => (None, Told::Done),
        Deed::Cas(..) | Deed::DeleteCas(_) => (value, Told::Unmet),
    }
}

/// Whether some order of the answered operations and of any of the open ones explains everything;
/// `step` is what a thing is after an operation that fits.
pub(crate) fn some_order<O: Operation>(
    left: &[O],
    state: &O::State,
    step: &impl Fn(&O, &O::State) -> Option<O::State>,
) -> bool {
    if left.iter().all(|operation| operation.span().1.is_none()) {
        return true;
    }
    (0..left.len()).any(|at| {
        let mut rest = left.to_vec();
        let next = rest.remove(at);
        let is_too_early =
            rest.iter().any(|other| other.span().1.is_some_and(|end| end < next.span().0));
        !is_too_early && step(&next, state).is_some_and(|after| some_order(&rest, &after, step))
    })
}

/// By [`run`], without the search's own rules.
fn has_order(operations: &[KeyOp]) -> bool {
    some_order(operations, &None, &|operation, value| {
        let (after, told) = run(operation.deed, *value);
        operation.returned.is_none_or(|(_, answer)| answer == told).then_some(after)
    })
}

/// An operation of a random history: kind, condition, begin, duration, when within it happens,
/// whether it is answered, and what it is wrongly told to have seen.
type Draft = (u8, Option<u64>, u64, u64, u64, bool, Option<Value>);

/// A history in which everything happened at one moment; some answers are wrong.
fn history(drafts: &[Draft]) -> Vec<KeyOp> {
    let mut moments: Vec<(u64, usize)> = Vec::new();
    for (at, (_, _, begin, span, within, ..)) in drafts.iter().enumerate() {
        moments.push((begin + within.min(span), at));
    }
    moments.sort_unstable();
    let (mut value, mut operations) = (None, Vec::new());
    for (_, at) in moments {
        let (kind, condition, invoked, span, within, is_answered, wrong) = drafts[at];
        let new = at as u64;
        let deed = match kind {
            0 | 1 => Deed::Get,
            2 => Deed::Put(new),
            3 | 4 => Deed::Cas(condition, new),
            5 => Deed::Delete,
            _ => Deed::DeleteCas(condition),
        };
        let (after, told) = run(deed, value);
        if is_answered || within % 2 == 0 {
            value = after;
        }
        let told = match (wrong, told) {
            (Some(seen), Told::Saw(_)) => Told::Saw(seen),
            (Some(_), Told::Unmet) => Told::Done,
            (Some(None), Told::Done) => Told::Unmet,
            (_, told) => told,
        };
        let returned = is_answered.then_some((invoked + span, told));
        operations.push(KeyOp { deed, invoked, returned });
    }
    operations
}

fn any_draft() -> impl Strategy<Value = Draft> {
    let value = || prop_oneof![2 => (0..7_u64).prop_map(Some), 1 => Just(None)];
    let wrong = prop_oneof![9 => Just(None), 1 => value().prop_map(Some)];
    (0..7_u8, value(), 0..16_u64, 0..10_u64, 0..10_u64, proptest::bool::weighted(0.8), wrong)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_search_agrees_with_trying_every_order(
        drafts in proptest::collection::vec(any_draft(), 1..=7),
    ) {
        let operations = history(&drafts);
        prop_assert_eq!(is_legal(&operations), has_order(&operations), "{:?}", operations);
    }
}
