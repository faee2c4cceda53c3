//! `/v1/status`: who leads, and who votes.
//!
//! - Source: http-api.md §3. Answered by any server, leader or not; no meta headers.

use super::*;
use crate::http::json::Json;
use crate::http::render;
use terraform_core::catalog::query::Rows;

impl Api {
    pub(super) async fn status_leader(&self, request: &ApiRequest<'_>) -> Handled {
        let answer = self.status(request, Query::Leader).await?;
        let Rows::Text(address) = &answer.rows else { return Err(unexpected(&answer)) };
        let mut json = Json::default();
        json.string(address);
        Ok(Reply::json(json.into_bytes()))
    }

    pub(super) async fn status_peers(&self, request: &ApiRequest<'_>) -> Handled {
        let answer = self.status(request, Query::Peers).await?;
        let Rows::Names(addresses) = &answer.rows else { return Err(unexpected(&answer)) };
        let mut json = Json::default();
        render::strings(&mut json, addresses);
        Ok(Reply::json(json.into_bytes()))
    }

    async fn status(&self, request: &ApiRequest<'_>, query: Query) -> Result<QueryAnswer, Reply> {
        let mut options = options::read(request, Reads::default())?;
        options.context.consistency = Consistency::Stale;
        options.max_stale = None;
        self.query(options, query).await.map_err(|error| Reply::error(&error))
    }
}
