//! The functions of templates.

use super::Value;
use super::networks::{is_forwardable, is_of_rfc, is_special};
use ipnet::IpNet;
use regex::Regex;
use std::cmp::Ordering;
use std::net::IpAddr;
use terraform_io::interfaces::InterfaceAddress;

type Addresses = Vec<InterfaceAddress>;

/// Functions and words of the language that Consul has and this program does not.
const UNBUILT: &[&str] = &[
    "and", "block", "break", "call", "define", "else", "end", "env", "eq", "ge", "gt", "html",
    "if", "index", "js", "le", "len", "lt", "math", "ne", "not", "or", "print", "printf",
    "println", "range", "slice", "template", "urlquery", "with",
];

/// Calls the function `name`; `all` are the machine's addresses.
pub(super) fn call(
    name: &str,
    arguments: Vec<Value>,
    all: &[InterfaceAddress],
) -> Result<Value, String> {
    let mut given = Arguments { name, given: arguments.len(), values: arguments.into_iter() };
    match name {
        "GetAllInterfaces" => given.none(Value::Addresses(all.to_vec())),
        "GetDefaultInterfaces" => {
            given.none(Value::Addresses(chosen(all.to_vec(), |one| one.is_default)))
        }
        "GetPrivateInterfaces" => given.none(Value::Addresses(outgoing(all, true))),
        "GetPublicInterfaces" => given.none(Value::Addresses(outgoing(all, false))),
        "GetPrivateIP" => given.none(first(&outgoing(all, true))),
        "GetPublicIP" => given.none(first(&outgoing(all, false))),
        "GetPrivateIPs" => given.none(each(&by_size(outgoing(all, true)))),
        "GetPublicIPs" => given.none(each(&by_size(outgoing(all, false)))),
        "GetInterfaceIP" => {
            let named = select("name", &given.only_text()?, all.to_vec(), true)?;
            Ok(first(&by_size(chosen(named, |one| is_forwardable(one.address)))))
        }
        "GetInterfaceIPs" => {
            let named = select("name", &given.only_text()?, all.to_vec(), true)?;
            Ok(each(&by_size(named)))
        }
        "include" | "exclude" => {
            given.expect(3)?;
            let (what, value) = (given.text()?, given.text()?);
            let found = select(&what, &value, given.addresses()?, name == "include")?;
            Ok(Value::Addresses(found))
        }
        "sort" => {
            given.expect(2)?;
            let keys = given.text()?;
            sorted(&keys, given.addresses()?).map(Value::Addresses)
        }
        "limit" => {
            given.expect(2)?;
            let count = given.number()?;
            let mut found = given.addresses()?;
            found.truncate(usize::try_from(count).map_err(|_| "limit cannot be negative")?);
            Ok(Value::Addresses(found))
        }
        "offset" => {
            given.expect(2)?;
            let count = given.number()?;
            offset(count, given.addresses()?).map(Value::Addresses)
        }
        "unique" => {
            given.expect(2)?;
            let what = given.text()?;
            unique(&what, given.addresses()?).map(Value::Addresses)
        }
        "attr" => {
            given.expect(2)?;
            let what = given.text()?;
            let found = given.addresses()?;
            let text = found.first().map(|one| attribute(&what, one)).transpose()?;
            Ok(Value::Text(text.unwrap_or_default()))
        }
        "join" => {
            given.expect(3)?;
            let (what, between) = (given.text()?, given.text()?);
            let found = given.addresses()?;
            let texts: Result<Vec<_>, _> = found.iter().map(|one| attribute(&what, one)).collect();
            Ok(Value::Text(texts?.join(&between)))
        }
        _ if UNBUILT.contains(&name) => Err(format!("function \"{name}\" is not built yet")),
        _ => Err(format!("function \"{name}\" not defined")),
    }
}

/// What a function is called with, first to last.
struct Arguments<'a> {
    name: &'a str,
    given: usize,
    values: std::vec::IntoIter<Value>,
}

