//! Bodies of coordinate updates (http-api.md §13).
//!
//! Differs: a body without `Coord` is refused, where Consul 1.8.7 crashes the request.

use super::catalog::node_name;
use super::read;
use crate::http::api::options::foreign;
use crate::http::decode::{self, DecodeError};
use crate::http::respond::Reply;
use serde_json::Value;
use terraform_core::catalog::model::NodeCoordinate;
use terraform_core::coordinate::{Coordinate, DIMENSIONS};
use terraform_core::id::Datacenter;

/// A coordinate as given; seconds.
#[derive(Debug, Default)]
struct CoordinateBody {
    position: Vec<f64>,
    error: f64,
    height: f64,
    adjustment: f64,
}

/// The coordinate of a node, and the other datacenter that the body names.
pub(in crate::http::api) fn update(
    body: &[u8],
    own: &Datacenter,
) -> Result<(Option<Datacenter>, NodeCoordinate), Reply> {
    let [mut datacenter, mut node, mut segment] = [const { String::new() }; 3];
    let mut given = None;
    read(body, |value| {
        decode::each(value, "CoordinateUpdateRequest", |key, value| {
            match key {
                "datacenter" => datacenter = decode::string(value, "Datacenter")?,
                "node" => node = decode::string(value, "Node")?,
                "segment" => segment = decode::string(value, "Segment")?,
                "coord" if value.is_null() => {}
                "coord" => given = Some(decode_coordinate(value)?),
                // Accepted and without meaning; the token is the request's.
                "token" => drop(decode::string(value, "Token")?),
                _ => return Ok(false),
            }
            Ok(true)
        })
    })?;
    let datacenter = foreign(&datacenter, own)?;
    if !segment.is_empty() {
        let text = "Network segments are not supported in this version of Consul";
        return Err(Reply::text(500, text));
    }
    let node = node_name(&node)?;
    let Some(CoordinateBody { position, error, height, adjustment }) = given else {
        return Err(Reply::text(400, "Request decode failed: missing Coord"));
    };
    let incompatible = || Reply::text(500, "incompatible coordinate");
    let position = <[f64; DIMENSIONS]>::try_from(position).map_err(|_| incompatible())?;
    let coordinate = Coordinate::new(position, error, height, adjustment);
    let coordinate = coordinate.ok_or_else(incompatible)?;
    Ok((datacenter, NodeCoordinate { node, segment, coordinate }))
}

fn decode_coordinate(value: &Value) -> Result<CoordinateBody, DecodeError> {
    let mut body = CoordinateBody::default();
    decode::each(value, "Coord", |key, value| {
        match key {
            "vec" => body.position = decode::list(value, "Vec", decode::float)?,
            "error" => body.error = decode::float(value, "Error")?,
            "height" => body.height = decode::float(value, "Height")?,
            "adjustment" => body.adjustment = decode::float(value, "Adjustment")?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(body)
}
