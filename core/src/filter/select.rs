//! What the rows have: the selectors of each kind of row.
//!
//! - Source: http-api.md §2 for the names; indexes, `Definition` and `ContentHash` are not
//!   selectable.

use super::FilterError;
use super::compile::{Judge, Test};
use super::parse::{Match, Operator};
use crate::catalog::model::{Check, Node, Service, ServiceAddress};
use crate::catalog::overview::NodeOverview;
use crate::catalog::query::{Instance, ServiceNode};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A kind of row that filters are for.
pub trait Row: Sized + 'static {
    /// The test of a match whose selector has `path` left.
    #[doc(hidden)]
    fn test(path: &[&str], wanted: &Match) -> Result<Test<Self>, FilterError>;
}

type Tested<R> = Result<Test<R>, FilterError>;

impl Row for Node {
    fn test(path: &[&str], wanted: &Match) -> Tested<Self> {
        let [name, rest @ ..] = path else { return Err(wanted.misused()) };
        match *name {
            "ID" => text(rest, wanted, |node: &Self, _| {
                node.id.map(|id| id.to_string()).unwrap_or_default().into()
            }),
            "Node" => text(rest, wanted, |node: &Self, _| node.name.as_str().into()),
            "Address" => text(rest, wanted, |node: &Self, _| node.address.as_str().into()),
            "Datacenter" => text(rest, wanted, |_: &Self, own| own.into()),
            "TaggedAddresses" => map(rest, wanted, |node: &Self| &node.tagged_addresses, entry),
            "Meta" => map(rest, wanted, |node: &Self| &node.meta, entry),
            _ => Err(wanted.unknown(path)),
        }
    }
}

impl Row for Service {
    fn test(path: &[&str], wanted: &Match) -> Tested<Self> {
        let [name, rest @ ..] = path else { return Err(wanted.misused()) };
        match *name {
            "Kind" => text(rest, wanted, |_: &Self, _| "".into()),
            "ID" => text(rest, wanted, |service: &Self, _| service.id.as_str().into()),
            "Service" => text(rest, wanted, |service: &Self, _| service.name.as_str().into()),
            "Tags" => texts(rest, wanted, |service: &Self| &service.tags),
            "Address" => text(rest, wanted, |service: &Self, _| service.address.as_str().into()),
            "TaggedAddresses" => {
                map(rest, wanted, |service: &Self| &service.tagged_addresses, address)
            }
            "Meta" => map(rest, wanted, |service: &Self| &service.meta, entry),
            "Port" => number(rest, wanted, |service: &Self| service.port),
            "Weights" => match rest {
                ["Passing", rest @ ..] => {
                    number(rest, wanted, |service: &Self| service.weights.passing)
                }
                ["Warning", rest @ ..] => {
                    number(rest, wanted, |service: &Self| service.weights.warning)
                }
                [] => Err(wanted.misused()),
                [..] => Err(wanted.unknown(rest)),
            },
            "EnableTagOverride" => flag(rest, wanted, |service: &Self| service.enable_tag_override),
            "Proxy" => proxy(rest, wanted),
            "Connect" => match rest {
                ["Native", rest @ ..] => flag(rest, wanted, |_: &Self| false),
                [] => Err(wanted.misused()),
                [..] => Err(wanted.unknown(rest)),
            },
            _ => Err(wanted.unknown(path)),
        }
    }
}

impl Row for Check {
    fn test(path: &[&str], wanted: &Match) -> Tested<Self> {
        let [name, rest @ ..] = path else { return Err(wanted.misused()) };
        match *name {
            "Node" => text(rest, wanted, |check: &Self, _| check.node.as_str().into()),
            "CheckID" => text(rest, wanted, |check: &Self, _| check.id.as_str().into()),
            "Name" => text(rest, wanted, |check: &Self, _| check.name.as_str().into()),
            "Status" => text(rest, wanted, |check: &Self, _| check.status.as_str().into()),
            "Notes" => text(rest, wanted, |check: &Self, _| check.notes.as_str().into()),
            "Output" => text(rest, wanted, |check: &Self, _| check.output.as_str().into()),
            "ServiceID" => text(rest, wanted, |check: &Self, _| {
                check.service_id.as_ref().map_or("", |id| id.as_str()).into()
            }),
            "ServiceName" => {
                text(rest, wanted, |check: &Self, _| check.service_name.as_str().into())
            }
            "ServiceTags" => texts(rest, wanted, |check: &Self| &check.service_tags),
            "Type" => text(rest, wanted, |check: &Self, _| check.kind.as_str().into()),
            _ => Err(wanted.unknown(path)),
        }
    }
}