impl Arguments<'_> {
    fn expect(&self, wanted: usize) -> Result<(), String> {
        let Self { name, given, .. } = self;
        if *given == wanted {
            return Ok(());
        }
        Err(format!("wrong number of args for {name}: want {wanted} got {given}"))
    }

    /// The value of a function without arguments.
    fn none(&self, value: Value) -> Result<Value, String> {
        self.expect(0).map(|()| value)
    }

    fn only_text(&mut self) -> Result<String, String> {
        self.expect(1)?;
        self.text()
    }

    fn text(&mut self) -> Result<String, String> {
        match self.values.next() {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(format!("{} wants a quoted string", self.name)),
        }
    }

    fn number(&mut self) -> Result<i64, String> {
        match self.values.next() {
            Some(Value::Number(number)) => Ok(number),
            _ => Err(format!("{} wants a number", self.name)),
        }
    }

    fn addresses(&mut self) -> Result<Addresses, String> {
        match self.values.next() {
            Some(Value::Addresses(addresses)) => Ok(addresses),
            _ => Err(format!("{} wants interfaces", self.name)),
        }
    }
}

fn chosen(mut all: Addresses, wanted: impl Fn(&InterfaceAddress) -> bool) -> Addresses {
    all.retain(wanted);
    all
}

/// Addresses that other machines reach, private or public ones, the likeliest first.
fn outgoing(all: &[InterfaceAddress], private: bool) -> Addresses {
    let mut found = chosen(all.to_vec(), |one| {
        one.is_up && is_forwardable(one.address) && is_special(one.address) == private
    });
    found.sort_by_key(|one| (!one.is_default, one.address.is_ipv6(), one.prefix));
    found
}

/// IPv4 first, large networks first.
fn by_size(mut found: Addresses) -> Addresses {
    found.sort_by_key(|one| (one.address.is_ipv6(), one.prefix));
    found
}

fn first(found: &[InterfaceAddress]) -> Value {
    Value::Text(found.first().map(|one| one.address.to_string()).unwrap_or_default())
}

fn each(found: &[InterfaceAddress]) -> Value {
    let texts: Vec<String> = found.iter().map(|one| one.address.to_string()).collect();
    Value::Text(texts.join(" "))
}

/// Those that are as said, or those that are not.
fn select(what: &str, value: &str, all: Addresses, wanted: bool) -> Result<Addresses, String> {
    let fits = selector(what, value)?;
    Ok(chosen(all, |one| fits(one) == wanted))
}

type Fits = Box<dyn Fn(&InterfaceAddress) -> bool>;

fn selector(what: &str, value: &str) -> Result<Fits, String> {
    let pattern = |what: &str| {
        Regex::new(value).map_err(|_| format!("Unable to compile {what} regexp {value:?}"))
    };
    Ok(match what.to_ascii_lowercase().as_str() {
        "address" => {
            let pattern = pattern("address")?;
            Box::new(move |one| pattern.is_match(&one.address.to_string()))
        }
        "name" => {
            let pattern = pattern("name")?;
            Box::new(move |one| pattern.is_match(&one.name))
        }
        "flag" | "flags" => {
            let flags: Result<Vec<_>, _> = value.split('|').map(flag).collect();
            let flags = flags?;
            Box::new(move |one| flags.iter().all(|has| has(one)))
        }
        "network" => {
            let network = |text: &str| {
                text.parse::<IpNet>().map_err(|_| format!("{text:?} is not a network"))
            };
            let networks: Result<Vec<_>, _> = value.split('|').map(network).collect();
            let networks = networks?;
            Box::new(move |one| networks.iter().any(|network| network.contains(&one.address)))
        }
        "rfc" | "rfcs" => {
            let rfcs: Vec<String> = value.split('|').map(str::to_owned).collect();
            for rfc in &rfcs {
                let known = is_of_rfc(IpAddr::from([0, 0, 0, 0]), rfc);
                known.ok_or_else(|| format!("unsupported RFC {rfc}"))?;
            }
            Box::new(move |one| rfcs.iter().any(|rfc| is_of_rfc(one.address, rfc) == Some(true)))
        }
        "size" => {
            let prefix: u8 = value.parse().map_err(|_| format!("invalid size ({value:?})"))?;
            Box::new(move |one| one.prefix == prefix)
        }
        "type" => {
            let kinds: Result<Vec<_>, _> = value.split('|').map(kind).collect();
            let kinds = kinds?;
            Box::new(move |one| kinds.iter().any(|is| is(one.address)))
        }
        _ => return Err(format!("selector {what:?} is not known")),
    })
}

