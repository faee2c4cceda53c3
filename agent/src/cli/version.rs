//! `terraform version`.

use super::Exit;
use super::flags;
use argh::{ArgsInfo, FromArgs};

/// Prints the version of this program and of the interface it speaks.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// pretty or json
    #[argh(option, arg_name = "format", default = "\"pretty\".to_owned()")]
    format: String,
}

/// The release of this program.
const RELEASE: &str = env!("CARGO_PKG_VERSION");

pub(super) fn run(words: &[String]) -> Exit {
    let arguments: Arguments = match flags::parse("version", words) {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    match arguments.format.as_str() {
        "pretty" => Exit::success(format!(
            "Terraform v{RELEASE}\nAnswers as Consul {}\nProtocol 1 spoken by default, understands 1 to 1\n",
            crate::API_VERSION
        )),
        "json" => Exit::success(format!(
            "{{\n    \"Version\": \"{RELEASE}\",\n    \"API\": \"{}\",\n    \"RPC\": {{\n        \
             \"Default\": 1,\n        \"Min\": 1,\n        \"Max\": 1\n    }}\n}}\n",
            crate::API_VERSION
        )),
        other => Exit::failure(format!(
            "invalid value \"{other}\" for flag -format: use pretty or json\n"
        )),
    }
}
