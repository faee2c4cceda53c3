//! Which claim about a member wins: alive, suspect, dead and left against what is known.
//!
//! Implements gossip-protocol.md §6, §7 and §8 (SWIM §4.2) as pure functions. Only its owner raises
//! an incarnation; at equal incarnations suspect beats alive and dead beats both, and dead or left
//! end only with a strictly newer alive.
//!
//! Differs: newer news of the end of a member that is known to be gone raises its incarnation, so
//! that what was alive in between does not bring it back (gossip-protocol.md §27); and claims that
//! jump far ahead of what is known are refused, so that one forged message cannot use up a member's
//! incarnations; who comes near their end all the same begins a new epoch at 1, which is newer than
//! what is near the end (gossip-protocol.md §28, overflow). A member that does not know of epochs
//! believes it once it has forgotten the old record.

use crate::id::Incarnation;
use crate::wire::gossip::PeerState;

/// How far a claim may be ahead of the incarnation known. A member that refutes once a second for
/// the 72 hours for which Serf remembers it stays far below this.
pub(super) const INCARNATION_JUMP_MAX: u32 = 1 << 20;

/// The highest incarnation believed of a member not known yet; leaves room for refutations.
const INCARNATION_FIRST_MAX: u32 = u32::MAX - INCARNATION_JUMP_MAX;

/// From here on the first incarnations are newer. Half of all, so that even somebody who missed
/// many jumps of a member towards the end believes its new epoch.
const EPOCH_END: u32 = 1 << 31;

/// How old a claim is, beside what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    Older,
    Same,
    Newer,
    /// Ahead by more than is believed.
    TooFar,
}

/// Whether `incoming` is of the epoch after that of `known`.
const fn is_next_epoch(known: Incarnation, incoming: Incarnation) -> bool {
    known.get() >= EPOCH_END && incoming.get() <= INCARNATION_JUMP_MAX
}

fn age(known: Incarnation, incoming: Incarnation) -> Age {
    if is_next_epoch(known, incoming) {
        return Age::Newer;
    }
    match incoming.get().checked_sub(known.get()) {
        None => Age::Older,
        Some(0) => Age::Same,
        Some(ahead) if ahead > INCARNATION_JUMP_MAX => Age::TooFar,
        Some(_) => Age::Newer,
    }
}

/// Whether `incoming` is ahead of `known`, believable or not.
pub(super) fn is_newer(known: Incarnation, incoming: Incarnation) -> bool {
    matches!(age(known, incoming), Age::Newer | Age::TooFar)
}

/// The incarnation after `last`: the first one, if none is left that a stranger would believe.
pub(super) fn successor(last: Incarnation) -> Incarnation {
    let next = last.next();
    if next.get() > INCARNATION_FIRST_MAX { Incarnation::ZERO.next() } else { next }
}

/// The word for people.
pub(super) const fn word(state: PeerState) -> &'static str {
    match state {
        PeerState::Alive => "alive",
        PeerState::Suspect => "suspect",
        PeerState::Dead => "dead",
        PeerState::Left => "left",
    }
}

/// Whether a member in this state counts as gone.
pub(super) const fn is_gone(state: PeerState) -> bool {
    matches!(state, PeerState::Dead | PeerState::Left)
}

/// What a message claims of a member at some incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is alive.
    Alive,
    /// Somebody got no answer from it.
    Suspect,
    /// Somebody's suspicion ran out.
    Dead,
    /// It said itself that it leaves.
    Left,
}

/// What is known of a member before a claim is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// Its state.
    pub(super) state: PeerState,
    /// Its last accepted incarnation.
    pub(super) incarnation: Incarnation,
    /// Whether an alive claim names the address known; true for other claims.
    pub(super) same_address: bool,
    /// Whether another address may take its name should the member be dead: it is dead for long
    /// enough, or its identity is there.
    pub(super) reclaimable: bool,
}