fn kind(name: &str) -> Result<fn(IpAddr) -> bool, String> {
    match name.to_ascii_lowercase().as_str() {
        "ip" => Ok(|_| true),
        "ipv4" => Ok(|address| address.is_ipv4()),
        "ipv6" => Ok(|address| address.is_ipv6()),
        _ => Err(format!("unsupported type {name:?}")),
    }
}

fn flag(name: &str) -> Result<fn(&InterfaceAddress) -> bool, String> {
    match name {
        "broadcast" => Ok(|one| one.is_broadcast),
        "down" => Ok(|one| !one.is_up),
        "forwardable" => Ok(|one| is_forwardable(one.address)),
        "loopback" => Ok(|one| one.is_loopback),
        "multicast" => Ok(|one| one.is_multicast),
        "point-to-point" => Ok(|one| one.is_point_to_point),
        "up" => Ok(|one| one.is_up),
        _ => Err(format!("Unknown interface flag: {name:?}")),
    }
}

/// Sorts by keys with commas between them, each with `-` in front if the other way round.
fn sorted(keys: &str, mut found: Addresses) -> Result<Addresses, String> {
    type Compare = fn(&InterfaceAddress, &InterfaceAddress) -> Ordering;
    let mut steps: Vec<(Compare, bool)> = Vec::new();
    for key in keys.split(',') {
        let key = key.trim();
        let (name, down) = match key.strip_prefix('-') {
            Some(name) => (name, true),
            None => (key.strip_prefix('+').unwrap_or(key), false),
        };
        let compare: Compare = match name {
            "address" => |a, b| a.address.cmp(&b.address),
            "default" => |a, b| b.is_default.cmp(&a.is_default),
            "name" => |a, b| a.name.cmp(&b.name),
            "type" => |a, b| a.address.is_ipv6().cmp(&b.address.is_ipv6()),
            "size" => {
                // Networks of one family alone are compared, whichever way.
                steps.push((|a, b| a.address.is_ipv6().cmp(&b.address.is_ipv6()), false));
                |a, b| a.prefix.cmp(&b.prefix)
            }
            _ => return Err(format!("unknown sort type: {name:?}")),
        };
        steps.push((compare, down));
    }
    found.sort_by(|a, b| {
        let step = |(compare, down): &(Compare, bool)| {
            if *down { compare(b, a) } else { compare(a, b) }
        };
        steps.iter().map(step).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    });
    Ok(found)
}

/// Leaves out the first ones; a negative number leaves as many of the last ones.
fn offset(count: i64, mut found: Addresses) -> Result<Addresses, String> {
    let length = found.len();
    let size = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if size > length {
        return Err(format!("offset ({count}) exceeds the number of interfaces ({length})"));
    }
    Ok(found.split_off(if count < 0 { length - size } else { size }))
}

fn unique(what: &str, found: Addresses) -> Result<Addresses, String> {
    let same: fn(&InterfaceAddress, &InterfaceAddress) -> bool = match what {
        "address" => |a, b| a.address == b.address,
        "name" => |a, b| a.name == b.name,
        _ => return Err(format!("unsupported unique attribute {what:?}")),
    };
    let mut kept = Addresses::new();
    for one in found {
        if !kept.iter().any(|other| same(other, &one)) {
            kept.push(one);
        }
    }
    Ok(kept)
}

fn attribute(what: &str, one: &InterfaceAddress) -> Result<String, String> {
    let InterfaceAddress { name, address, prefix, .. } = one;
    match what.to_ascii_lowercase().as_str() {
        "address" => Ok(address.to_string()),
        "name" => Ok(name.clone()),
        "network" => {
            let network = IpNet::new(*address, *prefix).map_err(|error| error.to_string())?;
            Ok(network.network().to_string())
        }
        "type" => Ok(if address.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned()),
        _ => Err(format!("unsupported attribute name {what:?}")),
    }
}