/// A service flattened with its node: its own names begin with `Service`, but for its own name.
impl Row for ServiceNode {
    fn test(path: &[&str], wanted: &Match) -> Tested<Self> {
        let [name, rest @ ..] = path else { return Err(wanted.misused()) };
        let with = |name| [&[name], rest].concat();
        let of_node = |name| {
            let test = Node::test(&with(name), wanted)?;
            let lifted: Test<Self> = Box::new(move |row, own| test(&row.node, own));
            Ok(lifted)
        };
        let of_service = |name| {
            let test = Service::test(&with(name), wanted)?;
            let lifted: Test<Self> = Box::new(move |row, own| test(&row.service, own));
            Ok(lifted)
        };
        match *name {
            "NodeMeta" => of_node("Meta"),
            "ID" | "Node" | "Address" | "Datacenter" | "TaggedAddresses" => of_node(name),
            "ServiceName" => of_service("Service"),
            _ => match name.strip_prefix("Service") {
                Some(name) if !name.is_empty() && name != "Service" => of_service(name),
                Some(_) | None => Err(wanted.unknown(path)),
            },
        }
    }
}

/// An instance with its node and its checks, of which any one may be as wanted.
impl Row for Instance {
    fn test(path: &[&str], wanted: &Match) -> Tested<Self> {
        Ok(match path {
            ["Node", rest @ ..] => {
                let test = Node::test(rest, wanted)?;
                Box::new(move |row: &Self, own| test(&row.node, own))
            }
            ["Service", rest @ ..] => {
                let test = Service::test(rest, wanted)?;
                Box::new(move |row: &Self, own| test(&row.service, own))
            }
            ["Checks"] => {
                wanted.only(&[Operator::Empty])?;
                let negated = wanted.negated;
                Box::new(move |row: &Self, _| row.checks.is_empty() != negated)
            }
            ["Checks", rest @ ..] => {
                let test = Check::test(rest, wanted)?;
                Box::new(move |row: &Self, own| row.checks.iter().any(|check| test(check, own)))
            }
            [] => return Err(wanted.misused()),
            [..] => return Err(wanted.unknown(path)),
        })
    }
}

/// A node with everything on it; of services and checks any one may be as wanted.
impl Row for NodeOverview {
    fn test(path: &[&str], wanted: &Match) -> Tested<Self> {
        let negated = wanted.negated;
        Ok(match path {
            ["Services"] => {
                wanted.only(&[Operator::Empty])?;
                Box::new(move |row: &Self, _| row.services.is_empty() != negated)
            }
            ["Checks"] => {
                wanted.only(&[Operator::Empty])?;
                Box::new(move |row: &Self, _| row.checks.is_empty() != negated)
            }
            ["Services", rest @ ..] => {
                let test = Service::test(rest, wanted)?;
                Box::new(move |row: &Self, own| row.services.iter().any(|it| test(it, own)))
            }
            ["Checks", rest @ ..] => {
                let test = Check::test(rest, wanted)?;
                Box::new(move |row: &Self, own| row.checks.iter().any(|it| test(it, own)))
            }
            ["ID" | "Node" | "Address" | "TaggedAddresses" | "Meta", ..] => {
                let test = Node::test(path, wanted)?;
                Box::new(move |row: &Self, own| test(&row.node, own))
            }
            [] => return Err(wanted.misused()),
            [..] => return Err(wanted.unknown(path)),
        })
    }
}

