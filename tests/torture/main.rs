//! Real servers under load and faults: `cargo run -p e2e --bin torture -- --seconds 60 --seed 1`.
//!
//! Ends with 1 if what clients were told contradicts itself, and leaves the history, the servers'
//! logs and their folders; with 2 if it was not judged.

use e2e::torture::{Fault, Settings, run};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    torture().unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::from(2)
    })
}

fn torture() -> Result<ExitCode, String> {
    let flags = e2e::Flags::parse(std::env::args().skip(1), &["seconds", "seed", "clients"])?;
    if let Some(word) = flags.words.first() {
        return Err(format!("{word} is not a flag"));
    }
    let clients = flags.number("clients", 9)?;
    let seed = flags.number("seed", 1)?;
    let settings = Settings {
        seed,
        clients: usize::try_from(clients).map_err(|error| error.to_string())?,
        length: Duration::from_secs(flags.number("seconds", 60)?),
        faults: Fault::ALL.to_vec(),
    };
    let report = run(&settings);
    println!("{report}");
    if !report.judgement.broken.is_empty() {
        let path = std::env::temp_dir().join(format!("torture-{seed}-{}", std::process::id()));
        report.save(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("the history is in {}", path.display());
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::from(if report.judgement.undecided.is_empty() { 0 } else { 2 }))
}
