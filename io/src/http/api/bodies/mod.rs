//! Request bodies turned into validated, defaulted values of the core.
//!
//! - Source: http-api.md §1.12, §5.1, §6.1, §7.1 and §7.2, with their error texts.
//! - A known field of a feature that is not built is refused with 501 unless it says nothing.

pub(super) mod catalog;
pub(super) mod check;
pub(super) mod coordinate;
pub(super) mod query;
pub(super) mod service;
pub(super) mod session;
pub(super) mod txn;

#[cfg(test)]
mod tests;

use crate::http::decode::{self, DecodeError};
use crate::http::respond::Reply;
use serde_json::Value;
use terraform_core::catalog::model::{ServiceAddress, Weights};

/// Reads the body with `decode`; 400 with Consul's words if it cannot be read.
fn read<T>(body: &[u8], decode: impl FnOnce(&Value) -> Result<T, DecodeError>) -> Result<T, Reply> {
    let decoded = decode::parse(body).and_then(|value| decode(&value));
    decoded.map_err(|error| Reply::text(400, format!("Request decode failed: {error}")))
}

/// The fields that an undecodable feature would need: refused by name if one says something.
fn refuse_unbuilt(unbuilt: Option<&'static str>) -> Result<(), Reply> {
    match unbuilt {
        Some(field) => Err(Reply::not_built(&format!("the field \"{field}\""))),
        None => Ok(()),
    }
}

fn weights(value: &Value) -> Result<Option<Weights>, DecodeError> {
    if value.is_null() {
        return Ok(None);
    }
    let mut weights = Weights { passing: 0, warning: 0 };
    decode::each(value, "Weights", |key, value| {
        match key {
            "passing" => weights.passing = decode::integer(value, "Passing")?,
            "warning" => weights.warning = decode::integer(value, "Warning")?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Some(weights))
}

fn service_address(value: &Value, field: &'static str) -> Result<ServiceAddress, DecodeError> {
    let mut address = ServiceAddress { address: String::new(), port: 0 };
    decode::each(value, field, |key, value| {
        match key {
            "address" => address.address = decode::string(value, "Address")?,
            "port" => address.port = decode::integer(value, "Port")?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(address)
}

/// Whether `address` means every address, which no service can have.
fn is_any_address(address: &str) -> bool {
    matches!(address, "0.0.0.0" | "::" | "[::]")
}