/// What becomes of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing changes.
    Ignore,
    /// The member takes the claimed state and incarnation.
    Accept,
    /// One more accuser of a suspect; its incarnation stays.
    Confirm,
    /// A gone member takes the claimed incarnation; its state stays.
    Raise,
    /// Another address claims the name.
    Conflict,
    /// The incarnation is too far ahead to be believed.
    TooFar,
}

/// Judges a claim about another member.
pub(super) fn judge(known: Option<Known>, claim: Claim, incoming: Incarnation) -> Verdict {
    let Some(known) = known else {
        return match claim {
            Claim::Alive if incoming.get() > INCARNATION_FIRST_MAX => Verdict::TooFar,
            Claim::Alive => Verdict::Accept,
            Claim::Suspect | Claim::Dead | Claim::Left => Verdict::Ignore,
        };
    };
    if claim == Claim::Alive && !known.same_address {
        let free = match known.state {
            PeerState::Left => true,
            PeerState::Dead => known.reclaimable,
            PeerState::Alive | PeerState::Suspect => false,
        };
        if !free {
            return Verdict::Conflict;
        }
        let believable = incoming.get() <= INCARNATION_FIRST_MAX;
        return if believable { Verdict::Accept } else { Verdict::TooFar };
    }
    let age = age(known.incarnation, incoming);
    if age == Age::TooFar {
        return Verdict::TooFar;
    }
    let newer = age == Age::Newer || (crate::mutant!(M45) && age == Age::Older);
    let as_new = age != Age::Older;
    match (claim, known.state) {
        (Claim::Alive, _) if newer => Verdict::Accept,
        (Claim::Suspect, PeerState::Alive) if as_new => Verdict::Accept,
        (Claim::Suspect, PeerState::Suspect) if as_new => Verdict::Confirm,
        (Claim::Dead | Claim::Left, PeerState::Alive | PeerState::Suspect) if as_new => {
            Verdict::Accept
        }
        (Claim::Dead | Claim::Left, PeerState::Dead | PeerState::Left) if newer => Verdict::Raise,
        (
            Claim::Alive | Claim::Suspect | Claim::Dead | Claim::Left,
            PeerState::Alive | PeerState::Suspect | PeerState::Dead | PeerState::Left,
        ) => Verdict::Ignore,
    }
}

/// What becomes of a claim about this member itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SelfVerdict {
    /// Nothing changes.
    Ignore,
    /// It is wrong: announce a higher incarnation.
    Refute,
    /// The incarnation is too far ahead to be believed.
    TooFar,
}

/// Judges a claim about this member, whose own incarnation is `own`; `same` tells whether an alive
/// claim carries its own meta and versions.
pub(super) fn judge_self(
    own: Incarnation,
    leaving: bool,
    claim: Claim,
    incoming: Incarnation,
    same: bool,
) -> SelfVerdict {
    match (age(own, incoming), claim) {
        _ if leaving => SelfVerdict::Ignore,
        (Age::Older, _) => SelfVerdict::Ignore,
        (Age::TooFar, _) => SelfVerdict::TooFar,
        (Age::Same, Claim::Alive) if same => SelfVerdict::Ignore,
        (Age::Same | Age::Newer, _) => SelfVerdict::Refute,
    }
}

/// The incarnation that refutes an accusation at `accused` (gossip-protocol.md §7).
pub(super) fn refutation(own: Incarnation, accused: Incarnation) -> Incarnation {
    let last = if is_next_epoch(own, accused) { accused } else { own.max(accused) };
    successor(last)
}

#[cfg(test)]
mod tests {
    use super::super::tests::state_rules;
    use super::*;
    use proptest::prelude::*;

    fn parse_state(text: &str) -> Option<PeerState> {
        [PeerState::Alive, PeerState::Suspect, PeerState::Dead, PeerState::Left]
            .into_iter()
            .find(|state| word(*state) == text)
    }

    fn parse_claim(text: &str) -> Claim {
        match text {
            "alive" => Claim::Alive,
            "suspect" => Claim::Suspect,
            "dead" => Claim::Dead,
            "left" => Claim::Left,
            other => panic!("unknown claim {other}"),
        }
    }

