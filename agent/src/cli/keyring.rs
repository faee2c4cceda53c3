//! `terraform keyring`.

use super::Exit;
use super::flags;
use super::transport::{Rpc, Target, target};
use argh::{ArgsInfo, FromArgs};
use terraform_core::wire::ipc::{Body, Command, KeysReply, Response};

/// Changes the keys that encrypt gossip on all members at once, or lists them. A key is used only
/// once every member has it, so a new one is installed first, then used, and then the old removed.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// add a key, in base64
    #[argh(option, arg_name = "key")]
    install: Option<String>,
    /// encrypt with this key from now on
    #[argh(option, arg_name = "key", long = "use")]
    primary: Option<String>,
    /// take a key away; the one in use stays
    #[argh(option, arg_name = "key")]
    remove: Option<String>,
    /// list all keys, and how many members have each
    #[argh(option, arg_name = "bool")]
    list: Option<bool>,
    /// the RPC address of the agent (127.0.0.1:8400)
    #[argh(option, arg_name = "address")]
    rpc_addr: Option<String>,
}

/// What to do, and what is printed before.
fn chosen(arguments: &Arguments) -> Vec<(Command, &'static str)> {
    let Arguments { install, primary, remove, list, rpc_addr: _ } = arguments;
    let install = install
        .clone()
        .map(|key| (Command::InstallKey { key }, "==> Installing new gossip encryption key..."));
    let primary = primary
        .clone()
        .map(|key| (Command::UseKey { key }, "==> Changing primary gossip encryption key..."));
    let remove = remove
        .clone()
        .map(|key| (Command::RemoveKey { key }, "==> Removing gossip encryption key..."));
    let list = list
        .unwrap_or(false)
        .then_some((Command::ListKeys, "==> Gathering installed encryption keys..."));
    [install, primary, remove, list].into_iter().flatten().collect()
}

pub(super) fn run(words: &[String]) -> Exit {
    let arguments: Arguments = match flags::parse("keyring", words) {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    let mut chosen = chosen(&arguments);
    let (Some((command, banner)), true) = (chosen.pop(), chosen.is_empty()) else {
        if chosen.is_empty() {
            return Exit::failure(flags::help("keyring", &Arguments::get_args_info()));
        }
        return Exit::failure("Only a single action is allowed\n");
    };
    // HTTP has no keyring yet, so its variables do not apply here.
    let address = match target(arguments.rpc_addr, None) {
        Target::Rpc(address) => address,
        Target::Http(_) => "127.0.0.1:8400".to_owned(),
    };
    let mut exit = match Rpc::connect(&address).and_then(|mut rpc| rpc.exchange(command)) {
        Ok(response) => outcome(&response),
        Err(error) => Exit::failure(format!("error: {error}\n")),
    };
    exit.stdout.insert_str(0, &format!("{banner}\n"));
    exit
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
