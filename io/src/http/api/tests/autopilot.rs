//! How servers are cared for, over HTTP.

use super::*;
use terraform_core::catalog::autopilot::{Autopilot, AutopilotConfig, AutopilotWrite};
use terraform_core::catalog::command::Command;
use terraform_core::id::{LogIndex, Term};
use terraform_core::node::request::OperatorRequest;
use terraform_core::reconcile::{Health, ServerHealth};

const PATH: &str = "/v1/operator/autopilot/configuration";

#[test]
fn the_settings_are_shown_as_consul_shows_them() {
    let (create_index, modify_index) = (ModifyIndex::new(4), ModifyIndex::new(9));
    let stored = Autopilot { config: AutopilotConfig::default(), create_index, modify_index };
    let rows = Rows::Autopilot(Some(Arc::new(stored)));
    let (reply, asked) = server().read(&format!("GET {PATH}?stale"), rows);
    let shown = r#"{"CleanupDeadServers":true,"LastContactThreshold":"200ms","MaxTrailingLogs":250,"MinQuorum":0,"ServerStabilizationTime":"10s","RedundancyZoneTag":"","DisableUpgradeMigration":false,"UpgradeVersionTag":"","CreateIndex":4,"ModifyIndex":9}"#;
    assert_eq!((reply.status, body(&reply).as_str(), reply.meta), (200, shown, None));
    assert_eq!(asked.context.consistency, Consistency::Stale);
    let (reply, _) = server().read(&format!("GET {PATH}"), Rows::Autopilot(None));
    assert_eq!(reply.status, 500);
}

#[test]
fn settings_are_replaced_as_a_whole_and_on_a_condition() {
    let text = r#"{"CleanupDeadServers":true,"LastContactThreshold":"1s","MinQuorum":3}"#;
    let config = AutopilotConfig {
        cleanup_dead_servers: true,
        last_contact_threshold: Duration::from_secs(1),
        max_trailing_logs: 0,
        min_quorum: 3,
        server_stabilization_time: Duration::ZERO,
    };
    let wanted =
        |only_at| RequestBody::Write(Command::Autopilot(AutopilotWrite { config, only_at }));
    let (status, shown, asked) = server().write(&format!("PUT {PATH}\n\n{text}"));
    assert_eq!((status, shown.as_str(), asked), (200, "true", wanted(None)));
    let request = format!("PUT {PATH}?cas=7\n\n{text}");
    let (reply, asked) = server().exchange(&request, vec![Ok(Response::Unmet)]);
    assert_eq!((reply.status, body(&reply).as_str()), (200, "false"));
    assert_eq!(asked[0].body, wanted(Some(ModifyIndex::new(7))));
}

#[test]
fn what_is_no_setting_is_refused_by_name() {
    let world = server();
    let refused = |request: &str| world.say(request);
    let (status, text) = refused(&format!("PUT {PATH}?cas=x\n\n{{}}"));
    assert_eq!(status, 400);
    assert!(text.starts_with("Bad request: Error parsing cas value: "), "{text}");
    for body in ["", "[]", r#"{"MinQuorum":-1}"#, r#"{"MinQuorums":1}"#, r#"{"MinQuorum":"x"}"#] {
        let (status, text) = refused(&format!("PUT {PATH}\n\n{body}"));
        assert_eq!(status, 400);
        assert!(text.starts_with("Bad request: Error parsing autopilot config: "), "{text}");
    }
    let (status, text) = refused(&format!("PUT {PATH}\n\n{{\"UpgradeVersionTag\":\"v\"}}"));
    assert_eq!(status, 501);
    assert!(text.contains("UpgradeVersionTag"), "{text}");
}

#[test]
fn health_is_429_unless_every_server_is_healthy() {
    let row = |byte: u8, healthy| ServerHealth {
        id: NodeId::from_bytes([byte; 16]),
        name: Some(NodeName::parse("n1").unwrap()),
        address: "10.0.0.1:8300".parse().unwrap(),
        status: "alive".to_owned(),
        version: "1.8.7".to_owned(),
        leader: true,
        last_contact: Duration::from_millis(50),
        last_term: Term::new(2),
        last_index: LogIndex::new(108),
        healthy,
        voter: true,
        stable_for: Duration::from_secs(10),
    };
    for (healthy, status) in [(true, 200), (false, 429)] {
        let health = Health { failure_tolerance: 0, servers: vec![row(1, healthy)] };
        let answer = Ok(Response::Health(Box::new(health)));
        let path = "GET /v1/operator/autopilot/health";
        let (reply, asked) = server().exchange(path, vec![answer]);
        let shown = body(&reply);
        let start = format!(
            "{{\"Healthy\":{healthy},\"FailureTolerance\":0,\"Servers\":[{{\
             \"ID\":\"01010101-0101-0101-0101-010101010101\",\"Name\":\"n1\",\
             \"Address\":\"10.0.0.1:8300\",\"SerfStatus\":\"alive\",\"Version\":\"1.8.7\",\
             \"Leader\":true,\"LastContact\":\"50ms\",\"LastTerm\":2,\"LastIndex\":108,\
             \"Healthy\":{healthy},\"Voter\":true,\"StableSince\":\"20"
        );
        assert_eq!(reply.status, status);
        assert!(shown.starts_with(&start), "{shown}");
        assert_eq!(asked[0].body, RequestBody::Operator(OperatorRequest::Health));
    }
}
