//! The HTTP interface as commands use it: the flags they share, and what they ask.

use super::flags::{self, Exit};
use super::transport::{Target, escaped, http_base, plain_request, target, unexpected, variable};
use argh::{ArgsInfo, FromArgs};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use terraform_core::wire::base64;
use terraform_io::http::client::{
    ClientLimits, ClientRequest, ClientResponse, ClientTls, Trust, system_text,
};
use terraform_io::http::target::truth;

/// Where a question goes and on whose behalf (cli.md §2).
#[derive(Clone, Debug, Default, FromArgs, ArgsInfo)]
pub(super) struct ClientFlags {
    /// the HTTP address of the agent, or unix:///path of a socket (127.0.0.1:8500)
    #[argh(option, arg_name = "address")]
    http_addr: Option<String>,
    /// the token to ask with
    #[argh(option, arg_name = "token")]
    token: Option<String>,
    /// a file that holds the token
    #[argh(option, arg_name = "file")]
    token_file: Option<String>,
    /// with an https:// address: a file with the authorities that sign for it (the system's)
    #[argh(option, arg_name = "file")]
    ca_file: Option<String>,
    /// a folder of such files
    #[argh(option, arg_name = "folder")]
    ca_path: Option<String>,
    /// a file with the certificate to show
    #[argh(option, arg_name = "file")]
    client_cert: Option<String>,
    /// a file with its key
    #[argh(option, arg_name = "file")]
    client_key: Option<String>,
    /// the name that is to be certified (that of the address)
    #[argh(option, arg_name = "name")]
    tls_server_name: Option<String>,
}

/// Which servers answer (cli.md §2).
#[derive(Default, FromArgs, ArgsInfo)]
struct ServerFlags {
    /// the datacenter to ask (the agent's own)
    #[argh(option, arg_name = "name")]
    datacenter: Option<String>,
    /// let any server answer, from what it knows
    #[argh(option, arg_name = "bool")]
    stale: Option<bool>,
}

/// For commands that an agent answers by itself.
#[derive(FromArgs, ArgsInfo)]
struct NoFlags {}

/// The other way to an agent.
#[derive(FromArgs, ArgsInfo)]
struct RpcFlags {
    /// the RPC address of the agent; unless it is given, an HTTP address is used if there is one
    /// (127.0.0.1:8400)
    #[argh(option, arg_name = "address")]
    rpc_addr: Option<String>,
}

/// An agent to ask.
#[derive(Clone, Debug)]
pub(super) struct Client {
    base: String,
    token: Option<String>,
    /// Name and password for a proxy before the agent, as `name:password`.
    login: Option<String>,
    trust: Trust,
    datacenter: Option<String>,
    /// The parameters that every question carries.
    common: Vec<String>,
}

/// Reads the words of a command that has flags of its own, those of every client and those that say
/// which servers answer.
pub(super) fn parse<T: FromArgs + ArgsInfo>(
    command: &str,
    words: &[String],
) -> Result<(T, Client), Exit> {
    let (own, client, servers) =
        flags::parse_shared::<T, ClientFlags, ServerFlags>(command, words)?;
    Ok((own, Client::new(client, servers).map_err(refusal)?))
}

/// The help text of such a command.
pub(super) fn help<T: ArgsInfo>(command: &str) -> String {
    flags::help_shared::<T, ClientFlags, ServerFlags>(command)
}

/// The same for a command that the agent answers by itself.
pub(super) fn parse_local<T: FromArgs + ArgsInfo>(
    command: &str,
    words: &[String],
) -> Result<(T, Client), Exit> {
    let (own, client, NoFlags {}) = flags::parse_shared::<T, ClientFlags, NoFlags>(command, words)?;
    Ok((own, Client::new(client, ServerFlags::default()).map_err(refusal)?))
}

/// The same for a command that reaches the agent over either of its ports.
pub(super) fn parse_either<T: FromArgs + ArgsInfo>(
    command: &str,
    words: &[String],
) -> Result<(T, Agent), Exit> {
    let (own, flags, rpc) = flags::parse_shared::<T, ClientFlags, RpcFlags>(command, words)?;
    Ok((own, Agent { flags, rpc_addr: rpc.rpc_addr }))
}

/// The help text of such a command.
pub(super) fn help_either<T: ArgsInfo>(command: &str) -> String {
    flags::help_shared::<T, ClientFlags, RpcFlags>(command)
}

