//! Where programs are served: addresses of the network and, for HTTP, sockets in the file system.

use super::{Checked, Machine, addresses, port, refuse};
use crate::config::{HostSettings, Settings};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use terraform_io::http::listen::{HttpAddress, UnixAddress};

/// Where HTTP, DNS and the command line's port listen; nowhere where they are switched off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listeners {
    /// `client_addr`, which shows where programs find the agent unless they are told otherwise.
    pub client: Vec<IpAddr>,
    /// HTTP.
    pub http: Vec<HttpAddress>,
    /// DNS.
    pub dns: Vec<SocketAddr>,
    /// The command line's port.
    pub rpc: Vec<SocketAddr>,
}

impl Listeners {
    /// The port of HTTP, if it listens in the network.
    pub fn http_port(&self) -> Option<u16> {
        self.http.iter().find_map(HttpAddress::tcp).map(|at| at.port())
    }

    /// The port of DNS.
    pub fn dns_port(&self) -> Option<u16> {
        self.dns.first().map(SocketAddr::port)
    }

    /// The command line's port.
    pub fn rpc_port(&self) -> Option<u16> {
        self.rpc.first().map(SocketAddr::port)
    }
}

pub(super) fn listeners(settings: &Settings, machine: &Machine) -> Checked<Listeners> {
    let text = settings.client_addr.as_deref().unwrap_or("127.0.0.1");
    let client = places(settings, machine, ("client_addr", text))?;
    let network = |place: &Place| match place {
        Place::Address(address) => Ok(*address),
        Place::Socket(_) => refuse("client_addr cannot be a unix socket"),
    };
    let shown: Checked<Vec<IpAddr>> = client.iter().map(network).collect();
    let at = |name: &str, default: u16| -> Checked<Vec<HttpAddress>> {
        let Some(port) = port(settings, name, default)? else { return Ok(Vec::new()) };
        let given = settings.addresses.get(name).filter(|text| !text.is_empty());
        let own = given.map(|text| places(settings, machine, (&format!("addresses.{name}"), text)));
        let places = own.transpose()?;
        let places = places.as_ref().unwrap_or(&client).iter();
        Ok(places.map(|place| place.at(port)).collect())
    };
    let network = |name: &str, shown: &str, default: u16| -> Checked<Vec<SocketAddr>> {
        let one = |address: HttpAddress| match address {
            HttpAddress::Tcp(address) => Ok(address),
            HttpAddress::Unix(_) => refuse(format!("{shown} address cannot be a unix socket")),
        };
        at(name, default)?.into_iter().map(one).collect()
    };
    let listeners = Listeners {
        client: shown?,
        http: at("http", 8500)?,
        dns: network("dns", "DNS", 8600)?,
        rpc: network("rpc", "RPC", 8400)?,
    };
    if listeners.rpc.is_empty() {
        return refuse("ports.rpc: invalid port: it cannot be switched off");
    }
    distinct(&listeners)?;
    Ok(listeners)
}

/// Where to listen, but for the port.
#[derive(Clone)]
enum Place {
    Address(IpAddr),
    Socket(UnixAddress),
}

impl Place {
    fn at(&self, port: u16) -> HttpAddress {
        match self {
            Self::Address(address) => HttpAddress::Tcp(SocketAddr::new(*address, port)),
            Self::Socket(socket) => HttpAddress::Unix(socket.clone()),
        }
    }
}

/// What a list of places, with spaces between them, stands for.
fn places(
    settings: &Settings,
    machine: &Machine,
    (key, text): (&str, &str),
) -> Checked<Vec<Place>> {
    let mut places = Vec::new();
    for word in addresses::expanded(key, text, machine)?.split_whitespace() {
        places.push(match word.strip_prefix("unix://") {
            Some("") => return refuse(format!("{key}: a unix socket needs a path: unix:///path")),
            Some(path) => Place::Socket(socket(&settings.host, path)?),
            None => Place::Address(addresses::ip(key, word)?),
        });
    }
    if places.is_empty() {
        return refuse(format!("{key} cannot be empty"));
    }
    Ok(places)
}

fn socket(host: &HostSettings, path: &str) -> Checked<UnixAddress> {
    let text = |key| host.texts.get(key).filter(|text| !text.is_empty()).cloned();
    let mode = text("unix_sockets.mode").map(|text| match u32::from_str_radix(&text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        Ok(_) | Err(_) => refuse(format!("unix_sockets.mode: invalid mode specified: {text}")),
    });
    let (user, group) = (text("unix_sockets.user"), text("unix_sockets.group"));
    Ok(UnixAddress { path: PathBuf::from(path), user, group, mode: mode.transpose()? })
}

