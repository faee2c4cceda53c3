//! What is kept of what checks say.

use super::*;

fn output<'a>(local: &'a Local, check: &str) -> &'a str {
    &local.view().checks[&check_id(check)].output
}

/// The limit that each check is scheduled with.
fn scheduled(outputs: &[LocalOutput]) -> BTreeMap<String, usize> {
    let start = |output: &LocalOutput| {
        let LocalOutput::StartCheck(start) = output else { return None };
        Some((start.definition.id.to_string(), start.definition.output_max_size))
    };
    outputs.iter().filter_map(start).collect()
}

#[test]
fn the_agents_limit_is_the_default_and_the_most_of_a_check() {
    let mut out = Outbox::new(Level::Error);
    let sized = |id: &str, size| CheckDefinition { output_max_size: size, ..ttl(id) };
    let config = LocalConfig {
        node: NodeName::parse("n1").unwrap(),
        services: vec![],
        checks: vec![sized("own", 3), sized("none", 0), sized("more", 99)],
        restored: none(),
        output: OutputRules { bytes_max: 5, discard: false },
        wall: WALL,
    };
    let mut local = Local::new(config, &mut out).unwrap();
    let limits = [("more", 5), ("none", 5), ("own", 3)].map(|(id, max)| (id.to_owned(), max));
    assert_eq!(scheduled(&drain(&mut out)), limits.into_iter().collect());
    for (id, kept) in [("own", "abc"), ("none", "abcde"), ("more", "abcde")] {
        report(&mut local, id, CheckStatus::Passing, "abcdefgh", &mut out);
        let expected = format!("{kept} ... (captured {} of 8 bytes)", kept.len());
        assert_eq!(output(&local, id), expected);
    }
}

#[test]
fn a_reload_decides_whether_anything_is_kept_from_then_on() {
    let (mut local, mut out) = started(vec![], vec![ttl("a")], none());
    report(&mut local, "a", CheckStatus::Passing, "fine", &mut out);
    let reload = |discard_output| LocalRequest::Reload {
        services: vec![],
        checks: vec![ttl("a")],
        discard_output,
    };
    request(&mut local, 2, reload(true), &mut out);
    assert_eq!(output(&local, "a"), "fine", "what is there stays until the next report");
    report(&mut local, "a", CheckStatus::Passing, "still fine", &mut out);
    assert_eq!(output(&local, "a"), "");
    let (check, status) = (check_id("a"), CheckStatus::Critical);
    let told = LocalInput::CheckResult { check, status, output: "bad".to_owned() };
    local.handle(NOW, told, &mut out);
    let shown = &local.view().checks[&check_id("a")];
    assert_eq!((&shown.status, shown.output.as_str()), (&CheckStatus::Critical, ""));
    request(&mut local, 3, reload(false), &mut out);
    report(&mut local, "a", CheckStatus::Passing, "fine", &mut out);
    assert_eq!(output(&local, "a"), "fine");
}
