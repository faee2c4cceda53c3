//! The committed corpus runs through its targets, and every target has all its parts.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};
    use terraform_core::catalog::command::{Command, Registration};
    use terraform_core::catalog::image::ImageDecoder;
    use terraform_core::local::definition::{CheckDefinition, ServiceDefinition};
    use terraform_core::raft::bootstrap::BootstrapMessage;
    use terraform_core::raft::{Configuration, Message};
    use terraform_core::recording::{Decoder, beginning};
    use terraform_core::storage::registrations::Change;
    use terraform_core::wire::frame::FrameDecoder;
    use terraform_core::wire::pack::from_bytes;
    use terraform_core::wire::rpc::Frame;

    /// Bytes all inputs of one target may have together: the corpus stays reviewable.
    const CORPUS_BYTES_MAX: usize = 64 << 10;

    fn package() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn the_corpus_breaks_no_rule() {
        for (name, target) in fuzz::TARGETS {
            let inputs = files(&package().join("corpus").join(name));
            assert!(!inputs.is_empty(), "{name} has seeds");
            let mut total = 0;
            for input in inputs {
                println!("{}", input.display());
                let bytes = fs::read(&input).unwrap();
                total += bytes.len();
                target(&bytes);
            }
            assert!(total <= CORPUS_BYTES_MAX, "the corpus of {name} has {total} bytes");
        }
    }

    /// A seed that no longer decodes leads nowhere, and nothing else would tell.
    #[test]
    fn the_seeds_of_our_own_formats_still_decode() {
        let read = |name| {
            files(&package().join("corpus").join(name))
                .into_iter()
                .map(|file| (file.display().to_string(), fs::read(file).unwrap()))
        };
        for (name, bytes) in read("raft_wire") {
            let message = from_bytes::<Message>(&bytes).is_ok();
            assert!(message || from_bytes::<BootstrapMessage>(&bytes).is_ok(), "{name}");
        }
        for (name, bytes) in read("server_wire").filter(|(name, _)| !name.ends_with("too-long")) {
            let mut decoder = FrameDecoder::default();
            decoder.push(&bytes);
            while let Some(body) = decoder.next_frame().unwrap() {
                Frame::decode(&body).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        }
        for (name, bytes) in read("recording") {
            let mut decoder = Decoder::default();
            decoder.feed(&beginning());
            decoder.feed(&bytes);
            let record = decoder.next_record().unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(record.is_some(), "{name}");
        }
        for (name, bytes) in read("image") {
            let read = ImageDecoder::default().block(&bytes);
            read.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        for (name, bytes) in read("archive").filter(|(name, _)| name.ends_with("whole")) {
            let read = terraform_io::archive::verify(&*bytes);
            read.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        for (name, bytes) in read("pack") {
            let decodes = Command::decode(&bytes).is_ok()
                || from_bytes::<Registration>(&bytes).is_ok()
                || from_bytes::<Configuration>(&bytes).is_ok_and(|c| c.is_sound())
                || from_bytes::<ServiceDefinition>(&bytes).is_ok()
                || from_bytes::<CheckDefinition>(&bytes).is_ok()
                || from_bytes::<Change>(&bytes).is_ok();
            assert!(decodes, "{name}");
        }
    }

    #[test]
    fn every_target_survives_inputs_of_one_byte_and_none() {
        for (_, target) in fuzz::TARGETS {
            target(&[]);
            (0..=u8::MAX).for_each(|byte| target(&[byte]));
        }
    }

    #[test]
    fn every_target_has_its_wrapper_its_binary_and_its_corpus() {
        let targets: BTreeSet<String> =
            fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        let stems = |folder| files(&package().join(folder)).into_iter().map(stem).collect();
        assert_eq!(targets, stems("fuzz_targets"), "fuzz_targets/ and TARGETS agree");
        assert_eq!(targets, stems("corpus"), "corpus/ and TARGETS agree");
        let manifest = fs::read_to_string(package().join("Cargo.toml")).unwrap();
        for name in targets {
            let path = format!("path = \"fuzz_targets/{name}.rs\"");
            assert!(manifest.contains(&path), "Cargo.toml has a binary for {name}");
        }
    }
}
