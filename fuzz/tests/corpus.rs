//! The committed corpus runs through its targets, and every target has all its parts.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

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