    const fn state_of(claim: Claim) -> PeerState {
        match claim {
            Claim::Alive => PeerState::Alive,
            Claim::Suspect => PeerState::Suspect,
            Claim::Dead => PeerState::Dead,
            Claim::Left => PeerState::Left,
        }
    }

    type Belief = Option<(PeerState, u32)>;

    /// The belief after a claim, as the machine applies the verdict.
    fn after(belief: Belief, same_address: bool, claim: Claim, incoming: u32) -> Belief {
        let known = belief.map(|(state, incarnation)| Known {
            state,
            incarnation: Incarnation::new(incarnation),
            same_address,
            reclaimable: false,
        });
        match judge(known, claim, Incarnation::new(incoming)) {
            Verdict::Accept => Some((state_of(claim), incoming)),
            Verdict::Raise => belief.map(|(state, _)| (state, incoming)),
            Verdict::Ignore | Verdict::Confirm | Verdict::Conflict | Verdict::TooFar => belief,
        }
    }

    fn number(row: &serde_json::Value, key: &str) -> u32 {
        u32::try_from(row[key].as_u64().unwrap_or(0)).unwrap()
    }

    fn belief(row: &serde_json::Value, state: &str, incarnation: &str) -> Belief {
        parse_state(row[state].as_str().unwrap()).map(|state| (state, number(row, incarnation)))
    }

    /// The recorded result, but for the remedy of gossip-protocol.md §28: a gone member whose end
    /// is told again keeps the highest incarnation, where the peer keeps the first.
    fn remedied(row: &serde_json::Value, claim: Claim) -> Belief {
        let recorded = belief(row, "result", "result_inc");
        let gone = row["local"] == "dead" || row["local"] == "left";
        if gone && matches!(claim, Claim::Dead | Claim::Left) {
            return recorded.map(|(state, known)| (state, known.max(number(row, "inc"))));
        }
        recorded
    }

    #[test]
    fn claims_about_others_win_and_lose_as_recorded() {
        for row in state_rules()["precedence"].as_array().unwrap() {
            let claim = parse_claim(row["incoming"].as_str().unwrap());
            let got = after(belief(row, "local", "local_inc"), true, claim, number(row, "inc"));
            assert_eq!(got, remedied(row, claim), "{row}");
        }
    }

    #[test]
    fn claims_of_another_address_win_and_lose_as_recorded() {
        for row in state_rules()["address"].as_array().unwrap() {
            let before = belief(row, "local", "local_inc");
            let got = after(before, false, Claim::Alive, number(row, "incoming_inc"));
            assert_eq!(got, belief(row, "result", "result_inc"), "{row}");
        }
    }

    #[test]
    fn exchanged_records_win_and_lose_as_recorded() {
        for row in state_rules()["pushpull"].as_array().unwrap() {
            let remote = parse_state(row["remote"].as_str().unwrap()).unwrap();
            let claim = super::super::push_pull::claim_of(remote);
            let got = after(belief(row, "local", "local_inc"), true, claim, number(row, "inc"));
            assert_eq!(got, remedied(row, claim), "{row}");
        }
    }

    #[test]
    fn claims_about_oneself_are_refuted_as_recorded() {
        for row in state_rules()["self"].as_array().unwrap() {
            let own = Incarnation::new(number(row, "own_inc_before"));
            let text = row["message"].as_str().unwrap();
            let mut words = text.split(' ').filter(|word| *word != "From=self" && *word != "inc");
            let claim = parse_claim(words.next().unwrap());
            let incoming = match words.next().unwrap() {
                "lower" => own.get() - 1,
                "equal" => own.get(),
                more => own.get() + more.trim_start_matches('+').parse::<u32>().unwrap(),
            };
            let same = !text.ends_with("other meta");
            let incoming = Incarnation::new(incoming);
            let result = match judge_self(own, false, claim, incoming, same) {
                SelfVerdict::Ignore | SelfVerdict::TooFar => own,
                SelfVerdict::Refute => refutation(own, incoming),
            };
            assert_eq!(result.get(), number(row, "own_inc_after"), "{row}");
        }
    }

