//! The agent itself, membership, and registrations (http-api.md §4–§6).

use super::*;
use terraform_core::catalog::model::CheckStatus;
use terraform_core::coordinate::Coordinate;

#[test]
fn self_shows_config_member_stats_and_meta() {
    let stats = BTreeMap::from([("agent".to_owned(), values::map(&[("checks", "0")]))]);
    let known = BTreeMap::from([(NodeName::parse("n1").unwrap(), Coordinate::ORIGIN)]);
    let answers = vec![Ok(Response::Info(stats)), Ok(Response::Coordinates(known))];
    let (reply, asked) = server().exchange("GET /v1/agent/self", answers);
    assert_eq!(asked[0].body, RequestBody::Info);
    let text = body(&reply);
    let config = r#"{"Config":{"Datacenter":"dc1","NodeName":"n1","NodeID":"07070707-0707-0707-0707-070707070707","Revision":"","Server":true,"Version":"1.8.7"},"DebugConfig":{"#;
    assert!(text.starts_with(config), "{text}");
    assert!(text.contains(r#""HTTPPort":8500"#), "{text}");
    let at = r#""Coord":{"Vec":[0,0,0,0,0,0,0,0],"Error":1.5,"Adjustment":0,"Height":0.00001}"#;
    assert!(text.contains(at), "{text}");
    assert!(text.contains(r#""Member":{"Name":"n1","Addr":"127.0.0.1","Port":8301"#), "{text}");
    assert!(text.contains(r#""Stats":{"agent":{"checks":"0"},"runtime":{"arch":"#), "{text}");
    assert!(text.ends_with(r#"},"Meta":{"consul-network-segment":"","rack":"r1"}}"#), "{text}");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["DebugConfig"]["SerfAdvertiseAddrLAN"], "tcp://127.0.0.1:8301");
    assert_eq!(value["DebugConfig"]["TaggedAddresses"]["wan_ipv4"], "127.0.0.1");
}

#[test]
fn members_are_listed_with_status_and_versions() {
    let world = server();
    let member = r#"[{"Name":"n1","Addr":"127.0.0.1","Port":8301,"Tags":{"role":"terraform"},"Status":1,"ProtocolMin":1,"ProtocolMax":5,"ProtocolCur":2,"DelegateMin":2,"DelegateMax":5,"DelegateCur":4}]"#;
    assert_eq!(world.say("GET /v1/agent/members"), (200, member.to_owned()));
    assert_eq!(world.say("GET /v1/agent/members?segment=_all").0, 200);
    assert_eq!(world.say("GET /v1/agent/members?segment=x").0, 500);
    assert_eq!(world.say("GET /v1/agent/members?segment=x&wan=1").0, 400);
    assert_eq!(world.say("GET /v1/agent/members?wan=1"), (200, "[]".to_owned()));
}

#[test]
fn a_join_takes_addresses_with_and_without_port() {
    let join = |address: &str| {
        let target = format!("PUT /v1/agent/join/{address}");
        let (reply, mut asked) = server().exchange(&target, vec![Ok(Response::Joined(1))]);
        assert_eq!((reply.status, body(&reply)), (200, String::new()));
        let RequestBody::Join { addresses, .. } = asked.pop().unwrap().body else {
            panic!("{asked:?}")
        };
        addresses[0].to_string()
    };
    assert_eq!(join("10.0.0.1"), "10.0.0.1:8301");
    assert_eq!(join("10.0.0.1?wan=1"), "10.0.0.1:8302");
    assert_eq!(join("10.0.0.1:7946"), "10.0.0.1:7946");
    assert_eq!(join("[::1]:7946"), "[::1]:7946");
    assert_eq!(join("::1"), "[::1]:8301");
    assert_eq!(join("[::1]"), "[::1]:8301");
}

#[test]
fn a_failed_join_tells_why() {
    let world = server();
    let none = "1 error occurred:\n\t* Failed to resolve : lookup : no such host\n\n";
    assert_eq!(world.say("PUT /v1/agent/join/"), (500, none.to_owned()));
    assert_eq!(world.say("PUT /v1/agent/join/a:b").0, 500);
    let text = "1 error occurred:\n\t* Failed to join 10.0.0.1: refused\n\n".to_owned();
    let refused = RequestError::Refused(text.clone());
    let (reply, _) = world.exchange("PUT /v1/agent/join/10.0.0.1", vec![Err(refused)]);
    assert_eq!((reply.status, body(&reply)), (500, text));
}

#[test]
fn leaving_is_asked_of_the_node() {
    let (status, text, asked) = server().write("PUT /v1/agent/leave");
    assert_eq!((status, text.as_str(), asked), (200, "", RequestBody::Leave { force: false }));
    let (_, _, asked) = server().write("PUT /v1/agent/force-leave/n2?prune");
    let node = NodeName::parse("n2").unwrap();
    assert_eq!(asked, RequestBody::ForceLeave { node, prune: true });
    let unknown = "agent: No node found with name 'zz'".to_owned();
    let answer = vec![Err(RequestError::NotFound(unknown.clone()))];
    let (reply, _) = server().exchange("PUT /v1/agent/force-leave/zz", answer);
    assert_eq!((reply.status, body(&reply)), (500, unknown));
    assert_eq!(server().say("PUT /v1/agent/force-leave/").0, 500);
}

#[test]
fn a_reload_runs_and_tells_its_error() {
    assert_eq!(with_reload(Ok(())).say("PUT /v1/agent/reload"), (200, String::new()));
    let failed = with_reload(Err("bad file".to_owned())).say("PUT /v1/agent/reload");
    assert_eq!(failed, (500, "bad file".to_owned()));
}

#[test]
fn a_service_registration_reaches_the_node() {
    let register = |query: &str| {
        let target = format!("PUT /v1/agent/service/register{query}\n\n{{\"name\":\"web\"}}");
        let (_, _, asked) = server().write(&target);
        let RequestBody::RegisterService { definition, replace_existing_checks } = asked else {
            panic!("{asked:?}")
        };
        (definition.service.id.to_string(), replace_existing_checks)
    };
    assert_eq!(register(""), ("web".to_owned(), false));
    assert_eq!(register("?replace-existing-checks"), ("web".to_owned(), true));
    assert_eq!(register("?replace-existing-checks=true"), ("web".to_owned(), true));
    assert_eq!(register("?replace-existing-checks=no"), ("web".to_owned(), false));
}

#[test]
fn script_checks_from_remote_need_their_switch() {
    let target = "PUT /v1/agent/check/register\n\n\
                  {\"Name\":\"a\",\"Args\":[\"true\"],\"Interval\":\"5s\"}";
    let (status, text) = server().say(target);
    assert_eq!(status, 500);
    assert!(text.starts_with("Scripts are disabled on this agent from remote calls"), "{text}");
    let mut settings = settings();
    settings.remote_script_checks = true;
    let (status, _, _) = World::new(settings, LocalView::default()).write(target);
    assert_eq!(status, 200);
}

#[test]
fn deregistering_is_asked_by_id() {
    let (status, text, asked) = server().write("PUT /v1/agent/service/deregister/a%2Fb");
    assert_eq!((status, text.as_str()), (200, ""));
    assert!(matches!(asked, RequestBody::DeregisterService(id) if id.as_str() == "a/b"));
    let (_, _, asked) = server().write("PUT /v1/agent/check/deregister/c");
    assert!(matches!(asked, RequestBody::DeregisterCheck(id) if id.as_str() == "c"));
    let world = server();
    let missing = |what: &str| (500, format!("{what} missing"));
    assert_eq!(world.say("PUT /v1/agent/service/deregister/"), missing("ServiceID"));
    assert_eq!(world.say("PUT /v1/agent/check/deregister/"), missing("CheckID"));
}

#[test]
fn maintenance_takes_a_truth_value_and_a_reason() {
    let asked = |target: &str| {
        let (status, text, asked) = server().write(&format!("PUT /v1/agent/{target}"));
        assert_eq!((status, text.as_str()), (200, ""));
        let RequestBody::Maintenance(it) = asked else { panic!("{asked:?}") };
        (it.service.map(|id| id.to_string()), it.enable, it.reason)
    };
    let node = asked("maintenance?enable=T&reason=new+disk");
    assert_eq!(node, (None, true, "new disk".to_owned()));
    assert_eq!(asked("maintenance?enable=0"), (None, false, String::new()));
    let service = asked("service/maintenance/a%2Fb?enable=true");
    assert_eq!(service, (Some("a/b".to_owned()), true, String::new()));
    let world = server();
    for (target, status, text) in [
        ("maintenance", 400, "Missing value for enable"),
        ("maintenance?enable=zz", 400, "Invalid value for enable: \"zz\""),
        ("maintenance?enable", 400, "Invalid value for enable: \"\""),
        ("service/maintenance/", 400, "Missing service ID"),
        ("service/maintenance/a", 400, "Missing value for enable"),
        ("service/maintenance/a?enable=z", 400, "Invalid value for enable: \"z\""),
        ("service/maintenance/a?enable=1&ns=b", 400, "Bad request: Invalid query parameter"),
    ] {
        let (found, said) = world.say(&format!("PUT /v1/agent/{target}"));
        assert_eq!(found, status, "{target}");
        assert!(said.starts_with(text), "{target}: {said}");
    }
    let unknown = "No service registered with ID \"nope\"".to_owned();
    let answer = vec![Err(RequestError::NotFound(unknown.clone()))];
    let (reply, _) = world.exchange("PUT /v1/agent/service/maintenance/nope?enable=1", answer);
    assert_eq!((reply.status, body(&reply)), (404, unknown));
}

#[test]
fn ttl_checks_are_turned_by_path_or_body() {
    let turn = |text: &str| {
        let (_, _, asked) = server().write(text);
        let RequestBody::UpdateTtl { check, status, output } = asked else { panic!("{asked:?}") };
        (check.to_string(), status, output)
    };
    let turned = |status, output: &str| ("c".to_owned(), status, output.to_owned());
    let pass = turn("PUT /v1/agent/check/pass/c?note=a+b");
    assert_eq!(pass, turned(CheckStatus::Passing, "a b"));
    assert_eq!(turn("PUT /v1/agent/check/warn/c"), turned(CheckStatus::Warning, ""));
    assert_eq!(turn("PUT /v1/agent/check/fail/c"), turned(CheckStatus::Critical, ""));
    let update = "PUT /v1/agent/check/update/c\n\n{\"Status\":\"warning\",\"Output\":\"o\"}";
    assert_eq!(turn(update), turned(CheckStatus::Warning, "o"));
    let world = server();
    let say = |json: &str| world.say(&format!("PUT /v1/agent/check/update/c\n\n{json}"));
    assert_eq!(say("{\"Status\":\"x\"}"), (400, "Invalid check status: 'x'".to_owned()));
    let unknown = "Request decode failed: json: unknown field \"note\"";
    assert_eq!(say("{\"note\":\"x\"}"), (400, unknown.to_owned()));
    let nothing = "CheckID \"\" does not have associated TTL";
    assert_eq!(world.say("PUT /v1/agent/check/pass/"), (500, nothing.to_owned()));
}
