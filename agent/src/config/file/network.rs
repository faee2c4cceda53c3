//! Addresses besides the main ones, each by its key (agent-config.md §4, §5).

use super::FileReader;
use serde_json::Value;
use std::collections::BTreeMap;

/// What one source of configuration says of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkSettings {
    /// Single addresses.
    pub addresses: BTreeMap<String, String>,
    /// `tagged_addresses`
    pub tagged: BTreeMap<String, String>,
    /// `serf_lan_allowed_cidrs`
    pub lan_allowed: Vec<String>,
    /// `serf_wan_allowed_cidrs`
    pub wan_allowed: Vec<String>,
}

impl NetworkSettings {
    /// Lays those of a later source over these.
    pub(in crate::config) fn extend(&mut self, above: Self) {
        let Self { addresses, tagged, lan_allowed, wan_allowed } = above;
        self.lan_allowed.extend(lan_allowed);
        self.wan_allowed.extend(wan_allowed);
        self.addresses.extend(addresses);
        self.tagged.extend(tagged);
    }
}

impl FileReader {
    /// One of these keys; `false` if it is another.
    pub(super) fn network(&mut self, key: &str, value: &Value) -> bool {
        match key {
            "advertise_addr_ipv4"
            | "advertise_addr_ipv6"
            | "advertise_addr_wan_ipv4"
            | "advertise_addr_wan_ipv6"
            | "serf_lan" => {
                let address = self.text(key, value).map(|address| (key.to_owned(), address));
                self.settings.network.addresses.extend(address);
            }
            "serf_lan_allowed_cidrs" => self.settings.network.lan_allowed = self.texts(key, value),
            "serf_wan_allowed_cidrs" => self.settings.network.wan_allowed = self.texts(key, value),
            "tagged_addresses" => self.settings.network.tagged = self.text_map(key, value),
            _ => return false,
        }
        true
    }
}
