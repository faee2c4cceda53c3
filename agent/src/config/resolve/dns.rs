//! How DNS answers: the settings of `dns_config` and its neighbours over their defaults (dns.md §8,
//! §10).

use super::{Checked, ResolveError, refuse};
use crate::config::Settings;
use std::net::SocketAddr;
use std::time::Duration;
use terraform_core::dns::DnsConfig;
use terraform_core::dns::name::Name;
use terraform_io::resolve;

/// The port of a recursor that names none.
const DNS_PORT: u16 = 53;

/// Settles everything but the recursors, of which only the form is looked at.
pub(super) fn config(settings: &Settings, warnings: &mut Vec<String>) -> Checked<DnsConfig> {
    let mut dns = DnsConfig::default();
    if let Some(domain) = name("domain", settings.domain.as_deref())? {
        dns.domain = domain;
    }
    dns.alt_domain = name("alt_domain", settings.alt_domain.as_deref())?;
    dns.translate_wan_addrs = settings.translate_wan_addrs.unwrap_or(false);
    switches(settings, &mut dns, warnings);
    numbers(settings, &mut dns)?;
    times(settings, &mut dns)?;
    for text in &settings.recursors {
        let named = resolve::parse(text, DNS_PORT);
        let named = named.map_err(|error| ResolveError(format!("recursors: {error}")))?;
        if let resolve::Named::Address(address) = named {
            usable(address)?;
        }
    }
    Ok(dns)
}

fn switches(settings: &Settings, dns: &mut DnsConfig, warnings: &mut Vec<String>) {
    for (key, on) in &settings.dns_switches {
        match key.as_str() {
            "only_passing" => dns.only_passing = *on,
            "weighted_order" => dns.weighted_order = *on,
            "enable_truncate" => dns.enable_truncate = *on,
            "allow_stale" => dns.allow_stale = *on,
            "disable_compression" => dns.disable_compression = *on,
            "use_cache" if *on => warnings.push(
                "dns_config.use_cache changes nothing: servers answer from their own copy of the \
                 catalog, and clients ask a server for each answer"
                    .to_owned(),
            ),
            "use_cache" => {}
            _ => dns.node_meta_txt = *on,
        }
    }
}

fn numbers(settings: &Settings, dns: &mut DnsConfig) -> Checked<()> {
    for (key, number) in &settings.dns_numbers {
        let Ok(limit) = usize::try_from(*number) else {
            return refuse(format!(
                "dns_config.{key} cannot be {number}. Must be greater than or equal to zero"
            ));
        };
        match key.as_str() {
            "udp_answer_limit" => dns.udp_answer_limit = limit,
            _ => dns.a_record_limit = limit,
        }
    }
    for (key, number) in &settings.dns_soa {
        let Ok(number) = u32::try_from(*number) else {
            return refuse(format!(
                "dns_config.soa.{key} cannot be {number}. Must be between 0 and {}",
                u32::MAX
            ));
        };
        match key.as_str() {
            "refresh" => dns.soa.refresh = number,
            "retry" => dns.soa.retry = number,
            "expire" => dns.soa.expire = number,
            _ => dns.soa.min_ttl = number,
        }
    }
    Ok(())
}

fn times(settings: &Settings, dns: &mut DnsConfig) -> Checked<()> {
    let seconds = |ttl: Duration| u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
    for (key, time) in &settings.dns_durations {
        match key.as_str() {
            "node_ttl" => dns.node_ttl = seconds(*time),
            "max_stale" => dns.max_stale = *time,
            "recursor_timeout" if time.is_zero() => {
                return refuse(
                    "dns_config.recursor_timeout cannot be 0s. Must be greater than zero",
                );
            }
            "recursor_timeout" => dns.recursor_timeout = *time,
            // How old the content of a cache may be that is not there.
            _ => {}
        }
    }
    let ttls = settings.dns_service_ttl.iter();
    dns.service_ttl = ttls.map(|(name, ttl)| (name.to_lowercase(), seconds(*ttl))).collect();
    Ok(())
}

fn name(key: &str, text: Option<&str>) -> Checked<Option<Name>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let name = Name::parse(text);
    name.map_or_else(|| refuse(format!("{key}: {text:?} is not a DNS name")), |name| Ok(Some(name)))
}

fn usable(recursor: SocketAddr) -> Checked<SocketAddr> {
    if recursor.ip().is_unspecified() {
        return refuse("DNS recursor address cannot be 0.0.0.0, :: or [::]");
    }
    Ok(recursor)
}

