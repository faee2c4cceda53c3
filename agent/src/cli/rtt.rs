//! `terraform rtt`.

use super::Exit;
use super::client::{self, Agent, Client, Way};
use super::transport::Rpc;
use argh::{ArgsInfo, FromArgs};
use serde_json::Value;
use std::time::Duration;
use terraform_core::coordinate::{Coordinate, DIMENSIONS};
use terraform_core::wire::ipc::{Body, Command, CoordinateReply, Stats};

/// Estimates the round trip between two members from their network coordinates.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// between servers of the WAN pool, named NODE.DATACENTER; always asked over HTTP
    #[argh(option, arg_name = "bool")]
    wan: Option<bool>,
    /// one or two members; the second is the agent itself if it is not named
    #[argh(positional)]
    node: Vec<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    let (arguments, agent) = match client::parse_either::<Arguments>("rtt", words) {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let (first, second) = match arguments.node.as_slice() {
        [first] => (first, None),
        [first, second] => (first, Some(second)),
        _ => {
            let help = client::help_either::<Arguments>("rtt");
            return Exit::failure(format!("One or two node names must be specified\n\n{help}"));
        }
    };
    let wan = arguments.wan.unwrap_or(false);
    if wan && arguments.node.iter().any(|name| !name.contains('.')) {
        let rule = "Node names must be specified as <node name>.<datacenter> with -wan\n";
        return Exit::failure(rule);
    }
    match estimate(agent, wan, first, second) {
        Ok(text) => Exit::success(text),
        Err(error) => Exit::failure(format!("{error}\n")),
    }
}

fn estimate(
    agent: Agent,
    wan: bool,
    first: &str,
    second: Option<&String>,
) -> Result<String, String> {
    let way = if wan { Way::Http(agent.over_http()?) } else { agent.way()? };
    match way {
        Way::Rpc(address) => over_rpc(&address, first, second),
        Way::Http(client) => over_http(&client, wan, first, second),
    }
}

fn failed(error: String) -> String {
    format!("Error getting coordinates: {error}")
}

fn over_rpc(address: &str, first: &str, second: Option<&String>) -> Result<String, String> {
    let mut rpc = Rpc::connect(address)?;
    let second = match second {
        Some(second) => second.clone(),
        None => match rpc.call(Command::Stats).map_err(failed)?.body {
            Some(Body::Stats(stats)) => own_name(&stats).map_err(failed)?,
            _ => return Err(failed("the agent answered without figures".to_owned())),
        },
    };
    let (here, there) = (coordinate(&mut rpc, first)?, coordinate(&mut rpc, &second)?);
    Ok(shown("LAN", first, &second, here.distance(&there)))
}

fn over_http(
    client: &Client,
    wan: bool,
    first: &str,
    second: Option<&String>,
) -> Result<String, String> {
    let get = |path: &str| client.get(path, &[]).map_err(failed);
    let second = match second {
        Some(second) => second.clone(),
        None => {
            let own = get("/v1/agent/self")?;
            let config = own.get("Config");
            let text = |key: &str| config.and_then(|config| config.get(key)?.as_str());
            let (name, datacenter) = (text("NodeName"), text("Datacenter"));
            let unnamed = || failed("the agent does not tell its name".to_owned());
            let (name, datacenter) = name.zip(datacenter).ok_or_else(unnamed)?;
            if wan { format!("{name}.{datacenter}") } else { name.to_owned() }
        }
    };
    let path = if wan { "/v1/coordinate/datacenters" } else { "/v1/coordinate/nodes" };
    let known = get(path)?;
    let place = |name: &str| {
        let found = if wan { in_datacenters(&known, name) } else { in_rows(&known, name) };
        found.ok_or_else(|| format!("Could not find a coordinate for node \"{name}\""))
    };
    let round_trip = place(first)?.distance(&place(&second)?);
    Ok(shown(if wan { "WAN" } else { "LAN" }, first, &second, round_trip))
}

/// The coordinate of the server `name`, which ends in its datacenter.
fn in_datacenters(known: &Value, name: &str) -> Option<Coordinate> {
    known.as_array()?.iter().find_map(|area| {
        let node = name.strip_suffix(area.get("Datacenter")?.as_str()?)?.strip_suffix('.')?;
        in_rows(area.get("Coordinates")?, node)
    })
}

fn in_rows(rows: &Value, name: &str) -> Option<Coordinate> {
    let named = |row: &&Value| row.get("Node").and_then(Value::as_str) == Some(name);
    let at = rows.as_array()?.iter().find(named)?.get("Coord")?;
    let position = at.get("Vec")?.as_array()?.iter().map(Value::as_f64);
    let position: [f64; DIMENSIONS] = position.collect::<Option<Vec<_>>>()?.try_into().ok()?;
    let number = |key: &str| at.get(key)?.as_f64();
    Coordinate::new(position, number("Error")?, number("Height")?, number("Adjustment")?)
}

fn own_name(stats: &Stats) -> Result<String, String> {
    let name = stats.get("agent").and_then(|agent| agent.get("name")).cloned();
    name.ok_or_else(|| "the agent does not tell its name".to_owned())
}

fn coordinate(rpc: &mut Rpc, node: &str) -> Result<Coordinate, String> {
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

fn shown(pool: &str, first: &str, second: &str, round_trip: Duration) -> String {
    let millis = round_trip.as_secs_f64() * 1000.0;
    format!("Estimated {first} <-> {second} rtt: {millis:.3} ms (using {pool} coordinates)\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_at_one_place_are_apart_by_the_minimum() {
        let distance = Coordinate::ORIGIN.distance(&Coordinate::ORIGIN);
        let expected = "Estimated a <-> b rtt: 0.020 ms (using LAN coordinates)\n";
        assert_eq!(shown("LAN", "a", "b", distance), expected);
    }

    #[test]
    fn servers_are_found_under_their_datacenter() {
        let row = |node: &str, height: f64| {
            let at = serde_json::json!({
                "Vec": [0, 0, 0, 0, 0, 0, 0, 0], "Error": 0.5, "Height": height, "Adjustment": 0,
            });
            serde_json::json!({ "Node": node, "Segment": "", "Coord": at })
        };
        let known = serde_json::json!([
            { "Datacenter": "dc1", "AreaID": "wan", "Coordinates": [row("a", 0.001)] },
            { "Datacenter": "x.dc1", "AreaID": "wan", "Coordinates": [row("a", 0.002)] },
        ]);
        let height = |name: &str| in_datacenters(&known, name).map(|at| at.height());
        assert_eq!(height("a.dc1"), Some(0.001));
        assert_eq!(height("a.x.dc1"), Some(0.002));
        assert_eq!([height("a"), height("b.dc1"), height("a.dc2")], [None; 3]);
        let words = ["-wan", "a"].map(str::to_owned);
        let rule = "Node names must be specified as <node name>.<datacenter> with -wan\n";
        assert_eq!(run(&words).stderr, rule);
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
