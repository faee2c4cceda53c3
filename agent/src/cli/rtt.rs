//! `terraform rtt`.

use super::Exit;
use super::flags;
use super::transport::{Rpc, Target, target};
use argh::{ArgsInfo, FromArgs};
use std::time::Duration;
use terraform_core::coordinate::{Coordinate, DIMENSIONS};
use terraform_core::wire::ipc::{Body, Command, CoordinateReply, Stats};

/// Estimates the round trip between two members from their network coordinates.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// the RPC address of the agent (127.0.0.1:8400)
    #[argh(option, arg_name = "address")]
    rpc_addr: Option<String>,
    /// one or two members; the second is the agent itself if it is not named
    #[argh(positional)]
    node: Vec<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    let arguments: Arguments = match flags::parse("rtt", words) {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    let (first, second) = match arguments.node.as_slice() {
        [first] => (first, None),
        [first, second] => (first, Some(second)),
        _ => {
            let help = flags::help("rtt", &Arguments::get_args_info());
            return Exit::failure(format!("One or two node names must be specified\n\n{help}"));
        }
    };
    // HTTP has no coordinates yet, so its variables do not apply here.
    let address = match target(arguments.rpc_addr, None) {
        Target::Rpc(address) => address,
        Target::Http(_) => "127.0.0.1:8400".to_owned(),
    };
    match estimate(&address, first, second) {
        Ok(text) => Exit::success(text),
        Err(error) => Exit::failure(format!("{error}\n")),
    }
}

fn estimate(address: &str, first: &str, second: Option<&String>) -> Result<String, String> {
    let failed = |error: String| format!("Error getting coordinates: {error}");
    let mut rpc = Rpc::connect(address)?;
    let second = match second {
        Some(second) => second.clone(),
        None => match rpc.call(Command::Stats).map_err(failed)?.body {
            Some(Body::Stats(stats)) => own_name(&stats).map_err(failed)?,
            _ => return Err(failed("the agent answered without figures".to_owned())),
        },
    };
    let (here, there) = (coordinate(&mut rpc, first)?, coordinate(&mut rpc, &second)?);
    Ok(shown(first, &second, here.distance(&there)))
}

fn own_name(stats: &Stats) -> Result<String, String> {
    let name = stats.get("agent").and_then(|agent| agent.get("name")).cloned();
    name.ok_or_else(|| "the agent does not tell its name".to_owned())
}

fn coordinate(rpc: &mut Rpc, node: &str) -> Result<Coordinate, String> {
    let failed = |error: String| format!("Error getting coordinates: {error}");
    let asked = Command::GetCoordinate { node: node.to_owned() };
    let Some(Body::Coordinate(reply)) = rpc.call(asked).map_err(failed)?.body else {
        return Err(failed("the agent answered without a coordinate".to_owned()));
    };
    if !reply.ok {
        return Err(format!("Could not find a coordinate for node \"{node}\""));
    }
    read(&reply).ok_or_else(|| failed(format!("the coordinate of {node} is unusable")))
}

fn read(reply: &CoordinateReply) -> Option<Coordinate> {
    let at = &reply.coordinate;
    let numbers = at.position.iter().flatten().map(|number| f64::from_bits(number.0));
    let position: [f64; DIMENSIONS] = numbers.collect::<Vec<_>>().try_into().ok()?;
    let [error, height, adjustment] =
        [&at.error, &at.height, &at.adjustment].map(|number| f64::from_bits(number.0));
    Coordinate::new(position, error, height, adjustment)
}

fn shown(first: &str, second: &str, round_trip: Duration) -> String {
    let millis = round_trip.as_secs_f64() * 1000.0;
    format!("Estimated {first} <-> {second} rtt: {millis:.3} ms (using LAN coordinates)\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_at_one_place_are_apart_by_the_minimum() {
        let distance = Coordinate::ORIGIN.distance(&Coordinate::ORIGIN);
        let expected = "Estimated a <-> b rtt: 0.020 ms (using LAN coordinates)\n";
        assert_eq!(shown("a", "b", distance), expected);
    }

    #[test]
    fn one_or_two_members_are_named() {
        for count in [0, 3] {
            let exit = run(&vec!["a".to_owned(); count]);
            assert!(exit.stderr.starts_with("One or two node names must be specified\n"));
            assert_eq!(exit.code, 1);
        }
    }
}
