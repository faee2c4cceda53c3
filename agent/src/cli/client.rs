//! The HTTP interface as commands use it: the flags they share, and what they ask.

use super::flags::{self, Exit};
use super::transport::{escaped, http_base, unexpected};
use argh::{ArgsInfo, FromArgs};
use serde_json::Value;
use std::time::Duration;
use terraform_io::http::client::{ClientLimits, ClientRequest, ClientResponse, system_text};

/// Where a question goes and on whose behalf (cli.md §2).
#[derive(FromArgs, ArgsInfo)]
pub(super) struct ClientFlags {
    /// the HTTP address of the agent (127.0.0.1:8500)
    #[argh(option, arg_name = "address")]
    http_addr: Option<String>,
    /// the token to ask with
    #[argh(option, arg_name = "token")]
    token: Option<String>,
    /// a file that holds the token
    #[argh(option, arg_name = "file")]
    token_file: Option<String>,
    /// the datacenter to ask (the agent's own)
    #[argh(option, arg_name = "name")]
    datacenter: Option<String>,
    /// let any server answer, from what it knows
    #[argh(option, arg_name = "bool")]
    stale: Option<bool>,
}

/// An agent to ask.
#[derive(Clone, Debug)]
pub(super) struct Client {
    base: String,
    token: Option<String>,
    datacenter: Option<String>,
    /// The parameters that every question carries.
    common: Vec<String>,
}

/// Reads the words of a command that has flags of its own and those of every client.
pub(super) fn parse<T: FromArgs + ArgsInfo>(
    command: &str,
    words: &[String],
) -> Result<(T, Client), Exit> {
    let (own, shared) = flags::parse_both::<T, ClientFlags>(command, words)?;
    let client = Client::new(shared).map_err(|error| Exit::failure(format!("{error}\n")))?;
    Ok((own, client))
}

/// The help text of such a command.
pub(super) fn help<T: ArgsInfo>(command: &str) -> String {
    flags::help_both::<T, ClientFlags>(command)
}

/// A flag that is given as `key=value`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(format!("Missing \"=\" value in argument: {text}")),
    }
}

impl Client {
    fn new(flags: ClientFlags) -> Result<Self, String> {
        let variable = |name: &str| {
            let value = |prefix: &str| std::env::var(format!("{prefix}_{name}")).ok();
            value("TERRAFORM").or_else(|| value("CONSUL")).filter(|value| !value.is_empty())
        };
        let file = || flags.token_file.or_else(|| variable("HTTP_TOKEN_FILE"));
        let token = match flags.token.or_else(|| variable("HTTP_TOKEN")) {
            Some(token) => Some(token),
            None => match file() {
                Some(path) => Some(token_of(&path)?),
                None => None,
            },
        };
        let datacenter = flags.datacenter.filter(|name| !name.is_empty());
        let asked = datacenter.as_ref().map(|name| format!("dc={}", escaped(name)));
        let stale = flags.stale.unwrap_or(false).then(|| "stale".to_owned());
        let common = asked.into_iter().chain(stale).collect();
        Ok(Self { base: http_base(flags.http_addr), token, datacenter, common })
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
        let mut request = ClientRequest::new(method, &url).map_err(|error| error.to_string())?;
        request.headers.extend(self.token.clone().map(|token| (TOKEN.to_owned(), token)));
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

    /// Writes.
    pub(super) fn put(&self, path: &str, body: Vec<u8>) -> Result<ClientResponse, String> {
        smol::block_on(self.call(("PUT", path), &[], body))
    }
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