fn distinct(listeners: &Listeners) -> Checked<()> {
    let network = |list: &[SocketAddr]| list.iter().copied().map(HttpAddress::Tcp).collect();
    let lists: [(&str, Vec<HttpAddress>); 3] = [
        ("HTTP", listeners.http.clone()),
        ("DNS", network(&listeners.dns)),
        ("RPC", network(&listeners.rpc)),
    ];
    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    for (name, list) in lists {
        for address in list {
            if let Some(other) = taken.insert(address.to_string(), name) {
                return refuse(format!("{name} address {address} already configured for {other}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refusal, resolved};
    use super::*;

    fn listening(text: &str) -> Listeners {
        resolved(&format!(r#"{{"data_dir": "/d", {text}}}"#)).unwrap().listeners
    }

    fn texts(addresses: &[HttpAddress]) -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn everything_listens_on_each_address_that_is_given() {
        let both = listening(r#""client_addr": "127.0.0.1 ::1""#);
        assert_eq!(texts(&both.http), ["127.0.0.1:8500", "[::1]:8500"]);
        assert_eq!(both.dns, ["127.0.0.1:8600", "[::1]:8600"].map(|at| at.parse().unwrap()));
        assert_eq!(both.rpc, ["127.0.0.1:8400", "[::1]:8400"].map(|at| at.parse().unwrap()));
        let own = listening(
            r#""addresses": {"http": "127.0.0.2  unix:///run/a", "dns": "127.0.0.3", "rpc": ""},
               "ports": {"dns": 53}"#,
        );
        assert_eq!(own.client, [IpAddr::from([127, 0, 0, 1])]);
        assert_eq!(texts(&own.http), ["127.0.0.2:8500", "unix:///run/a"]);
        assert_eq!(own.dns, ["127.0.0.3:53".parse().unwrap()]);
        assert_eq!(own.rpc, ["127.0.0.1:8400".parse().unwrap()]);
        assert_eq!(listening(r#""ports": {"http": -1}"#).http, []);
    }

    #[test]
    fn a_unix_socket_has_the_rights_that_are_given() {
        let sockets = r#"{"user": "a", "group": "7", "mode": "0660"}"#;
        let http = r#""addresses": {"http": "unix:///run/a"}"#;
        let found = listening(&format!(r#"{http}, "unix_sockets": {sockets}"#)).http;
        let (user, group) = (Some("a".to_owned()), Some("7".to_owned()));
        let socket = UnixAddress { path: PathBuf::from("/run/a"), user, group, mode: Some(0o660) };
        assert_eq!(found, [HttpAddress::Unix(socket)]);
        for mode in ["rw", "10000", "8"] {
            let text =
                format!(r#"{{"data_dir": "/d", {http}, "unix_sockets": {{"mode": "{mode}"}}}}"#);
            let rule = format!("unix_sockets.mode: invalid mode specified: {mode}");
            assert_eq!(refusal(&text), rule);
        }
    }

    #[test]
    fn every_rule_of_listeners_is_named() {
        let cases = [
            (r#""client_addr": " ""#, "client_addr cannot be empty"),
            (r#""client_addr": "nope""#, "client_addr: invalid ip address: nope"),
            (r#""client_addr": "127.0.0.1 unix:///a""#, "client_addr cannot be a unix socket"),
            (r#""addresses": {"dns": "unix:///a"}"#, "DNS address cannot be a unix socket"),
            (r#""addresses": {"rpc": "unix:///a"}"#, "RPC address cannot be a unix socket"),
            (
                r#""addresses": {"http": "unix://"}"#,
                "addresses.http: a unix socket needs a path: unix:///path",
            ),
            (
                r#""addresses": {"dns": "localhost"}"#,
                "addresses.dns: invalid ip address: localhost",
            ),
            (
                r#""client_addr": "127.0.0.1 127.0.0.1""#,
                "HTTP address 127.0.0.1:8500 already configured for HTTP",
            ),
            (
                r#""addresses": {"http": "unix:///a unix:///a"}"#,
                "HTTP address unix:///a already configured for HTTP",
            ),
        ];
        for (text, rule) in cases {
            assert_eq!(refusal(&format!(r#"{{"data_dir": "/d", {text}}}"#)), rule, "{text}");
        }
    }
}
