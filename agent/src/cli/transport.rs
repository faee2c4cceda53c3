//! How a command reaches an agent: Serf IPC on the RPC port, or HTTP (DESIGN.md §8).
//!
//! The RPC port is the default. An HTTP address, by flag or variable, without an RPC address means
//! HTTP. Names of this program win over Consul's among the variables; a flag wins over both.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;
use terraform_core::wire::ipc::{Command, Request, Response, ResponseReader};
use terraform_io::http::client::{ClientRequest, ClientResponse, system_text};
use terraform_io::http::target::truth;

/// How long connecting may take.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Where agents listen by default.
const RPC_DEFAULT: &str = "127.0.0.1:8400";
const HTTP_DEFAULT: &str = "127.0.0.1:8500";

/// Where an agent is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `host:port` of the RPC port.
    Rpc(String),
    /// The base URL of the HTTP interface.
    Http(String),
}

/// Decides by flags, then variables, then the default.
pub(super) fn target(rpc: Option<String>, http: Option<String>) -> Target {
    choose(rpc, http, variable)
}

/// The base URL of the HTTP interface for commands that have no other way.
pub(super) fn http_base(flag: Option<String>) -> String {
    let named = || variable("HTTP_ADDR");
    let address = flag.or_else(named).unwrap_or_else(|| HTTP_DEFAULT.to_owned());
    base_url(&address, variable)
}

/// A variable of this program, else Consul's of the same meaning; `name` is without the prefix.
pub(super) fn variable(name: &str) -> Option<String> {
    let value = |prefix: &str| std::env::var(format!("{prefix}_{name}")).ok();
    value("TERRAFORM").or_else(|| value("CONSUL")).filter(|value| !value.is_empty())
}

fn choose(
    rpc: Option<String>,
    http: Option<String>,
    variable: impl Fn(&str) -> Option<String>,
) -> Target {
    if let Some(address) = rpc {
        return Target::Rpc(address);
    }
    if let Some(address) = http {
        return Target::Http(base_url(&address, variable));
    }
    if let Some(address) = variable("RPC_ADDR") {
        return Target::Rpc(address);
    }
    match variable("HTTP_ADDR") {
        Some(address) => Target::Http(base_url(&address, variable)),
        None => Target::Rpc(RPC_DEFAULT.to_owned()),
    }
}

/// A socket in the file system, `unix:///path`, becomes the host of the URL, all of it escaped. An
/// address that does not say how to speak to it is spoken to as the variable `HTTP_SSL` says.
fn base_url(address: &str, variable: impl Fn(&str) -> Option<String>) -> String {
    if let Some(path) = address.strip_prefix("unix://") {
        return format!("http://{}", escaped(path).replace(':', "%3A"));
    }
    let address = address.trim_end_matches('/');
    if address.contains("://") {
        return address.to_owned();
    }
    let secure = variable("HTTP_SSL").and_then(|text| truth(&text)).unwrap_or(false);
    format!("{}://{address}", if secure { "https" } else { "http" })
}

/// A request to a URL that begins with what [`base_url`] gives.
pub(super) fn plain_request(method: &str, url: &str) -> Result<ClientRequest, String> {
    let mut request = ClientRequest::new(method, url).map_err(|error| error.to_string())?;
    // No host of the network has a slash in its name.
    if request.url.host.contains("%2F") {
        request.socket =
            unescaped(&request.url.host).map(|path| PathBuf::from(OsString::from_vec(path)));
        request.headers.push(("Host".to_owned(), "localhost".to_owned()));
    }
    Ok(request)
}

/// What [`escaped`] was made of; `None` if it is no such text.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Some(bytes)
}

/// A connection to an agent's RPC port, after the handshake.
pub(super) struct Rpc {
    stream: TcpStream,
    reader: ResponseReader,
    seq: u64,
}

impl Rpc {
    /// Connects and shakes hands.
    ///
    /// - Errors: the text for the user, naming the address.
    pub(super) fn connect(address: &str) -> Result<Self, String> {
        let failed = |text: String| format!("Error connecting to Terraform agent: {text}");
        let resolved = address
            .to_socket_addrs()
            .map_err(|error| failed(format!("lookup {address}: {}", system_text(&error))))?
            .next()
            .ok_or_else(|| failed(format!("lookup {address}: no address")))?;
        let stream = TcpStream::connect_timeout(&resolved, CONNECT_TIME).map_err(|error| {
            failed(format!("dial tcp {resolved}: connect: {}", system_text(&error)))
        })?;
        let mut rpc = Self { stream, reader: ResponseReader::new(), seq: 0 };
        rpc.call(Command::Handshake { version: 1 })?;
        Ok(rpc)
    }

