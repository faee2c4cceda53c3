//! Following host names to addresses, for nodes and services that are registered with one
//! (dns.md §3, §10).
//!
//! A name inside the own zones is looked up in the catalog, with the family that was asked for; any
//! other is asked of the recursors. Bounded: names altogether, depth, and records for a client
//! without EDNS. Once no recursor answers none is asked again, since the client waits.
//!
//! Differs from Consul 1.8.7: an AAAA question is chased for AAAA, and what came of it fills what
//! the outer answer has room for (dns.md §14).

use super::found::Found;
use super::name::Name;
use super::record::{Data, Owner, Record};
use super::{Answer, Lookup, Plan, QueryType, Question, Zone};
use crate::rng::Rng;
use std::collections::BTreeSet;

/// How often a name may lead to the next one.
const DEPTH_MAX: u8 = 3;
/// Names that are followed for one question.
const NAMES_MAX: usize = 16;
/// Aliases of one reply that are followed.
const ALIASES_MAX: usize = 8;
/// Records added for a client without EDNS (dns.md §10).
const PLAIN_RECORDS_MAX: usize = 5;
/// Records added for any other.
const RECORDS_MAX: usize = 64;

/// Where the addresses go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind the alias that led to them.
    Answers,
    /// With the SRV records that name their hosts.
    Additional,
}

/// An answer whose host names are being followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chase {
    answer: Answer,
    place: Place,
    /// The time to live of what is added; `None` leaves each record its own.
    ttl: Option<u32>,
    qtype: QueryType,
    room: usize,
    /// The next one is the last.
    left: Vec<Target>,
    now: Option<Target>,
    known: BTreeSet<Name>,
    given_up: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    name: Name,
    kind: QueryType,
    depth: u8,
}

/// What a chase needs next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// What the catalog says: hand it to [`Chase::found`].
    Rows(Lookup),
    /// What the recursors say: hand it to [`Chase::heard`].
    Records(Name, QueryType),
    /// Nothing: [`Chase::into_answer`] has it all.
    Nothing,
}

impl Chase {
    pub(super) fn new(
        question: &Question<'_>,
        answer: Answer,
        (place, ttl): (Place, Option<u32>),
    ) -> Self {
        let asked = Name::from_labels(question.labels.iter().copied());
        Self {
            answer,
            place,
            ttl,
            qtype: question.qtype,
            room: if question.edns { RECORDS_MAX } else { PLAIN_RECORDS_MAX },
            left: Vec::new(),
            now: None,
            known: asked.map(|name| name.folded()).into_iter().collect(),
            given_up: false,
        }
    }

    /// The same, of an answer that depends on where the client is.
    pub(super) const fn for_subnet(mut self) -> Self {
        self.answer.for_subnet = true;
        self
    }

