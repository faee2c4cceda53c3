//! The sections of `info`: numbers and states for people, all text (cli.md §3, http-api.md §4.1).

use super::Node;
use super::pool::Pool;
use super::request::InfoSections;
use super::server::API_VERSION;
use crate::local::definition::{AliasCheck, CheckKind};
use crate::raft::RoleKind;
use crate::serf::MemberStatus;
use crate::time::Instant;
use std::collections::BTreeMap;

/// One section under construction.
#[derive(Default)]
struct Section(BTreeMap<String, String>);

impl Section {
    fn set(&mut self, key: &str, value: impl ToString) {
        self.0.insert(key.to_owned(), value.to_string());
    }
}

impl Node {
    /// What this agent knows of itself.
    pub(super) fn info(&self, now: Instant) -> InfoSections {
        let mut sections = InfoSections::new();
        let mut put = |name: &str, section: Section| sections.insert(name.to_owned(), section.0);
        put("agent", self.agent_section());
        put("build", build_section());
        put("consul", self.role_section());
        put("serf_lan", serf_section(&self.lan));
        if let Some(wan) = &self.wan {
            put("serf_wan", serf_section(wan));
        }
        if let Some(raft) = self.raft_section(now) {
            put("raft", raft);
        }
        sections
    }

    fn agent_section(&self) -> Section {
        let view = self.local.view();
        let count = |kinds: &[&str]| {
            view.checks.values().filter(|check| kinds.contains(&check.kind.as_str())).count()
        };
        let ttl = CheckKind::Ttl(std::time::Duration::ZERO).name();
        let alias = CheckKind::Alias(AliasCheck { node: None, service: None }).name();
        let told = [ttl, CheckKind::Maintenance.name(), alias];
        let mut section = Section::default();
        section.set("check_monitors", view.checks.len() - count(&told));
        section.set("check_ttls", count(&[ttl]));
        section.set("checks", view.checks.len());
        section.set("services", view.services.len());
        section
    }

    fn role_section(&self) -> Section {
        let mut section = Section::default();
        section.set("acl", "disabled");
        section.set("server", self.server.is_some());
        match self.server.as_deref() {
            None => section.set("known_servers", self.servers.len()),
            Some(server) => {
                let alone = self.config.server.as_ref().is_some_and(|config| {
                    matches!(config.bootstrap, crate::config::Bootstrap::Alone)
                });
                let address = self.leader.map_or_else(String::new, |(_, at)| at.to_string());
                section.set("bootstrap", alone);
                section.set("known_datacenters", self.wan_state.datacenters.len());
                section.set("leader", server.raft.role() == RoleKind::Leader);
                section.set("leader_addr", address);
            }
        }
        section
    }

    fn raft_section(&self, now: Instant) -> Option<Section> {
        let server = self.server.as_deref()?;
        let (raft, snapshot) = (&server.raft, server.snapshots.newest());
        let view = raft.view(now);
        let contact = match (view.is_leader(), view.leader_contact_at) {
            (true, _) => "0".to_owned(),
            (false, Some(at)) => format!("{}ms", now.since(at).as_millis()),
            (false, None) => "never".to_owned(),
        };
        let servers = view.configuration.servers().map(|(id, server)| {
            let suffrage = if view.configuration.is_voter(*id) { "Voter" } else { "Nonvoter" };
            format!("{{Suffrage:{suffrage} ID:{id} Address:{}}}", server.address)
        });
        let others = view.configuration.voters.keys().filter(|id| **id != self.id).count();
        let mut section = Section::default();
        section.set("applied_index", view.applied);
        section.set("commit_index", view.commit);
        section.set("fsm_pending", view.commit.above(view.applied));
        section.set("last_contact", contact);
        section.set("last_log_index", view.last);
        section.set("last_log_term", view.last_term);
        let (index, term) = snapshot.map_or((0, 0), |id| (id.index.get(), id.term.get()));
        section.set("last_snapshot_index", index);
        section.set("last_snapshot_term", term);
        let list: Vec<String> = servers.collect();
        section.set("latest_configuration", format!("[{}]", list.join(" ")));
        section.set("latest_configuration_index", view.configuration_index);
        section.set("num_peers", others);
        section.set("protocol_version", 3);
        section.set("protocol_version_max", 3);
        section.set("protocol_version_min", 3);
        section.set("recovering", raft.is_recovering());
        section.set("snapshot_version_max", 1);
        section.set("snapshot_version_min", 1);
        section.set("state", view.role);
        section.set("term", view.term);
        Some(section)
    }
}

fn serf_section(Pool { gossip, serf, .. }: &Pool) -> Section {
    let count = |status| serf.members().filter(|m| m.status == status).count();
    let [_, intent_queue, query_queue, event_queue] = gossip.queued();
    let mut section = Section::default();
    section.set("coordinate_resets", serf.coordinate_resets());
    section.set("dropped", gossip.dropped());
    section.set("encrypted", gossip.keyring().primary().is_some());
    section.set("event_queue", event_queue);
    section.set("event_time", serf.event_time());
    section.set("failed", count(MemberStatus::Failed));
    section.set("health_score", gossip.health_score());
    section.set("intent_queue", intent_queue);
    section.set("left", count(MemberStatus::Left));
    section.set("member_time", serf.member_time());
    section.set("members", serf.members().count());
    section.set("query_queue", query_queue);
    section.set("query_time", serf.query_time());
    section
}

fn build_section() -> Section {
    let mut section = Section::default();
    section.set("prerelease", "");
    section.set("revision", "");
    section.set("version", API_VERSION);
    section
}