/// `dns` with the addresses of its recursors; the names among them are looked up once.
pub async fn with_recursors(mut dns: DnsConfig, recursors: &[String]) -> Checked<DnsConfig> {
    for text in recursors {
        let found = resolve::addresses(text, DNS_PORT).await;
        let invalid = |error: resolve::ResolveError| {
            ResolveError(match error {
                resolve::ResolveError::Unknown(host) => {
                    format!("Invalid recursor address: lookup {host}: no such host")
                }
                error @ resolve::ResolveError::Malformed(_) => format!("recursors: {error}"),
            })
        };
        let first = found.map_err(invalid)?.into_iter().next();
        dns.recursors.extend(first.map(usable).transpose()?);
    }
    Ok(dns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn settled(text: &str) -> Checked<(DnsConfig, Vec<String>)> {
        let (settings, mut warnings) = (parse(text).unwrap(), Vec::new());
        let dns = config(&settings, &mut warnings)?;
        let dns = smol::block_on(with_recursors(dns, &settings.recursors))?;
        Ok((dns, warnings))
    }

    #[test]
    fn every_key_arrives() {
        let (dns, warnings) = settled(
            r#"{"domain": "x.", "alt_domain": "y", "translate_wan_addrs": true,
            "recursors": ["10.0.0.1", "[::1]:54"],
            "dns_config": {"only_passing": true, "enable_truncate": false, "allow_stale": false,
                "weighted_order": true,
                "disable_compression": true, "enable_additional_node_meta_txt": false,
                "udp_answer_limit": 5, "a_record_limit": 6, "node_ttl": "7s", "max_stale": "8s",
                "recursor_timeout": "9s", "service_ttl": {"We*": "10s"}, "use_cache": true,
                "cache_max_age": "11s",
                "soa": {"refresh": 1, "retry": 2, "expire": 3, "Min_TTL": 4}}}"#,
        )
        .unwrap();
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let wanted = DnsConfig {
            domain: Name::parse("x").unwrap(),
            alt_domain: Name::parse("y"),
            allow_stale: false,
            max_stale: Duration::from_secs(8),
            node_ttl: 7,
            service_ttl: [("we*".to_owned(), 10)].into(),
            only_passing: true,
            weighted_order: true,
            udp_answer_limit: 5,
            a_record_limit: 6,
            enable_truncate: false,
            disable_compression: true,
            node_meta_txt: false,
            soa: terraform_core::dns::SoaConfig { refresh: 1, retry: 2, expire: 3, min_ttl: 4 },
            recursors: vec![at("10.0.0.1:53"), at("[::1]:54")],
            recursor_timeout: Duration::from_secs(9),
            translate_wan_addrs: true,
        };
        assert_eq!(dns, wanted);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }

    #[test]
    fn what_cannot_be_is_refused_by_key_and_rule() {
        for (text, expected) in [
            (r#"{"recursors": ["0.0.0.0"]}"#, "DNS recursor address cannot be 0.0.0.0, :: or [::]"),
            (r#"{"recursors": ["[::]:53"]}"#, "DNS recursor address cannot be 0.0.0.0, :: or [::]"),
            (r#"{"recursors": ["a b"]}"#, "recursors: \"a b\" is not an address"),
            (
                r#"{"recursors": ["nosuch.invalid"]}"#,
                "Invalid recursor address: lookup nosuch.invalid: no such host",
            ),
            (r#"{"alt_domain": "a..b"}"#, "alt_domain: \"a..b\" is not a DNS name"),
            (
                r#"{"dns_config": {"soa": {"retry": -1}}}"#,
                "dns_config.soa.retry cannot be -1. Must be between 0 and 4294967295",
            ),
            (
                r#"{"dns_config": {"udp_answer_limit": -1}}"#,
                "dns_config.udp_answer_limit cannot be -1. Must be greater than or equal to zero",
            ),
            (
                r#"{"dns_config": {"recursor_timeout": "0s"}}"#,
                "dns_config.recursor_timeout cannot be 0s. Must be greater than zero",
            ),
        ] {
            let error = settled(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        let unknown = parse(r#"{"dns_config": {"soa": {"nope": 1}}}"#).unwrap_err().to_string();
        assert!(unknown.ends_with("invalid config key dns_config.soa.nope"), "{unknown}");
    }
}
