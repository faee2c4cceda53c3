//! `terraform keygen`.

use super::Exit;
use super::flags;
use argh::{ArgsInfo, FromArgs};
use terraform_core::wire::base64;
use terraform_io::entropy;

/// Prints a new key for -encrypt: 32 random bytes in base64. Every agent of a cluster needs the
/// same one.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {}

pub(super) fn run(words: &[String]) -> Exit {
    let Arguments {} = match flags::parse("keygen", words) {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    match entropy::secret() {
        Ok(key) => Exit::success(format!("{}\n", base64::encode(&key))),
        Err(error) => Exit::failure(format!("Error reading random data: {error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use terraform_core::wire::seal::Key;

    #[test]
    fn every_key_is_new_and_fits_encrypt() {
        let keys = [run(&[]), run(&[])].map(|exit| Key::from_base64(exit.stdout.trim()).unwrap());
        assert_eq!(keys[0].as_bytes().len(), 32);
        assert_ne!(keys[0], keys[1]);
        assert_eq!(run(&["extra".to_owned()]).code, 1);
    }
}
