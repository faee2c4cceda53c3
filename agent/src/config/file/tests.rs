//! What a file says, and what is told of one that is wrong (agent-config.md §3).

use super::*;

#[test]
fn keys_are_read_without_regard_to_case() {
    let settings = parse(r#"{"Datacenter": "east", "ports": {"HTTP": 8501}}"#).unwrap();
    assert_eq!(settings.datacenter.as_deref(), Some("east"));
    assert_eq!(settings.ports.get("http"), Some(&8501));
}

#[test]
fn every_unknown_key_is_named_with_its_path() {
    let error = parse(r#"{"nope": 1, "ports": {"nope": 2}}"#).unwrap_err().to_string();
    let expected =
        "2 error(s) occurred:\n * invalid config key nope\n * invalid config key ports.nope";
    assert_eq!(error, expected);
}

#[test]
fn a_problem_inside_a_definition_is_named_with_its_whole_path() {
    let refused = |text| parse(text).unwrap_err().to_string();
    let check = refused(r#"{"service": {"name": "w", "check": {"nope": 1, "ttl": "5s"}}}"#);
    assert!(check.ends_with("invalid config key service.check.nope"), "{check}");
    let weight = refused(r#"{"services": [{"name": "w", "weights": {"passing": "x"}}]}"#);
    assert!(weight.contains("'services.weights.passing' expected type 'int'"), "{weight}");
    let address = refused(r#"{"service": {"name": "w", "tagged_addresses": {"lan": 1}}}"#);
    assert!(address.contains("'service.tagged_addresses.lan' expected type 'map'"), "{address}");
    let definition = refused(r#"{"service": 1}"#);
    assert!(definition.contains("'service' expected type 'map'"), "{definition}");
}

#[test]
fn blocks_are_objects_and_lists_of_them_where_lists_are_wanted() {
    let text = "node_name = \"n\"\nports { http = 1 }\n\
                services { name = \"a\" checks { ttl = \"5s\" } }\n\
                services { name = \"b\" checks { ttl = \"5s\" } checks { ttl = \"6s\" } }\n\
                check { name = \"c\" http = \"http://h\" interval = \"5s\" header { A = [\"b\"] } }";
    let settings = parse_as(Format::Hcl, text).unwrap();
    assert_eq!(settings.ports.get("http"), Some(&1));
    let checks: Vec<usize> = settings.services.iter().map(|one| one.checks.len()).collect();
    assert_eq!((checks, settings.checks.len()), (vec![1, 2], 1));
    let json = r#"{"node_name": "n", "service": [{"name": "a"}], "ports": [{"http": 1}]}"#;
    let settings = parse_as(Format::Hcl, json).unwrap();
    assert_eq!((settings.services.len(), settings.ports.get("http")), (1, Some(&1)));
}

#[test]
fn what_is_wrong_in_hcl_is_told_as_in_json() {
    let refused = |text| parse_as(Format::Hcl, text).unwrap_err().to_string();
    let twice = "1 error(s) decoding:\n * 'service' expected a map, got 'slice'";
    assert_eq!(refused("service { name = \"a\" }\nservice { name = \"b\" }"), twice);
    let twice = "1 error(s) decoding:\n * 'ports' expected a map, got 'slice'";
    assert_eq!(refused("ports { http = 1 }\nports { dns = 2 }"), twice);
    let twice = "1 error(s) decoding:\n * 'service.check' expected a map, got 'slice'";
    let text = "service { name = \"a\" check { ttl = \"5s\" } check { ttl = \"6s\" } }";
    assert_eq!(refused(text), twice);
    let label = "1 error(s) occurred:\n * invalid config key ports.a";
    assert_eq!(refused("ports \"a\" { http = 1 }"), label);
    assert_eq!(refused("node_name = \"x"), "At 1:15: literal not terminated");
}

#[test]
fn a_wrong_type_names_key_and_types() {
    let error = parse(r#"{"ports": {"http": "x"}}"#).unwrap_err().to_string();
    let expected = "1 error(s) decoding:\n \
                    * 'ports.http' expected type 'int', got unconvertible type 'string'";
    assert_eq!(error, expected);
}

#[test]
fn a_setting_that_is_not_built_is_reported_unless_it_is_off() {
    let text = r#"{"ui": true, "ca_file": "", "acl": {"enabled": true}, "verify_incoming": false}"#;
    let unbuilt = parse(text).unwrap().unbuilt;
    let expected = [
        Unbuilt { key: "ui".to_owned(), safety: Safety::Harmless },
        Unbuilt { key: "acl.enabled".to_owned(), safety: Safety::LessSafe },
    ];
    assert_eq!(unbuilt, expected);
}

#[test]
fn a_bad_duration_names_key_and_text() {
    let error = parse(r#"{"retry_interval": "abc"}"#).unwrap_err().to_string();
    assert!(error.contains("retry_interval: invalid duration: \"abc\""), "{error}");
}
