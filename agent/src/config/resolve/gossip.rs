//! The rules of gossip and of Serf above it (agent-config.md §5, §12).

use super::super::Settings;
use super::{Checked, ResolveError, network, refuse};
use std::net::IpAddr;
use std::time::Duration;
use terraform_core::config::{GossipConfig, SerfConfig};
use terraform_core::id::PoolName;
use terraform_core::wire::seal::{Key, KeyError};

/// The timers, members and layers of a pool; `own` is this agent's address in it.
pub(super) fn gossip(
    settings: &Settings,
    (pool, own): (PoolName, IpAddr),
    dev: bool,
) -> Checked<GossipConfig> {
    let allowed = &settings.network;
    let (section, mut gossip, (key, texts)) = match pool {
        PoolName::Lan => {
            ("gossip_lan", GossipConfig::lan(), ("serf_lan_allowed_cidrs", &allowed.lan_allowed))
        }
        PoolName::Wan => {
            ("gossip_wan", GossipConfig::wan(), ("serf_wan_allowed_cidrs", &allowed.wan_allowed))
        }
    };
    gossip.networks = network::allowed(key, texts, own)?;
    if dev {
        gossip.gossip_interval = Duration::from_millis(100);
        gossip.probe_interval = Duration::from_millis(200);
        gossip.probe_timeout = Duration::from_millis(100);
    }
    let key_of = |path: &str| {
        let key = path.strip_prefix(section)?.strip_prefix('.')?;
        Some(key.to_owned())
    };
    for (path, value) in &settings.gossip_durations {
        let Some(key) = key_of(path) else { continue };
        if *value < Duration::from_millis(10) || *value > Duration::from_secs(60) {
            return refuse(format!("{path} must be between 10ms and 1m"));
        }
        match key.as_str() {
            "gossip_interval" => gossip.gossip_interval = *value,
            "probe_interval" => gossip.probe_interval = *value,
            _ => gossip.probe_timeout = *value,
        }
    }
    for (path, value) in &settings.gossip_numbers {
        let Some(key) = key_of(path) else { continue };
        let Some(number) = u32::try_from(*value).ok().filter(|n| (1..=100).contains(n)) else {
            return refuse(format!("{path} cannot be {value}. Must be between 1 and 100"));
        };
        match key.as_str() {
            "gossip_nodes" => gossip.gossip_nodes = usize::try_from(number).unwrap_or(3),
            "retransmit_mult" => gossip.retransmit_mult = number,
            _ => gossip.suspicion_mult = number,
        }
    }
    if gossip.probe_timeout >= gossip.probe_interval {
        return refuse(format!(
            "{section}.probe_timeout must be shorter than {section}.probe_interval"
        ));
    }
    encryption(settings, &mut gossip)?;
    Ok(gossip)
}

/// How gossip is encrypted (agent-config.md §12).
fn encryption(settings: &Settings, gossip: &mut GossipConfig) -> Checked<()> {
    let key = settings.encrypt.as_deref().filter(|text| !text.is_empty()).map(Key::from_base64);
    gossip.encrypt = key.transpose().map_err(|error| {
        ResolveError(match error {
            KeyError::Base64(error) => format!("encrypt has invalid key: {error}"),
            KeyError::Length => format!("Failed to configure keyring: Invalid key: {error}"),
        })
    })?;
    gossip.verify_incoming = settings.encrypt_verify_incoming.unwrap_or(true);
    gossip.verify_outgoing = settings.encrypt_verify_outgoing.unwrap_or(true);
    gossip.keyring_file = !settings.disable_keyring_file.unwrap_or(false);
    Ok(())
}

/// The timers of Serf in the LAN pool.
pub(super) fn serf(settings: &Settings, gossip: &GossipConfig) -> SerfConfig {
    let gossip_interval = gossip.gossip_interval;
    let mut serf = SerfConfig { gossip_interval, ..SerfConfig::default() };
    if let Some(timeout) = settings.reconnect_timeout {
        serf.reconnect_timeout = timeout;
    }
    serf.coordinates = !settings.disable_coordinates.unwrap_or(false);
    serf.rejoin_after_leave = settings.rejoin_after_leave.unwrap_or(false);
    serf
}
