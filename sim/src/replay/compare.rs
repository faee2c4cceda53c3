//! The first thing that a replayed node wants otherwise, and after which input.

use super::{End, Told};
use std::fmt;
use terraform_core::node::output::Output;
use terraform_core::recording::{Drain, OutputDigest};
use terraform_core::time::Instant;

/// Characters that are shown of an input or output.
const SHOWN_MAX: usize = 300;

/// Where a replay leaves its recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The input after which it does, its time and what it was; `None` for the start.
    pub input: Option<(u64, Instant, String)>,
    /// What was recorded: the kind of the output and its checksum.
    pub recorded: String,
    /// What is wanted instead.
    pub replayed: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.input {
            Some((number, at, what)) => {
                writeln!(f, "outputs differ after input {number} at {at:?}: {what}")?;
            }
            None => writeln!(f, "outputs differ at the start, before the first input")?,
        }
        write!(f, "  recorded: {}\n  replayed: {}", self.recorded, self.replayed)
    }
}

impl Difference {
    /// Recovery wants something else than it did.
    pub(super) fn recovery(replayed: String) -> End {
        let (recorded, replayed) = ("another step of recovery".to_owned(), cut(replayed));
        End::Differs(Box::new(Self { input: None, recorded, replayed }))
    }
}

/// The beginning of a long text.
pub(super) fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(SHOWN_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The view of a drain, if it has one, and the outputs that waited.
fn parts(outputs: &[OutputDigest]) -> (Option<OutputDigest>, &[OutputDigest]) {
    match outputs {
        [view, rest @ ..] if view.kind() == "Publish" => (Some(*view), rest),
        rest => (None, rest),
    }
}

/// The first difference between what was recorded and what is wanted now, which `outputs` has in
/// full, after the inputs `told`, or after the one `before` if there are none.
pub(super) fn compare(
    recorded: &Drain,
    (replayed, outputs): (&Drain, &[Output]),
    told: &[Told],
    before: Option<&Told>,
) -> Option<Difference> {
    if recorded == replayed {
        return None;
    }
    let (old_view, old) = parts(&recorded.outputs);
    let (new_view, new) = parts(&replayed.outputs);
    let views = usize::from(new_view.is_some());
    let shown = |at: Option<usize>| {
        let output = at.and_then(|at| outputs.get(at));
        output.map_or_else(|| "nothing".to_owned(), |output| cut(format!("{output:?}")))
    };
    let known = |digest: Option<OutputDigest>| {
        digest.map_or_else(|| "nothing".to_owned(), |digest| format!("{digest:?}"))
    };
    let difference = |place: usize, recorded: Option<OutputDigest>, at: Option<usize>| {
        let input = told.get(place).or(before);
        let input = input.map(|told| (told.number, told.at, told.what.clone()));
        Some(Difference { input, recorded: known(recorded), replayed: shown(at) })
    };
    let mut from = 0;
    for place in 0..told.len().max(1) {
        let end = |drain: &Drain, all: usize| drain.waiting.get(place).copied().unwrap_or(all);
        let (old_end, new_end) = (end(recorded, old.len()), end(replayed, new.len()));
        let wanted = |all: &[OutputDigest], at: usize, end: usize| {
            (at < end).then(|| all.get(at).copied()).flatten()
        };
        for at in from..old_end.max(new_end) {
            let (old, new) = (wanted(old, at, old_end), wanted(new, at, new_end));
            if old != new {
                return difference(place, old, new.map(|_| at + views));
            }
        }
        from = new_end;
    }
    // Everything that waited is the same: what readers are shown is not, or the recording was made
    // of other inputs than it says.
    let last = told.len().saturating_sub(1);
    difference(last, old_view, new_view.map(|_| 0))
}