fn refusal(error: String) -> Exit {
    Exit::failure(format!("{error}\n"))
}

/// An agent that is reached over either of its ports.
#[derive(Debug)]
pub(super) struct Agent {
    flags: ClientFlags,
    rpc_addr: Option<String>,
}

/// The port that was chosen.
#[derive(Debug)]
pub(super) enum Way {
    /// `host:port` of the RPC port.
    Rpc(String),
    /// The HTTP interface.
    Http(Client),
}

impl Agent {
    /// The way to it that flags and variables name (DESIGN.md §8).
    pub(super) fn way(self) -> Result<Way, String> {
        match target(self.rpc_addr.clone(), self.flags.http_addr.clone()) {
            Target::Rpc(address) => Ok(Way::Rpc(address)),
            Target::Http(_) => self.over_http().map(Way::Http),
        }
    }

    /// Its HTTP interface, for what is only there.
    pub(super) fn over_http(self) -> Result<Client, String> {
        Client::new(self.flags, ServerFlags::default())
    }
}

/// A flag that is given as `key=value`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(format!("Missing \"=\" value in argument: {text}")),
    }
}

impl Client {
    fn new(flags: ClientFlags, servers: ServerFlags) -> Result<Self, String> {
        let trust = Trust::of(&tls(&flags, variable)?).map_err(|error| error.to_string())?;
        let file = || flags.token_file.or_else(|| variable("HTTP_TOKEN_FILE"));
        let token = match flags.token.or_else(|| variable("HTTP_TOKEN")) {
            Some(token) => Some(token),
            None => match file() {
                Some(path) => Some(token_of(&path)?),
                None => None,
            },
        };
        let datacenter = servers.datacenter.filter(|name| !name.is_empty());
        let asked = datacenter.as_ref().map(|name| format!("dc={}", escaped(name)));
        let stale = servers.stale.unwrap_or(false).then(|| "stale".to_owned());
        let common = asked.into_iter().chain(stale).collect();
        let (base, login) = (http_base(flags.http_addr), variable("HTTP_AUTH"));
        Ok(Self { base, token, login, trust, datacenter, common })
    }

    /// The datacenter that is asked, if one was named.
    pub(super) const fn datacenter(&self) -> Option<&String> {
        self.datacenter.as_ref()
    }

    /// The same, but for answers that are not stale.
    pub(super) fn fresh(mut self) -> Self {
        self.common.retain(|parameter| parameter != "stale");
        self
    }

    /// Asks and waits for the answer, whatever its status; `within` is the time for all of it.
    pub(super) async fn ask(
        &self,
        (method, path): (&str, &str),
        query: &[String],
        body: Vec<u8>,
        within: Duration,
    ) -> Result<ClientResponse, String> {
        let mut request = self.request((method, path), query)?;
        request.body = body.into();
        let limits = ClientLimits { redirects_max: 0, time: within, ..ClientLimits::default() };
        request.send(&limits).await.map_err(|error| request.error_text(&error))
    }

    /// A question that is still to be sent.
    pub(super) fn request(
        &self,
        (method, path): (&str, &str),
        query: &[String],
    ) -> Result<ClientRequest, String> {
        let query: Vec<&str> = self.common.iter().chain(query).map(String::as_str).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        let url = format!("{}{path}{mark}{}", self.base, query.join("&"));
        let mut request = plain_request(method, &url)?;
        request.headers.extend(self.token.clone().map(|token| (TOKEN.to_owned(), token)));
        let login = self.login.as_ref().map(|login| base64::encode(login.as_bytes()));
        let login = login.map(|text| ("Authorization".to_owned(), format!("Basic {text}")));
        request.headers.extend(login);
        request.trust = self.trust.clone();
        Ok(request)
    }

    /// Asks; an answer with another status than 200 is an error that tells status and body.
    pub(super) async fn call(
        &self,
        (method, path): (&str, &str),
        query: &[String],
        body: Vec<u8>,
    ) -> Result<ClientResponse, String> {
        let response = self.ask((method, path), query, body, TIME).await?;
        if response.status == 200 { Ok(response) } else { Err(unexpected(&response)) }
    }

    /// Reads JSON.
    pub(super) fn get(&self, path: &str, query: &[String]) -> Result<Value, String> {
        json(&smol::block_on(self.call(("GET", path), query, Vec::new()))?)
    }

