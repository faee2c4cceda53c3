//! The list of places worth reaching is the one that the core marks.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Adds the names in `text` that stand in `mark!("…")`.
fn collect(text: &str, names: &mut BTreeSet<String>) {
    for rest in text.split("mark!(\"").skip(1) {
        names.extend(rest.split('"').next().map(str::to_owned));
    }
}

fn walk(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("the core's sources are there").flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, names);
        } else if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("marks.rs") {
            collect(&fs::read_to_string(&path).expect("sources are text"), names);
        }
    }
}

#[test]
fn the_list_of_marks_is_complete() {
    let mut marked = BTreeSet::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/src"), &mut marked);
    let listed: BTreeSet<String> = sim::coverage::names().map(str::to_owned).collect();
    assert_eq!(listed, marked, "sim/marks.txt names the marks of the core");
}
