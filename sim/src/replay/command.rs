//! The command `sim replay`.

use super::{End, Options, Progress, origin, replay};
use crate::cli::{caught, ratio, usage};
use std::fs::File;
use std::process::ExitCode;
use std::time::Instant;
use terraform_core::recording::RELEASE;

/// `replay` with its file and the words behind it.
pub(crate) fn replay_command(path: &str, words: &[&str]) -> ExitCode {
    let mut options = Options::default();
    let mut rest = words;
    loop {
        rest = match rest {
            [] => break,
            ["--trace", rest @ ..] => {
                options.trace = true;
                rest
            }
            ["--until", number, rest @ ..] => {
                let Ok(number) = number.parse() else { return usage() };
                options.until = Some(number);
                rest
            }
            _ => return usage(),
        };
    }
    let mut progress = Progress::default();
    let started = Instant::now();
    let ended = caught(|| {
        let origin = origin(open(path)?).map_err(|error| error.to_string())?;
        let (name, datacenter) = (&origin.config.name, &origin.config.datacenter);
        println!("{path}: agent {name} of {datacenter}, release {}", origin.release);
        if origin.release != RELEASE {
            println!("this is release {RELEASE}, which may decide otherwise");
        }
        replay(open(path)?, &options, &mut progress).map_err(|error| error.to_string())
    });
    println!("{} inputs, {}", progress.inputs, ratio(progress.simulated(), started.elapsed()));
    match ended {
        Ok(Ok(end)) => say(end),
        Ok(Err(error)) => {
            println!("{error}");
            ExitCode::from(2)
        }
        Err(text) => {
            println!("panic at input {}: {text}\n  told: {}", progress.inputs, progress.told);
            ExitCode::from(13)
        }
    }
}

fn open(path: &str) -> Result<File, String> {
    File::open(path).map_err(|error| format!("cannot open {path}: {error}"))
}

fn say(end: End) -> ExitCode {
    match end {
        End::Same { torn, stopped, refused, state } => {
            if let Some(offset) = torn {
                println!("the recording breaks off within a record at byte {offset}");
            }
            if let Some(reason) = stopped {
                println!("the agent stopped: {reason:?}");
            }
            if let Some(rule) = refused {
                println!("the agent refused its disk: {rule}");
            }
            if let Some(state) = state {
                println!("{state}");
            }
            println!("same outputs");
            ExitCode::SUCCESS
        }
        End::Differs(difference) => {
            println!("X {difference}");
            ExitCode::from(10)
        }
    }
}
