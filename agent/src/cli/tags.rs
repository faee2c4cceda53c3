//! `terraform tags`.

use super::Exit;
use super::flags;
use super::transport::{Rpc, Target, target};
use argh::{ArgsInfo, FromArgs};
use std::collections::BTreeMap;
use terraform_core::wire::ipc::{Command, Tags};

/// Changes the tags that this agent tells the other members, until it stops. Its own tags, such as
/// role and dc, stay.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// set a tag, name=value; may be repeated
    #[argh(option, arg_name = "name=value")]
    set: Vec<String>,
    /// take a tag away; may be repeated
    #[argh(option, arg_name = "name")]
    delete: Vec<String>,
    /// the RPC address of the agent (127.0.0.1:8400)
    #[argh(option, arg_name = "address")]
    rpc_addr: Option<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    let arguments: Arguments = match flags::parse("tags", words) {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    let Arguments { set, delete, rpc_addr } = arguments;
    if set.is_empty() && delete.is_empty() {
        return Exit::failure(flags::help("tags", &Arguments::get_args_info()));
    }
    let mut tags = BTreeMap::new();
    for text in &set {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                tags.insert(name.to_owned(), value.to_owned());
            }
            _ => return Exit::failure(format!("tag '{text}' must have the form name=value\n")),
        }
    }
    // HTTP cannot change tags, so its variables do not apply here.
    let address = match target(rpc_addr, None) {
        Target::Rpc(address) => address,
        Target::Http(_) => "127.0.0.1:8400".to_owned(),
    };
    let tags = Command::Tags(Tags { delete: Some(delete), set: Some(tags) });
    match Rpc::connect(&address).and_then(|mut rpc| rpc.call(tags)) {
        Ok(_) => Exit::success("Successfully updated agent tags\n"),
        Err(error) => Exit::failure(format!("Error setting tags: {error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_without_a_name_or_value_is_refused_before_the_agent_is_asked() {
        for tag in ["zone", "=z1"] {
            let exit = run(&["-set".to_owned(), tag.to_owned()]);
            assert_eq!(exit.stderr, format!("tag '{tag}' must have the form name=value\n"));
            assert_eq!(exit.code, 1);
        }
        assert!(run(&[]).stderr.starts_with("Usage: terraform tags"));
    }
}