    /// Plans to follow `names`, in this order.
    pub(super) fn follow<'a>(
        mut self,
        zone: &Zone<'_>,
        names: impl DoubleEndedIterator<Item = &'a Name>,
    ) -> Self {
        for name in names.rev() {
            self.add(zone, name, 1);
        }
        self
    }

    fn add(&mut self, zone: &Zone<'_>, name: &Name, depth: u8) {
        if depth > DEPTH_MAX || self.known.len() >= NAMES_MAX || !self.known.insert(name.folded()) {
            return;
        }
        let kinds: &[QueryType] = if self.qtype == QueryType::A {
            &[QueryType::A]
        } else if self.qtype == QueryType::Aaaa {
            &[QueryType::Aaaa]
        } else if zone.holds(name) {
            &[QueryType::Any]
        } else {
            &[QueryType::Aaaa, QueryType::A]
        };
        let target = |kind: &QueryType| Target { name: name.clone(), kind: *kind, depth };
        self.left.extend(kinds.iter().map(target));
    }

    /// Goes on as far as nothing is needed from outside.
    pub fn next(&mut self, zone: &Zone<'_>) -> Need {
        while self.room > 0
            && let Some(target) = self.left.pop()
        {
            if !zone.holds(&target.name) {
                if self.given_up || zone.config.recursors.is_empty() {
                    continue;
                }
                let need = Need::Records(target.name.clone(), target.kind);
                self.now = Some(target);
                return need;
            }
            let plan = target.ask(|question| zone.plan(question));
            self.now = Some(target);
            match plan {
                Plan::Lookup(lookup) => return Need::Rows(lookup),
                Plan::Answer(answer) => self.take(zone, answer, &[]),
                // A prepared query behind a host name is not executed.
                Plan::Recurse | Plan::Chase(_) | Plan::Execute(_) => {}
            }
        }
        Need::Nothing
    }

    /// The answer with everything that was found.
    pub fn into_answer(self) -> Answer {
        self.answer
    }

    /// Takes what the catalog says to the lookup that was needed.
    pub fn found(&mut self, zone: &Zone<'_>, lookup: &Lookup, found: Found<'_>, rng: &mut Rng) {
        let Some(target) = &self.now else { return };
        match target.ask(|question| zone.answer(question, lookup, found, rng)) {
            Plan::Answer(answer) => self.take(zone, answer, &[]),
            Plan::Chase(chase) => {
                let next: Vec<Name> = chase.left.into_iter().map(|target| target.name).collect();
                self.take(zone, chase.answer, &next);
            }
            Plan::Lookup(_) | Plan::Recurse | Plan::Execute(_) => {}
        }
    }

    /// Takes the records of a recursor's reply; `None` if none replied.
    pub fn heard(&mut self, records: Option<Vec<Record>>) {
        let Some(target) = self.now.take() else { return };
        let Some(records) = records else {
            self.given_up = true;
            return;
        };
        // Only what the name leads to: a reply may hold anything.
        let mut chain = vec![target.name.folded()];
        let mut wanted = Vec::new();
        for _ in 0..ALIASES_MAX {
            let alias = records
                .iter()
                .find(|record| matches!(record.data, Data::Cname(_)) && record.is_of(chain.last()));
            let Some(Record { data: Data::Cname(next), .. }) = alias else { break };
            if chain.contains(&next.folded()) {
                break;
            }
            chain.push(next.folded());
            wanted.extend(alias.cloned());
        }
        let address = |record: &&Record| {
            matches!(record.data, Data::A(_) | Data::Aaaa(_)) && record.is_of(chain.last())
        };
        wanted.extend(records.iter().filter(address).cloned());
        self.append(wanted);
    }

    /// Takes the answer about the current name, and the names it leads to.
    fn take(&mut self, zone: &Zone<'_>, answer: Answer, next: &[Name]) {
        let Some(target) = self.now.take() else { return };
        let records = answer.answers.into_iter().filter_map(|record| {
            let useful = matches!(record.data, Data::A(_) | Data::Aaaa(_) | Data::Cname(_));
            useful.then(|| Record { owner: record.owner.or(&target.name), ..record })
        });
        self.append(records.collect());
        for name in next.iter().rev() {
            self.add(zone, name, target.depth + 1);
        }
    }

    fn append(&mut self, records: Vec<Record>) {
        let list = match self.place {
            Place::Answers => &mut self.answer.answers,
            Place::Additional => &mut self.answer.additional,
        };
        for mut record in records {
            record.ttl = self.ttl.unwrap_or(record.ttl);
            if self.room > 0 && !list.contains(&record) {
                self.room -= 1;
                list.push(record);
            }
        }
    }
}

impl Target {
    /// Hands the question about this name to `then`.
    fn ask<T>(&self, then: impl FnOnce(&Question<'_>) -> T) -> T {
        let labels: Vec<&str> = self.name.labels().collect();
        then(&Question { labels: &labels, qtype: self.kind, room: RECORDS_MAX, edns: true })
    }
}

impl Owner {
    /// This owner where the question was about `asked`.
    fn or(self, asked: &Name) -> Self {
        match self {
            Self::Question => Self::Name(asked.clone()),
            Self::Name(name) => Self::Name(name),
        }
    }
}

impl Record {
    /// Whether it belongs to `name`, which is in lower case.
    fn is_of(&self, name: Option<&Name>) -> bool {
        match (&self.owner, name) {
            (Owner::Name(owner), Some(name)) => owner.as_str().eq_ignore_ascii_case(name.as_str()),
            (Owner::Name(_) | Owner::Question, _) => false,
        }
    }
}
