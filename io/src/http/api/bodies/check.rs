//! Bodies of check registrations and TTL updates (http-api.md §5.1, §5.3).

use super::read;
use crate::http::decode::{self, DecodeError};
use crate::http::respond::Reply;
use serde_json::Value;
use std::time::Duration;
use terraform_core::catalog::model::CheckStatus;
use terraform_core::id::{CheckId, ServiceId};
use terraform_core::local::definition::{
    CheckDefinition, CheckError, CheckSource, DEREGISTER_AFTER_MIN, Origin,
};

/// Where a check is given, which decides the name of its identity's field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `check/register`: `ID`.
    Alone,
    /// In a service: `CheckID`.
    InService,
}

/// A check as given.
#[derive(Debug, Default)]
pub(super) struct CheckBody {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) notes: String,
    pub(super) service_id: String,
    pub(super) status: String,
    token: String,
    source: CheckSource,
    output_max_size: i64,
    success_before_passing: i64,
    failures_before_critical: i64,
    deregister_after: Duration,
}

/// Reads a check.
pub(super) fn decode_check(value: &Value, place: Place) -> Result<CheckBody, DecodeError> {
    let mut body = CheckBody::default();
    decode::each(value, "Check", |key, value| match (place, key) {
        (Place::Alone, "id") => {
            body.id = decode::string(value, "ID")?;
            Ok(true)
        }
        (Place::InService, "checkid") => {
            body.id = decode::string(value, "CheckID")?;
            Ok(true)
        }
        (Place::Alone | Place::InService, key) => {
            Ok(body.take_text(key, value)? || body.take_rule(key, value)?)
        }
    })?;
    Ok(body)
}

impl CheckBody {
    fn take_text(&mut self, key: &str, value: &Value) -> Result<bool, DecodeError> {
        let source = &mut self.source;
        match key {
            "name" => self.name = decode::string(value, "Name")?,
            "notes" => self.notes = decode::string(value, "Notes")?,
            "status" => self.status = decode::string(value, "Status")?,
            "token" => self.token = decode::string(value, "Token")?,
            "serviceid" | "service_id" => self.service_id = decode::string(value, "ServiceID")?,
            "http" => source.http = decode::string(value, "HTTP")?,
            "method" => source.method = decode::string(value, "Method")?,
            "body" => source.body = decode::string(value, "Body")?,
            "tcp" => source.tcp = decode::string(value, "TCP")?,
            "udp" => source.udp = decode::string(value, "UDP")?,
            "grpc" => source.grpc = decode::string(value, "GRPC")?,
            "dockercontainerid" | "docker_container_id" => {
                source.docker_container_id = decode::string(value, "DockerContainerID")?;
            }
            // Without effect, as with Consul: the arguments are run without a shell.
            "shell" => drop(decode::string(value, "Shell")?),
            "aliasnode" => source.alias_node = decode::string(value, "AliasNode")?,
            "aliasservice" => {
                source.alias_service = decode::string(value, "AliasService")?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_rule(&mut self, key: &str, value: &Value) -> Result<bool, DecodeError> {
        let source = &mut self.source;
        let strings = |value: &Value, field| decode::list(value, field, decode::string);
        match key {
            "args" | "scriptargs" | "script_args" => source.args = strings(value, "ScriptArgs")?,
            "header" => source.header = decode::map(value, "Header", strings)?,
            "interval" => source.interval = decode::duration(value, "Interval")?,
            "timeout" => source.timeout = decode::duration(value, "Timeout")?,
            "ttl" => source.ttl = decode::duration(value, "TTL")?,
            "tlsskipverify" | "tls_skip_verify" => {
                source.tls_skip_verify = decode::boolean(value, "TLSSkipVerify")?;
            }
            "grpcusetls" => source.grpc_use_tls = decode::boolean(value, "GRPCUseTLS")?,
            "outputmaxsize" => self.output_max_size = decode::integer(value, "OutputMaxSize")?,
            "successbeforepassing" => {
                self.success_before_passing = decode::integer(value, "SuccessBeforePassing")?;
            }
            "failuresbeforecritical" => {
                self.failures_before_critical = decode::integer(value, "FailuresBeforeCritical")?;
            }
            "deregistercriticalserviceafter" | "deregister_critical_service_after" => {
                let field = "DeregisterCriticalServiceAfter";
                self.deregister_after = decode::duration(value, field)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The definition under this identity, name and service; `status` was looked at before.
    pub(super) fn define(
        self,
        id: CheckId,
        name: String,
        service_id: Option<ServiceId>,
    ) -> Result<CheckDefinition, Reply> {
        let kind = self.source.kind().map_err(|error| invalid(&error))?;
        let output_max_size = usize::try_from(self.output_max_size);
        let output_max_size = output_max_size.map_err(|_| invalid(&CheckError::OutputLimit))?;
        let count = |count: i64| u32::try_from(count.max(0)).unwrap_or(u32::MAX);
        let status = match self.status.as_str() {
            "" => CheckStatus::Critical,
            status => CheckStatus::from_text(status),
        };
        let after = Some(self.deregister_after).filter(|after| !after.is_zero());
        Ok(CheckDefinition {
            id,
            name,
            notes: self.notes,
            service_id,
            status,
            kind,
            output_max_size,
            success_before_passing: count(self.success_before_passing),
            failures_before_critical: count(self.failures_before_critical),
            deregister_critical_service_after: after.map(|it| it.max(DEREGISTER_AFTER_MIN)),
            token: self.token,
            origin: Origin::Api,
        })
    }
}

fn invalid(error: &CheckError) -> Reply {
    Reply::text(400, format!("Invalid check: {error}"))
}

/// Whether a registration may give this status; empty stands for critical.
pub(super) fn is_agent_status(status: &str) -> bool {
    matches!(status, "" | "passing" | "warning" | "critical")
}

/// The body of `check/register`.
pub(in crate::http::api) fn node_check(body: &[u8]) -> Result<CheckDefinition, Reply> {
    let check = read(body, |value| decode_check(value, Place::Alone))?;
    if check.name.is_empty() {
        return Err(Reply::text(400, "Missing check name"));
    }
    if !is_agent_status(&check.status) {
        return Err(Reply::text(400, "Bad check status"));
    }
    let id = if check.id.is_empty() { &check.name } else { &check.id };
    let id = CheckId::parse(id).map_err(|error| Reply::text(400, error.to_string()))?;
    let service_id = match check.service_id.as_str() {
        "" => None,
        text => {
            let unknown = |_| Reply::text(500, format!("ServiceID {text:?} does not exist"));
            Some(ServiceId::parse(text).map_err(unknown)?)
        }
    };
    let name = check.name.clone();
    check.define(id, name, service_id)
}

/// The body of `check/update`: status and output.
pub(in crate::http::api) fn update(body: &[u8]) -> Result<(CheckStatus, String), Reply> {
    let (mut status, mut output) = (String::new(), String::new());
    read(body, |value| {
        decode::each(value, "Update", |key, value| {
            match key {
                "status" => status = decode::string(value, "Status")?,
                "output" => output = decode::string(value, "Output")?,
                _ => return Ok(false),
            }
            Ok(true)
        })
    })?;
    match CheckStatus::from_text(&status) {
        CheckStatus::Other(text) => {
            Err(Reply::text(400, format!("Invalid check status: '{text}'")))
        }
        known @ (CheckStatus::Passing | CheckStatus::Warning | CheckStatus::Critical) => {
            Ok((known, output))
        }
    }
}
