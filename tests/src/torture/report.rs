//! What a run was like, for people.

use super::history::{Judgement, Operation, Outcome};
use super::nemesis::Injected;
use std::fmt;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

/// All of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What clients did, by its begin.
    pub operations: Vec<Operation>,
    /// What befell the servers.
    pub injected: Vec<Injected>,
    /// Whether the answers fit together.
    pub judgement: Judgement,
    /// What the servers printed.
    pub logs: Vec<String>,
}

impl Report {
    /// For each fault, the longest time without a write that succeeded, from its begin to the next.
    pub fn gaps(&self) -> Vec<Duration> {
        let mut writes: Vec<Duration> =
            self.operations.iter().filter(|it| it.is_written()).map(|it| it.at).collect();
        writes.sort_unstable();
        let ends = self.injected.iter().skip(1).map(|it| it.began);
        let ends = ends.chain([Duration::MAX]);
        let gap = |(fault, end): (&Injected, Duration)| {
            let during = writes.iter().filter(|at| **at > fault.began && **at <= end);
            let mut last = fault.began;
            let gaps = during.map(|at| *at - std::mem::replace(&mut last, *at));
            gaps.max().unwrap_or(Duration::MAX)
        };
        self.injected.iter().zip(ends).map(gap).collect()
    }

    /// Writes faults, operations and logs to a file.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        let mut file = BufWriter::new(std::fs::File::create(path)?);
        for (key, facts) in &self.judgement.broken {
            writeln!(file, "broken: {key}: {facts}")?;
        }
        for fault in &self.injected {
            writeln!(file, "{fault}")?;
        }
        for operation in &self.operations {
            writeln!(file, "{operation}")?;
        }
        for line in &self.logs {
            writeln!(file, "{line}")?;
        }
        file.flush()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (fault, gap) in self.injected.iter().zip(self.gaps()) {
            writeln!(f, "{fault}  without a write for {:.2} s", gap.as_secs_f64())?;
        }
        let count = |wanted: fn(&Operation) -> bool| {
            self.operations.iter().filter(|operation| wanted(operation)).count()
        };
        let (all, faults) = (self.operations.len(), self.injected.len());
        let answered = count(|it| matches!(it.outcome, Outcome::Told(..)));
        let (written, open) =
            (count(Operation::is_written), count(|it| it.outcome == Outcome::Open));
        writeln!(
            f,
            "{all} operations: {answered} answered ({written} writes done), {open} open, {} not \
             done; {faults} faults",
            all - answered - open
        )?;
        let Judgement { keys, broken, undecided } = &self.judgement;
        for (key, facts) in broken {
            writeln!(f, "broken: {key}: {facts}")?;
        }
        let (broken, undecided) = (broken.len(), undecided.len());
        write!(f, "{keys} keys judged: {broken} broken, {undecided} undecided")
    }
}
