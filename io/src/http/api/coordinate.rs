//! `/v1/coordinate`: where nodes are, so that round trips between them can be foretold.
//!
//! - Source: http-api.md §13.

use super::*;
use crate::http::json::Json;
use crate::http::render;
use std::sync::Arc;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::model::NodeCoordinate;
use terraform_core::catalog::query::{CoordinateQuery, DatacenterCoordinates};
use terraform_core::id::NodeName;

/// What the reads of this group act on.
const COORDINATES: Reads = Reads { blocks: true, caches: false, refuses_namespace: false };

impl Api {
    /// Refuses everything here where coordinates are switched off.
    fn need_coordinates(&self) -> Result<(), Reply> {
        if self.settings.facts.coordinates {
            return Ok(());
        }
        Err(Reply::text(401, "Coordinate support disabled"))
    }

    pub(super) async fn coordinate_nodes(&self, request: &ApiRequest<'_>) -> Handled {
        self.need_coordinates()?;
        let options = options::read(request, COORDINATES)?;
        let query = CoordinateQuery { node: None, segment: segment(request) };
        self.coordinates(options, query).await.map(|(_, reply)| reply)
    }

    pub(super) async fn coordinate_node(&self, request: &ApiRequest<'_>) -> Handled {
        self.need_coordinates()?;
        let options = options::read(request, COORDINATES)?;
        let node = health::argument(request, "Missing node name", NodeName::parse)?;
        let query = CoordinateQuery { node: Some(node), segment: segment(request) };
        let (found, reply) = self.coordinates(options, query).await?;
        if found > 0 {
            return Ok(reply);
        }
        Ok(Reply { meta: reply.meta, ..Reply::status(404) })
    }

    /// The coordinates, and how many there are; without the consistency in the meta headers.
    async fn coordinates(
        &self,
        options: ReadOptions,
        query: CoordinateQuery,
    ) -> Result<(usize, Reply), Reply> {
        match self.query(options, Query::Coordinates(query)).await {
            Ok(answer) => {
                let Rows::Coordinates(rows) = &answer.rows else { return Err(unexpected(&answer)) };
                let mut json = Json::with_capacity(rows.len() * 256 + 2);
                render_rows(&mut json, rows);
                let meta = Meta { consistency: None, ..Meta::of(&answer) };
                Ok((rows.len(), Reply::json(json.into_bytes()).with_meta(meta)))
            }
            Err(error) => Err(Reply::error(&error).with_meta(Meta::zero())),
        }
    }

    pub(super) async fn coordinate_datacenters(&self, request: &ApiRequest<'_>) -> Handled {
        self.need_coordinates()?;
        let context = options::local(request);
        let answer = self.node.query(context, Query::DatacenterCoordinates).await;
        let answer = answer.map_err(|error| Reply::error(&error))?;
        let Rows::DatacenterCoordinates(rows) = &answer.rows else {
            return Err(unexpected(&answer));
        };
        let mut json = Json::default();
        json.array(rows, |json, DatacenterCoordinates { datacenter, servers }| {
            json.object(|json| {
                json.field("Datacenter", datacenter.as_str());
                json.field("AreaID", "wan");
                json.key("Coordinates");
                render_rows(json, servers);
            });
        });
        Ok(Reply::json(json.into_bytes()))
    }

    pub(super) async fn coordinate_update(&self, request: &ApiRequest<'_>) -> Handled {
        self.need_coordinates()?;
        let mut context = options::write(request)?;
        let (datacenter, row) = bodies::coordinate::update(request.body, request.datacenter)?;
        context.datacenter = datacenter.or(context.datacenter);
        self.agent_done(context, RequestBody::Write(Command::Coordinates(vec![row]))).await
    }
}

/// The segment that is asked for; an empty one is one too.
fn segment(request: &ApiRequest<'_>) -> Option<String> {
    let given = request.params.has("segment");
    given.then(|| request.params.get("segment").to_owned())
}

fn render_rows(json: &mut Json, rows: &[Arc<NodeCoordinate>]) {
    json.array(rows, |json, row| {
        json.object(|json| {
            json.field("Node", row.node.as_str());
            json.field("Segment", &row.segment);
            json.key("Coord");
            render::coordinate(json, &row.coordinate);
        });
    });
}