fn text<R: 'static>(
    rest: &[&str],
    wanted: &Match,
    read: for<'a> fn(&'a R, &'a str) -> Cow<'a, str>,
) -> Tested<R> {
    wanted.ends(rest)?;
    let judge = wanted.on_text()?;
    Ok(Box::new(move |row, own| judge(&read(row, own))))
}

fn number<R: 'static>(rest: &[&str], wanted: &Match, read: fn(&R) -> i64) -> Tested<R> {
    wanted.ends(rest)?;
    let judge = wanted.on_number()?;
    Ok(Box::new(move |row, _| judge(&read(row))))
}

fn flag<R: 'static>(rest: &[&str], wanted: &Match, read: fn(&R) -> bool) -> Tested<R> {
    wanted.ends(rest)?;
    let judge = wanted.on_flag()?;
    Ok(Box::new(move |row, _| judge(&read(row))))
}

fn texts<R: 'static>(rest: &[&str], wanted: &Match, read: fn(&R) -> &[String]) -> Tested<R> {
    wanted.ends(rest)?;
    let judge = wanted.on_texts()?;
    Ok(Box::new(move |row, _| judge(read(row))))
}

/// A map: its keys, or what stands at one, as `at_key` reads it.
fn map<R: 'static, V: 'static>(
    rest: &[&str],
    wanted: &Match,
    read: fn(&R) -> &BTreeMap<String, V>,
    at_key: fn(&[&str], &Match) -> Result<Judge<V>, FilterError>,
) -> Tested<R> {
    let negated = wanted.negated;
    let [key, rest @ ..] = rest else {
        wanted.only(&[Operator::In, Operator::Empty])?;
        if wanted.operator == Operator::Empty {
            return Ok(Box::new(move |row, _| read(row).is_empty() != negated));
        }
        let key = wanted.value.clone();
        return Ok(Box::new(move |row, _| read(row).contains_key(&key) != negated));
    };
    let (key, judge, missing) = ((*key).to_owned(), at_key(rest, wanted)?, wanted.of_missing());
    Ok(Box::new(move |row, _| read(row).get(&key).map_or(missing, &judge)))
}

fn entry(rest: &[&str], wanted: &Match) -> Result<Judge<String>, FilterError> {
    wanted.ends(rest)?;
    let judge = wanted.on_text()?;
    Ok(Box::new(move |value: &String| judge(value)))
}

fn address(rest: &[&str], wanted: &Match) -> Result<Judge<ServiceAddress>, FilterError> {
    Ok(match rest {
        ["Address", rest @ ..] => {
            wanted.ends(rest)?;
            let judge = wanted.on_text()?;
            Box::new(move |at: &ServiceAddress| judge(&at.address))
        }
        ["Port", rest @ ..] => {
            wanted.ends(rest)?;
            let judge = wanted.on_number()?;
            Box::new(move |at: &ServiceAddress| judge(&at.port))
        }
        [] => return Err(wanted.misused()),
        [..] => return Err(wanted.unknown(rest)),
    })
}

/// `Proxy` of a service that is none: all of it is empty.
fn proxy(path: &[&str], wanted: &Match) -> Tested<Service> {
    match path {
        ["DestinationServiceName" | "DestinationServiceID" | "LocalServiceAddress", rest @ ..]
        | ["MeshGateway", "Mode", rest @ ..] => text(rest, wanted, |_, _| "".into()),
        ["LocalServicePort", rest @ ..] => number(rest, wanted, |_| 0),
        ["Expose", "Checks", rest @ ..] => flag(rest, wanted, |_| false),
        ["Upstreams"] | ["Expose", "Paths"] => {
            wanted.only(&[Operator::Empty])?;
            let is_wanted = !wanted.negated;
            Ok(Box::new(move |_, _| is_wanted))
        }
        [] | ["MeshGateway" | "Expose"] => Err(wanted.misused()),
        ["MeshGateway" | "Expose", rest @ ..] => Err(wanted.unknown(rest)),
        [..] => Err(wanted.unknown(path)),
    }
}
