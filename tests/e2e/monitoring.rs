//! What agents tell of themselves.

use e2e::{LONG, Options, wait_until};
use std::net::UdpSocket;

#[test]
fn a_server_is_collected_by_prometheus_and_statsd_and_its_filter_is_reloaded() {
    let collector = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    collector.set_read_timeout(Some(LONG)).expect("the socket takes a timeout");
    let statsd = collector.local_addr().expect("the socket is bound");
    let folder = e2e::Folder::new("telemetry");
    let configure = |filter: &str| {
        let text = format!(
            r#"{{"telemetry": {{"prometheus_retention_time": "1m", "disable_hostname": true,
                "statsd_address": "{statsd}", "prefix_filter": [{filter}]}}}}"#
        );
        std::fs::write(folder.join("telemetry.json"), text).expect("the folder is writable");
    };
    configure(r#""-consul.runtime""#);
    let flag = folder.to_str().expect("the folder's name is text");
    let agent = Options::new("told", &["-server", "-bootstrap", "-config-dir", flag]).start();
    agent.wait_for_leader();
    assert_eq!(agent.put("/v1/kv/a", "x").status, 200);
    let scraped = || agent.get("/v1/agent/metrics?format=prometheus");
    wait_until("a leader's numbers", LONG, || {
        scraped().body.contains("\nconsul_server_isLeader 1\n").then_some(())
    });
    let text = scraped();
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(text.header("content-type"), Some(kind));
    for line in [
        "# TYPE consul_http_PUT_v1_kv__ summary",
        "consul_http_PUT_v1_kv___count 1",
        "consul_kvs_apply_count 1",
        "consul_state_kv_entries 1",
        "consul_autopilot_healthy 1",
    ] {
        assert!(text.body.contains(&format!("\n{line}\n")), "{line} is not in {}", text.body);
    }
    assert!(!text.body.contains("consul_runtime"), "{}", text.body);
    let mut packet = [0; 2048];
    let length = collector.recv(&mut packet).expect("an interval is sent");
    let lines = String::from_utf8_lossy(&packet[..length]).into_owned();
    assert!(lines.lines().all(|line| line.starts_with("consul.")), "{lines}");
    configure("");
    assert!(agent.command(&["reload"]).status.success());
    assert!(scraped().body.contains("\nconsul_runtime_uptime_seconds "));
}