    /// Sends a command and waits for its response. An error in it is this call's error.
    pub(super) fn call(&mut self, command: Command) -> Result<Response, String> {
        let response = self.exchange(command)?;
        if response.error.is_empty() { Ok(response) } else { Err(response.error) }
    }

    /// Sends a command and waits for its response, whatever it says.
    pub(super) fn exchange(&mut self, command: Command) -> Result<Response, String> {
        self.seq += 1;
        let request = Request { seq: self.seq, command };
        self.reader.expect(&request);
        self.stream.write_all(&request.encode()).map_err(|error| broken(&error))?;
        self.next()?.ok_or_else(|| "the agent closed the connection".to_owned())
    }

    /// Waits for the next response or record; `None` at the end of the connection.
    pub(super) fn next(&mut self) -> Result<Option<Response>, String> {
        let mut buffer = [0; 16 * 1024];
        loop {
            let next = self.reader.next_response();
            if let Some(response) = next.map_err(|error| format!("unreadable answer: {error}"))? {
                return Ok(Some(response));
            }
            let read = self.stream.read(&mut buffer).map_err(|error| broken(&error))?;
            match buffer.get(..read) {
                Some([]) | None => return Ok(None),
                Some(bytes) => self.reader.feed(bytes),
            }
        }
    }
}

fn broken(error: &std::io::Error) -> String {
    format!("the connection to the agent broke: {}", system_text(error))
}

/// What is said of a status that a command has no use for.
pub(super) fn unexpected(response: &ClientResponse) -> String {
    let body = String::from_utf8_lossy(&response.body);
    format!("Unexpected response code: {} ({body})", response.status)
}

/// `text` as one segment of a URL's path.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The path of a key, which keeps its slashes.
pub(crate) fn key_path(key: &str) -> String {
    let parts: Vec<String> = key.split('/').map(escaped).collect();
    format!("/v1/kv/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_variables_and_rpc_over_http() {
        let none = |_: &str| None;
        let both = |name: &str| (name == "HTTP_ADDR").then(|| "own:1".to_owned());
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(choose(None, None, none), Target::Rpc(RPC_DEFAULT.to_owned()));
        assert_eq!(choose(text("a:1"), text("b:2"), both), Target::Rpc("a:1".to_owned()));
        assert_eq!(choose(None, text("b:2"), both), Target::Http("http://b:2".to_owned()));
        assert_eq!(choose(None, None, both), Target::Http("http://own:1".to_owned()));
    }

    #[test]
    fn an_address_without_a_scheme_is_spoken_to_as_the_variable_says() {
        let secure = |name: &str| (name == "HTTP_SSL").then(|| "true".to_owned());
        assert_eq!(base_url("a:1/", |_| None), "http://a:1");
        assert_eq!(base_url("a:1", secure), "https://a:1");
        assert_eq!(base_url("http://a:1", secure), "http://a:1");
        assert_eq!(base_url("https://a:1", |_| None), "https://a:1");
    }

    #[test]
    fn a_socket_in_the_file_system_is_the_host_of_the_url() {
        let base = base_url("unix:///tmp/a b:c/ü%2F.sock", |_| None);
        assert_eq!(base, "http://%2Ftmp%2Fa%20b%3Ac%2F%C3%BC%252F.sock");
        let request = plain_request("GET", &format!("{base}/v1/status/leader?x=/%2F")).unwrap();
        assert_eq!(request.socket, Some(PathBuf::from("/tmp/a b:c/ü%2F.sock")));
        assert_eq!(request.url.path, "/v1/status/leader?x=/%2F");
        assert_eq!(plain_request("GET", "http://h:1/%2F").unwrap().socket, None);
    }

    #[test]
    fn a_path_segment_is_escaped() {
        assert_eq!(escaped("a b/ü"), "a%20b%2F%C3%BC");
    }
}
