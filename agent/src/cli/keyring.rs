//! `terraform keyring`.

use super::Exit;
use super::client::{self, Client};
use super::transport::Rpc;
use argh::{ArgsInfo, FromArgs};
use serde_json::Value;
use terraform_core::serf::RELAY_FACTOR_MAX;
use terraform_core::wire::ipc::{Body, Command, KeysReply, Response};

/// Changes the keys that encrypt gossip on all members at once, or lists them: in the WAN pool, and
/// in the LAN pools of all datacenters. A key is used only once every member has it, so a new one
/// is installed first, then used, and then the old removed. A removed key encrypts nothing any
/// more, but opens the messages of members that were away, for 72 hours; the log of the others
/// names them. A key that somebody else may know is removed twice: after the second time it opens
/// nothing. An agent that missed a whole rotation is given the new key by itself, with -rpc-addr,
/// which changes the keys of the agent's own LAN pool.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// add a key, in base64
    #[argh(option, arg_name = "key")]
    install: Option<String>,
    /// encrypt with this key from now on
    #[argh(option, arg_name = "key", long = "use")]
    primary: Option<String>,
    /// take a key away, for good at the second time; the one in use stays
    #[argh(option, arg_name = "key")]
    remove: Option<String>,
    /// list all keys, and how many members have each
    #[argh(option, arg_name = "bool")]
    list: Option<bool>,
    /// list the keys in use, and how many members use each
    #[argh(option, arg_name = "bool")]
    list_primary: Option<bool>,
    /// members that relay each answer besides, 0 to 5 (0)
    #[argh(option, arg_name = "count")]
    relay_factor: Option<i64>,
    /// list only the keys of the LAN pool
    #[argh(option, arg_name = "bool")]
    local_only: Option<bool>,
    /// the RPC address of any agent, to be used instead
    #[argh(option, arg_name = "address")]
    rpc_addr: Option<String>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Install(String),
    Use(String),
    Remove(String),
    List,
    ListPrimary,
}

impl Action {
    /// The actions that the flags ask for.
    fn chosen(arguments: &Arguments) -> Vec<Self> {
        let key = |key: &Option<String>, action: fn(String) -> Self| key.clone().map(action);
        let flag = |flag: Option<bool>, action| flag.unwrap_or(false).then_some(action);
        let all = [
            key(&arguments.install, Self::Install),
            key(&arguments.primary, Self::Use),
            key(&arguments.remove, Self::Remove),
            flag(arguments.list, Self::List),
            flag(arguments.list_primary, Self::ListPrimary),
        ];
        all.into_iter().flatten().collect()
    }

    const fn lists(&self) -> bool {
        matches!(self, Self::List | Self::ListPrimary)
    }

    /// What is printed before.
    const fn banner(&self) -> &'static str {
        match self {
            Self::Install(_) => "==> Installing new gossip encryption key...",
            Self::Use(_) => "==> Changing primary gossip encryption key...",
            Self::Remove(_) => "==> Removing gossip encryption key...",
            Self::List => "==> Gathering installed encryption keys...",
            Self::ListPrimary => "==> Gathering installed primary encryption keys...",
        }
    }

    /// The method and the body over HTTP.
    fn request(&self) -> (&'static str, Vec<u8>) {
        let body = |key: &String| serde_json::json!({ "Key": key }).to_string().into_bytes();
        match self {
            Self::Install(key) => ("POST", body(key)),
            Self::Use(key) => ("PUT", body(key)),
            Self::Remove(key) => ("DELETE", body(key)),
            Self::List | Self::ListPrimary => ("GET", Vec::new()),
        }
    }

    /// The command over RPC; `None` where Serf's protocol has none.
    fn command(&self) -> Option<Command> {
        Some(match self.clone() {
            Self::Install(key) => Command::InstallKey { key },
            Self::Use(key) => Command::UseKey { key },
            Self::Remove(key) => Command::RemoveKey { key },
            Self::List => Command::ListKeys,
            Self::ListPrimary => return None,
        })
    }
}

