//! `terraform members`.

use super::Exit;
use super::client::{self, Client, Way};
use super::transport::Rpc;
use crate::output::table;
use argh::{ArgsInfo, FromArgs};
use regex::{Regex, RegexBuilder};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use terraform_core::wire::ipc::{Body, Command};

/// Lists the members of a cluster as this agent knows them through gossip, and for how long those
/// that are not alive have been so.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// print all tags and protocol versions, as a table
    #[argh(option, arg_name = "bool")]
    detailed: Option<bool>,
    /// only members whose role tag matches
    #[argh(option, arg_name = "regexp")]
    role: Option<String>,
    /// only members whose status matches
    #[argh(option, arg_name = "regexp")]
    status: Option<String>,
    /// the members of the WAN pool, the servers of all datacenters
    #[argh(option, arg_name = "bool")]
    wan: Option<bool>,
}

/// One member as either interface tells of it.
struct Row {
    name: String,
    address: String,
    status: String,
    tags: BTreeMap<String, String>,
    protocol: String,
    /// For how many seconds it has not been alive, as far as that is known.
    gone: Option<u64>,
}

pub(super) fn run(words: &[String]) -> Exit {
    match try_run(words) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn try_run(words: &[String]) -> Result<Exit, Exit> {
    let (arguments, agent) = client::parse_either::<Arguments>("members", words)?;
    let status = pattern("status", arguments.status.as_deref())?;
    let role = pattern("role", arguments.role.as_deref())?;
    let wan = arguments.wan.unwrap_or(false);
    let rows = agent.way().and_then(|way| match way {
        Way::Rpc(address) => over_rpc(&address, wan),
        Way::Http(client) => over_http(&client, wan),
    });
    let role_of = |row: &Row| row.tags.get("role").cloned().unwrap_or_default();
    let mut rows: Vec<Row> = rows
        .map_err(failure)?
        .into_iter()
        .filter(|row| status.is_match(&row.status) && role.is_match(&role_of(row)))
        .collect();
    if rows.is_empty() {
        return Err(Exit { code: 2, ..Exit::default() });
    }
    rows.sort_by(|a, b| {
        (&role_of(a) != "terraform", &a.name).cmp(&(&role_of(b) != "terraform", &b.name))
    });
    let detailed = arguments.detailed.unwrap_or(false);
    Ok(Exit::success(if detailed { detailed_table(&rows) } else { plain(&rows) }))
}

fn failure(text: String) -> Exit {
    Exit::failure(format!("{text}\n"))
}

/// An anchored pattern; none matches everything.
fn pattern(flag: &str, text: Option<&str>) -> Result<Regex, Exit> {
    let text = text.unwrap_or(".*");
    RegexBuilder::new(&format!("^(?:{text})$"))
        .size_limit(1 << 20)
        .build()
        .map_err(|error| Exit::failure(format!("Failed to compile {flag} regexp: {error}\n")))
}

fn over_rpc(address: &str, wan: bool) -> Result<Vec<Row>, String> {
    let mut rpc = Rpc::connect(address)?;
    let command = if wan { Command::MembersWan } else { Command::MembersLan };
    let response =
        rpc.call(command).map_err(|error| format!("Error retrieving members: {error}"))?;
    let Some(Body::Members(members)) = response.body else {
        return Err("Error retrieving members: the agent answered without members".to_owned());
    };
    let row = |member: terraform_core::wire::ipc::Member| Row {
        name: member.name,
        address: shown(member.address, member.port),
        status: member.status,
        tags: member.tags,
        protocol: member.protocol.to_string(),
        gone: member.gone_seconds,
    };
    Ok(members.into_iter().map(row).collect())
}

fn shown(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

fn over_http(client: &Client, wan: bool) -> Result<Vec<Row>, String> {
    let path = if wan { "/v1/agent/members?wan=1" } else { "/v1/agent/members" };
    let failed = |error: String| format!("Error retrieving members: {error}");
    let value = client.get(path, &[]).map_err(failed)?;
    let Some(members) = value.as_array() else { return Ok(Vec::new()) };
    Ok(members.iter().map(http_row).collect())
}

fn http_row(member: &Value) -> Row {
    let text = |key: &str| member.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |key: &str| member.get(key).and_then(Value::as_u64).unwrap_or_default();
    let tags = member.get("Tags").and_then(Value::as_object);
    let tag = |(key, value): (&String, &Value)| {
        (key.clone(), value.as_str().unwrap_or_default().to_owned())
    };
    let status = match number("Status") {
        1 => "alive",
        2 => "leaving",
        3 => "left",
        4 => "failed",
        _ => "none",
    };
    let port = u16::try_from(number("Port")).unwrap_or(0);
    let address = text("Addr");
    let address =
        address.parse().map_or_else(|_| format!("{address}:{port}"), |ip| shown(ip, port));
    Row {
        name: text("Name"),
        address,
        status: status.to_owned(),
        tags: tags.map(|tags| tags.iter().map(tag).collect()).unwrap_or_default(),
        protocol: number("ProtocolCur").to_string(),
        gone: member.get("GoneSeconds").and_then(Value::as_u64),
    }
}

/// For how long a member has been gone, in its two largest units.
fn gone(row: &Row) -> Option<String> {
    let seconds = row.gone?;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    Some(match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{}m", minutes % 60),
        (_, _, _) => format!("{days}d{}h", hours % 24),
    })
}

/// The founding page's line: four columns, and the tags up to bootstrap or expect in its order. A
/// member that is not alive has a fifth: for how long.
fn plain(rows: &[Row]) -> String {
    const SHOWN: [&str; 8] =
        ["role", "dc", "vsn", "vsn_min", "vsn_max", "port", "bootstrap", "expect"];
    let lines = rows.iter().map(|row| {
        let tags: Vec<String> = SHOWN
            .iter()
            .filter_map(|key| row.tags.get(*key).map(|value| format!("{key}={value}")))
            .collect();
        let mut line = vec![row.name.clone(), row.address.clone(), row.status.clone()];
        line.push(tags.join(","));
        line.extend(gone(row).map(|span| format!("for {span}")));
        line
    });
    table(lines)
}

fn detailed_table(rows: &[Row]) -> String {
    let head = ["Node", "Address", "Status", "Protocol", "For", "Tags"].map(str::to_owned).to_vec();
    let lines = rows.iter().map(|row| {
        let tags: Vec<String> = row.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let (name, address) = (row.name.clone(), row.address.clone());
        let span = gone(row).unwrap_or_else(|| "-".to_owned());
        vec![name, address, row.status.clone(), row.protocol.clone(), span, tags.join(",")]
    });
    table(std::iter::once(head).chain(lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_line_is_the_founding_pages() {
        let tags = [
            ("bootstrap", "1"),
            ("build", "1.8.7"),
            ("dc", "dc1"),
            ("port", "8300"),
            ("role", "terraform"),
            ("vsn", "1"),
            ("vsn_max", "1"),
            ("vsn_min", "1"),
        ];
        let row = Row {
            name: "Armons-MacBook-Air".to_owned(),
            address: "10.1.10.38:8301".to_owned(),
            status: "alive".to_owned(),
            tags: tags.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            protocol: "2".to_owned(),
            gone: None,
        };
        let expected = "Armons-MacBook-Air  10.1.10.38:8301  alive  role=terraform,dc=dc1,vsn=1,\
                        vsn_min=1,vsn_max=1,port=8300,bootstrap=1\n";
        assert_eq!(plain(&[row]), expected);
    }

    #[test]
    fn a_member_that_is_gone_tells_for_how_long() {
        let row = |name: &str, status: &str, gone| Row {
            name: name.to_owned(),
            address: "10.0.0.1:8301".to_owned(),
            status: status.to_owned(),
            tags: [("role".to_owned(), "node".to_owned())].into(),
            protocol: "2".to_owned(),
            gone,
        };
        let rows = [row("a", "alive", None), row("b", "failed", Some(3_725))];
        let expected = "a  10.0.0.1:8301  alive   role=node\n\
                        b  10.0.0.1:8301  failed  role=node  for 1h2m\n";
        assert_eq!(plain(&rows), expected);
        let detailed = detailed_table(&rows);
        assert!(detailed.contains("failed  2         1h2m  role=node\n"), "{detailed}");
        assert!(detailed.contains("alive   2         -     role=node\n"), "{detailed}");
        let spans = [59, 61, 86_399, 90_000].map(|gone| super::gone(&row("", "", Some(gone))));
        assert_eq!(spans.map(Option::unwrap), ["59s", "1m1s", "23h59m", "1d1h"]);
    }
}
