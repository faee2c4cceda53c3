//! Maintenance: a critical check that keeps traffic away from a node or from one of its services.
//!
//! - Source: http-api.md §4.5 and §6.1. The check is registered like one that came over HTTP, so
//!   it is durable before the answer and is there again after a restart; it never runs.

use super::registry::Registry;
use super::*;

/// The check of a node in maintenance.
pub const NODE_MAINTENANCE: &str = "_node_maintenance";
/// What the check of a service in maintenance begins with; the service's id follows.
pub const SERVICE_MAINTENANCE: &str = "_service_maintenance:";

/// Puts a node or service into maintenance or takes it out; what is so already stays as it is,
/// with its first reason.
///
/// - Errors: `NotFound` for an unknown service.
pub(super) fn set(
    registry: &mut Registry,
    Maintenance { service, enable, reason }: Maintenance,
    out: &mut Outbox<LocalOutput>,
) -> Result<(), RequestError> {
    if let Some(service) = &service
        && !registry.has_service(service)
    {
        return Err(RequestError::NotFound(format!("No service registered with ID {service:?}")));
    }
    let id = match &service {
        None => NODE_MAINTENANCE.to_owned(),
        Some(service) => format!("{SERVICE_MAINTENANCE}{service}"),
    };
    let id = CheckId::parse(&id).map_err(|error| RequestError::Refused(error.to_string()))?;
    if registry.check(&id).is_some() == enable {
        return Ok(());
    }
    if enable {
        registry.register_check(check(id, service.clone(), reason), out)?;
    } else {
        registry.remove_check(&id, out);
    }
    crate::trace!(out, Level::Info, AgentTrace::Maintenance { service, enable });
    Ok(())
}

fn check(id: CheckId, service_id: Option<ServiceId>, reason: String) -> CheckDefinition {
    let (name, what) = match service_id {
        None => ("Node Maintenance Mode", "node"),
        Some(_) => ("Service Maintenance Mode", "service"),
    };
    let notes = match reason.as_str() {
        "" => format!(
            "Maintenance mode is enabled for this {what}, but no reason was provided. This is a \
             default message."
        ),
        _ => reason,
    };
    CheckDefinition {
        id,
        name: name.to_owned(),
        notes,
        service_id,
        status: CheckStatus::Critical,
        kind: CheckKind::Maintenance,
        output_max_size: 0,
        success_before_passing: 0,
        failures_before_critical: 0,
        deregister_critical_service_after: None,
        token: String::new(),
        origin: Origin::Api,
    }
}