    /// Writes, by a question that has no body.
    pub(super) fn order(&self, path: &str) -> Result<(), String> {
        self.put(path, Vec::new()).map(drop)
    }

    /// Writes.
    pub(super) fn put(&self, path: &str, body: Vec<u8>) -> Result<ClientResponse, String> {
        smol::block_on(self.call(("PUT", path), &[], body))
    }
}

/// What flags and variables say of TLS.
fn tls(
    flags: &ClientFlags,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<ClientTls, String> {
    let one = |flag: &Option<String>, name| flag.clone().or_else(|| variable(name));
    let path = |flag, name| one(flag, name).map(PathBuf::from);
    let boolean = |name: &str| match variable(name) {
        None => Ok(None),
        Some(text) => match truth(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(format!("{name}: {text:?} is neither true nor false")),
        },
    };
    // It decides about the address; one that says nothing is refused with the others.
    boolean("HTTP_SSL")?;
    Ok(ClientTls {
        ca_file: path(&flags.ca_file, "CACERT"),
        ca_path: path(&flags.ca_path, "CAPATH"),
        cert: path(&flags.client_cert, "CLIENT_CERT"),
        key: path(&flags.client_key, "CLIENT_KEY"),
        server_name: one(&flags.tls_server_name, "TLS_SERVER_NAME"),
        skip_verify: !boolean("HTTP_SSL_VERIFY")?.unwrap_or(true),
    })
}

/// The header that carries a token.
const TOKEN: &str = "X-Consul-Token";
/// How long a question that does not wait for a change may take.
pub(super) const TIME: Duration = Duration::from_secs(60);

fn token_of(path: &str) -> Result<String, String> {
    let failed = |error| format!("Error loading token file: open {path}: {}", system_text(&error));
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(failed)
}

/// The JSON of an answer.
pub(super) fn json(response: &ClientResponse) -> Result<Value, String> {
    serde_json::from_slice(&response.body).map_err(|error| format!("unreadable answer: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(words: &[&str]) -> ClientFlags {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        flags::parse("test", &words).unwrap()
    }

    #[test]
    fn what_flags_say_of_tls_wins_over_variables() {
        let words =
            ["-ca-file=f", "-ca-path=p", "-client-cert=c", "-client-key=k", "-tls-server-name=n"];
        let given = ClientTls {
            ca_file: Some("f".into()),
            ca_path: Some("p".into()),
            cert: Some("c".into()),
            key: Some("k".into()),
            server_name: Some("n".to_owned()),
            skip_verify: false,
        };
        let variables = |name: &str| {
            let set = ["CACERT", "CAPATH", "CLIENT_CERT", "CLIENT_KEY", "TLS_SERVER_NAME"];
            set.contains(&name).then(|| name.to_lowercase())
        };
        assert_eq!(tls(&flags(&words), |_| None), Ok(given.clone()));
        assert_eq!(tls(&flags(&words), variables), Ok(given));
        let from_variables = tls(&flags(&[]), variables).unwrap();
        assert_eq!(from_variables.ca_file, Some("cacert".into()));
        assert_eq!(from_variables.ca_path, Some("capath".into()));
        assert_eq!(from_variables.cert, Some("client_cert".into()));
        assert_eq!(from_variables.key, Some("client_key".into()));
        assert_eq!(from_variables.server_name.as_deref(), Some("tls_server_name"));
        assert_eq!(tls(&flags(&[]), |_| None), Ok(ClientTls::default()));
    }

    #[test]
    fn certificates_are_looked_at_unless_a_variable_says_otherwise() {
        let said = |name: &'static str, text: &'static str| {
            tls(&flags(&[]), move |asked| (asked == name).then(|| text.to_owned()))
        };
        assert_eq!(said("HTTP_SSL_VERIFY", "0").map(|tls| tls.skip_verify), Ok(true));
        assert_eq!(said("HTTP_SSL_VERIFY", "true").map(|tls| tls.skip_verify), Ok(false));
        let refused = Err("HTTP_SSL_VERIFY: \"no\" is neither true nor false".to_owned());
        assert_eq!(said("HTTP_SSL_VERIFY", "no"), refused);
        let refused = Err("HTTP_SSL: \"yes\" is neither true nor false".to_owned());
        assert_eq!(said("HTTP_SSL", "yes"), refused);
    }
}