    #[test]
    fn a_name_is_taken_from_a_member_dead_for_long_enough() {
        let known = Known {
            state: PeerState::Dead,
            incarnation: Incarnation::new(5),
            same_address: false,
            reclaimable: true,
        };
        assert_eq!(judge(Some(known), Claim::Alive, Incarnation::new(1)), Verdict::Accept);
    }

    #[test]
    fn one_forged_claim_cannot_use_up_the_incarnations() {
        let top = Incarnation::new(u32::MAX);
        let known = Known {
            state: PeerState::Alive,
            incarnation: Incarnation::new(1),
            same_address: true,
            reclaimable: false,
        };
        assert_eq!(judge(Some(known), Claim::Suspect, top), Verdict::TooFar);
        assert_eq!(judge(None, Claim::Alive, top), Verdict::TooFar);
        let own = Incarnation::new(1);
        assert_eq!(judge_self(own, false, Claim::Dead, top, true), SelfVerdict::TooFar);
    }

    /// Walks a member to the end of its incarnations by forged accusations that only it hears.
    #[test]
    fn after_the_last_incarnation_a_new_epoch_is_believed() {
        let held = |incarnation| Known {
            state: PeerState::Dead,
            incarnation,
            same_address: true,
            reclaimable: false,
        };
        for last in [
            INCARNATION_FIRST_MAX - INCARNATION_JUMP_MAX,
            INCARNATION_FIRST_MAX - 1,
            INCARNATION_FIRST_MAX,
        ] {
            let own = Incarnation::new(last);
            let accused = Incarnation::new(last + INCARNATION_JUMP_MAX);
            assert_eq!(judge_self(own, false, Claim::Dead, accused, true), SelfVerdict::Refute);
            let next = refutation(own, accused);
            assert_eq!(next, Incarnation::new(1));
            for known in [Incarnation::new(EPOCH_END), own, accused] {
                assert_eq!(judge(Some(held(known)), Claim::Alive, next), Verdict::Accept);
            }
            // What is left of the old epoch changes nothing any more.
            for old in [own, accused] {
                assert_eq!(judge(Some(held(next)), Claim::Alive, old), Verdict::TooFar);
                assert_eq!(judge_self(next, false, Claim::Dead, old, true), SelfVerdict::TooFar);
            }
            // Nor can the next epoch be forged while the member is in the old one.
            assert_eq!(judge_self(own, false, Claim::Suspect, next, true), SelfVerdict::Refute);
            assert_eq!(refutation(own, next), Incarnation::new(2));
        }
        let early = held(Incarnation::new(EPOCH_END - 1));
        assert_eq!(judge(Some(early), Claim::Alive, Incarnation::new(1)), Verdict::Ignore);
    }

    #[test]
    fn a_leaving_member_refutes_nothing() {
        let own = Incarnation::new(3);
        for claim in [Claim::Alive, Claim::Suspect, Claim::Dead, Claim::Left] {
            let verdict = judge_self(own, true, claim, Incarnation::new(9), false);
            assert_eq!(verdict, SelfVerdict::Ignore);
        }
    }

    fn any_claim() -> impl Strategy<Value = (Claim, u32)> {
        let claims = vec![Claim::Alive, Claim::Suspect, Claim::Dead, Claim::Left];
        (prop::sample::select(claims), 1u32..6)
    }

    proptest! {
        #[test]
        fn an_incarnation_never_falls(claims in prop::collection::vec(any_claim(), 0..40)) {
            let mut held: Belief = None;
            for (claim, incarnation) in claims {
                let next = after(held, true, claim, incarnation);
                prop_assert!(held.map(|(_, inc)| inc) <= next.map(|(_, inc)| inc));
                held = next;
            }
        }

        #[test]
        fn hearing_a_claim_twice_changes_nothing(
            claims in prop::collection::vec(any_claim(), 0..20), last in any_claim(),
        ) {
            let held = claims.into_iter().fold(None, |b, (c, i)| after(b, true, c, i));
            let once = after(held, true, last.0, last.1);
            prop_assert_eq!(after(once, true, last.0, last.1), once);
        }
    }
}
