//! The inputs that are checked in: small ones that mean something, and those that once broke a
//! target. Runs without a fuzzing engine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeSet, fs, path::Path};

use gaocache_fuzz::TARGETS;

#[test]
fn every_target_bears_every_input_that_is_checked_in() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in TARGETS {
        let folder = corpus.join(target.name);
        let entries = fs::read_dir(&folder).expect("a folder of the target's name");
        let mut inputs: Vec<_> = entries.map(|it| it.expect("there").path()).collect();
        inputs.sort();
        assert!(inputs.len() >= 2, "{}: too few inputs", target.name);
        for input in inputs {
            println!("{}", input.display());
            let bytes = fs::read(&input).expect("readable");
            (target.run)(&bytes);
            // What is cut short is an input, too.
            for end in [0, 1, bytes.len() / 2, bytes.len().saturating_sub(1)] {
                (target.run)(&bytes[..end.min(bytes.len())]);
            }
        }
    }
}

#[test]
fn each_folder_and_each_bug_is_of_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names: BTreeSet<String> = TARGETS.iter().map(|it| it.name.to_owned()).collect();
    let listed = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(root.join(folder)).expect("there");
        let path = entries.map(|it| it.expect("there").path());
        let stem = path.map(|it| {
            it.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        });
        stem.collect()
    };
    assert_eq!(listed("corpus"), names);
    assert_eq!(listed("bugs"), names);
}
