//! Whole starts on the loopback.

use super::*;
use crate::http::settings::{Facts, HttpRules, Ports as HttpPorts, ServerLimits};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Instant;
use terraform_core::catalog::query::{NodesQuery, Query, Rows};
use terraform_core::config::{Bootstrap, GossipConfig, SerfConfig, ServerConfig};
use terraform_core::id::{Datacenter, NodeName};
use terraform_core::node::input::CheckResult;
use terraform_core::node::request::RequestContext;
use terraform_core::trace::Level;

/// An address of this run alone, and apart from the one that other tests connect from: a port that
/// they were given for that while an agent restarts would not be its own any more.
fn local() -> IpAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 66, high, low))
}

/// A port that nobody else is given. One that the kernel chose could be chosen again for another
/// test before it is bound, or while an agent restarts; these lie below all that it chooses.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn settings(name: &str, gossip: u16, server: u16) -> Settings {
    let any = SocketAddr::from((local(), 0));
    let folder = format!("agent-{}-{name}", std::process::id());
    let facts = Facts {
        server: true,
        bootstrap: true,
        bootstrap_expect: 0,
        version: "1.8.7",
        bind: local(),
        bind_lan: local(),
        advertise: local(),
        advertise_wan: local(),
        tagged_addresses: BTreeMap::new(),
        client_addresses: vec![local()],
        ports: HttpPorts {
            http: None,
            dns: None,
            rpc: None,
            serf_lan: gossip,
            serf_wan: None,
            server,
        },
        domain: "terraform.".to_owned(),
        data_dir: String::new(),
        coordinates: true,
        node_meta: Arc::default(),
    };
    let http_settings = HttpSettings {
        facts,
        remote_script_checks: false,
        session_ttl_min: Duration::from_secs(10),
        use_cache: true,
        reload: None,
        rules: HttpRules::default(),
        limits: ServerLimits::default(),
        connections_per_client_max: Arc::new(AtomicUsize::new(200)),
        logs: Arc::default(),
        scratch: std::env::temp_dir().join(&folder).join("tmp"),
    };
    Settings {
        data_dir: std::env::temp_dir().join(folder),
        node_id: None,
        record: None,
        ports: Ports {
            gossip: SocketAddr::new(local(), gossip),
            wan: None,
            server: Some(SocketAddr::new(local(), server)),
            control: vec![any],
        },
        sink: Arc::new(|_| ()),
        logs: Arc::new(LogRing::default()),
        reload: Arc::new(|| Box::pin(async { Ok(()) })),
        join_ports: [gossip, 8302],
        remote_exec: None,
        server_connections_per_client: 100,
        host_node_id: false,
        services: Services {
            http: vec![any.into()],
            http_settings,
            dns: vec![any],
            dns_config: Arc::default(),
        },
        telemetry: TelemetryConfig::default(),
    }
}

fn config(gossip: u16, server: u16) -> NodeConfig {
    NodeConfig {
        name: NodeName::parse("a").unwrap(),
        datacenter: Datacenter::parse("dc1").unwrap(),
        advertise: local(),
        advertise_wan: local(),
        tagged_addresses: BTreeMap::new(),
        serf_lan_port: gossip,
        server_port: server,
        server: Some(ServerConfig::new(Bootstrap::Alone)),
        gossip: GossipConfig::lan(),
        serf: SerfConfig::default(),
        services: Vec::new(),
        checks: Vec::new(),
        node_meta: BTreeMap::new(),
        rpc_hold: Duration::from_secs(7),
        rpc_rate: None,
        check_update_interval: Duration::from_secs(300),
        check_output: terraform_core::local::definition::OutputRules::default(),
        level: Level::Info,
    }
}

fn no_checks() -> RunCheck {
    let status = terraform_core::catalog::model::CheckStatus::Passing;
    Box::new(move |_, _| {
        let result = CheckResult { status: status.clone(), output: String::new() };
        Box::pin(async { result })
    })
}

#[test]
fn a_lone_server_leads_serves_its_catalog_and_finds_it_again_after_a_stop() {
    let folder = settings("lone", 0, 0).data_dir;
    for _ in 0..2 {
        // A program that another test starts holds the ports of the first life until it runs.
        let (gossip, server) = (free_port(), free_port());
        let settings = settings("lone", gossip, server);
        let running = smol::block_on(start(config(gossip, server), settings, no_checks())).unwrap();
        let began = Instant::now();
        let nodes = loop {
            assert!(began.elapsed() < Duration::from_secs(20), "no catalog in time");
            let query = running
                .handle()
                .query(RequestContext::default(), Query::Nodes(NodesQuery::default()));
            if let Ok(answer) = smol::block_on(query)
                && let Rows::Nodes(nodes) = answer.rows
                && !nodes.is_empty()
            {
                break nodes;
            }
            smol::block_on(smol::Timer::after(Duration::from_millis(10)));
        };
        assert_eq!(nodes.first().map(|node| node.name.to_string()).as_deref(), Some("a"));
        assert!(running.dns_addresses().count() == 1 && running.http_addresses().len() == 1);
        smol::block_on(running.steering().shutdown());
        assert_eq!(smol::block_on(running.wait()), StopReason::Shutdown);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_port_in_use_is_named_with_its_setting_and_nothing_is_written() {
    let taken = UdpSocket::bind((local(), 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let settings = settings("port", address.port(), free_port());
    let folder = settings.data_dir.clone();
    let refused = smol::block_on(Prepared::new(&config(1, 2), settings)).err().unwrap().to_string();
    assert!(refused.starts_with(&format!("cannot listen on {address} (ports.serf_lan): ")));
    let names = std::fs::read_dir(&folder).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["lock"]);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_second_agent_on_a_data_directory_is_refused_at_once() {
    let settings = settings("twice", free_port(), free_port());
    let folder = settings.data_dir.clone();
    let first = smol::block_on(Prepared::new(&config(1, 2), settings.clone())).unwrap();
    let second = smol::block_on(Prepared::new(&config(1, 2), settings)).err();
    assert!(matches!(second, Some(StartError::DataDir(OpenError::InUse { .. }))));
    drop(first);
    std::fs::remove_dir_all(folder).unwrap();
}