pub(super) fn run(words: &[String]) -> Exit {
    match try_run(words) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn try_run(words: &[String]) -> Result<Exit, Exit> {
    let (arguments, client) = client::parse::<Arguments>("keyring", words)?;
    let mut chosen = Action::chosen(&arguments);
    let (Some(action), true) = (chosen.pop(), chosen.is_empty()) else {
        if chosen.is_empty() {
            return Err(Exit::failure(client::help::<Arguments>("keyring")));
        }
        return Err(Exit::failure("Only a single action is allowed\n"));
    };
    let relays = arguments.relay_factor.unwrap_or(0);
    if !(0..=i64::from(RELAY_FACTOR_MAX)).contains(&relays) {
        let rule = format!("Relay factor must be in range: [0, {RELAY_FACTOR_MAX}]\n");
        return Err(Exit::failure(rule));
    }
    let local_only = arguments.local_only.unwrap_or(false);
    if local_only && !action.lists() {
        return Err(Exit::failure("-local-only can only be set for list requests\n"));
    }
    if client.datacenter().is_some() {
        return Err(failure("-datacenter: keys are those of all datacenters"));
    }
    let mut exit = match (arguments.rpc_addr, action.command()) {
        (None, _) => {
            over_http(&client, &action, (relays, local_only)).unwrap_or_else(|text| failure(&text))
        }
        // The RPC port knows the LAN alone, so a local list is the whole one.
        (Some(address), Some(command)) if relays == 0 => {
            let asked = Rpc::connect(&address).and_then(|mut rpc| rpc.exchange(command));
            asked.map_or_else(|text| failure(&text), |response| outcome(&response))
        }
        (Some(_), _) => {
            return Err(failure("-list-primary and -relay-factor need -http-addr"));
        }
    };
    exit.stdout.insert_str(0, &format!("{}\n", action.banner()));
    Ok(exit)
}

fn failure(text: &str) -> Exit {
    Exit::failure(format!("error: {}\n", text.trim_end()))
}

fn over_http(
    client: &Client,
    action: &Action,
    (relays, local): (i64, bool),
) -> Result<Exit, String> {
    let (method, body) = action.request();
    let mut query = vec![format!("relay-factor={relays}")];
    query.extend(local.then(|| "local-only=true".to_owned()));
    let asked = (method, "/v1/operator/keyring");
    let response = smol::block_on(client.call(asked, &query, body))?;
    if !action.lists() {
        return Ok(Exit::default());
    }
    let value = client::json(&response)?;
    let pools = value.as_array().ok_or("the agent answered without keys")?;
    Ok(Exit::success(pools.iter().map(|pool| listed(pool, action)).collect::<String>()))
}

/// The keys of one pool under its name.
fn listed(pool: &Value, action: &Action) -> String {
    let field = |name: &str| pool.get(name).cloned().unwrap_or_default();
    let datacenter = field("Datacenter").as_str().unwrap_or_default().to_owned();
    let wan = field("WAN").as_bool().unwrap_or(false);
    let label = if wan { "WAN".to_owned() } else { format!("{datacenter} (LAN)") };
    let keys = field(if *action == Action::List { "Keys" } else { "PrimaryKeys" });
    let nodes = field("NumNodes").as_u64().unwrap_or_default();
    let mut text = format!("\n{label}:\n");
    for (key, count) in keys.as_object().into_iter().flatten() {
        text.push_str(&format!("  {key} [{count}/{nodes}]\n"));
    }
    text
}

/// What the members said; a failure names each that said why.
fn outcome(response: &Response) -> Exit {
    let Response { error, body, .. } = response;
    let Some(Body::Keys(KeysReply { keys, messages, nodes, .. })) = body else {
        return Exit::failure(format!("error: {error}\n"));
    };
    let mut exit = Exit::default();
    if let Some(keys) = keys.as_ref().filter(|keys| !keys.is_empty()) {
        exit.stdout.push('\n');
        for (key, count) in keys {
            exit.stdout.push_str(&format!("  {key} [{count}/{nodes}]\n"));
        }
    }
    if !error.is_empty() {
        exit.code = 1;
        exit.stderr = format!("error: {error}\n");
        for (node, said) in messages {
            exit.stderr.push_str(&format!("  {node}: {said}\n"));
        }
    }
    exit
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn exactly_one_action_is_taken() {
        let both = run(&words(&["-list", "-use=a"]));
        assert_eq!((both.stderr.as_str(), both.code), ("Only a single action is allowed\n", 1));
        let none = run(&words(&["-list=false"]));
        assert!(none.stderr.starts_with("Usage: terraform keyring"), "{}", none.stderr);
        assert_eq!(none.code, 1);
        let local = run(&words(&["-use=a", "-local-only"]));
        assert_eq!(local.stderr, "-local-only can only be set for list requests\n");
        let relays = run(&words(&["-list", "-relay-factor=6"]));
        assert_eq!(relays.stderr, "Relay factor must be in range: [0, 5]\n");
        let datacenter = run(&words(&["-list", "-datacenter=dc2"]));
        let rule = "error: -datacenter: keys are those of all datacenters\n";
        assert_eq!((datacenter.stderr.as_str(), datacenter.code), (rule, 1));
        let primary = run(&words(&["-list-primary", "-rpc-addr=127.0.0.1:1"]));
        assert_eq!(primary.stderr, "error: -list-primary and -relay-factor need -http-addr\n");
    }

    #[test]
    fn keys_are_shown_under_the_name_of_their_pool() {
        let pool = |wan| {
            serde_json::json!({
                "WAN": wan, "Datacenter": "dc1", "Keys": {"k1": 2, "k2": 3},
                "PrimaryKeys": {"k2": 3}, "NumNodes": 3,
            })
        };
        let text = listed(&pool(false), &Action::List);
        assert_eq!(text, "\ndc1 (LAN):\n  k1 [2/3]\n  k2 [3/3]\n");
        assert_eq!(listed(&pool(true), &Action::ListPrimary), "\nWAN:\n  k2 [3/3]\n");
    }

    #[test]
    fn keys_are_listed_with_their_members_and_a_failure_tells_who_and_why() {
        let reply = KeysReply {
            keys: Some(BTreeMap::from([("k1".to_owned(), 2)])),
            messages: BTreeMap::from([("b".to_owned(), "no keyring".to_owned())]),
            errors: 1,
            nodes: 3,
            responses: 3,
        };
        let (error, body) = ("1/3 nodes reported failure".to_owned(), Some(Body::Keys(reply)));
        let exit = outcome(&Response { seq: 1, error, body });
        assert_eq!(exit.stdout, "\n  k1 [2/3]\n");
        assert_eq!(exit.stderr, "error: 1/3 nodes reported failure\n  b: no keyring\n");
        assert_eq!(exit.code, 1);
    }
}
