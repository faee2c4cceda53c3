//! The interface as the agent itself reads it: the same endpoints, without a socket.
//!
//! What is set of the interface is for others: no endpoint is blocked here, and all are there
//! although no port is.

use super::api::Api;
use super::connection::HttpRequest;
use super::parse::{BodyFraming, Field, Head, Method};
use super::respond::Reply;
use super::settings::{HttpRules, HttpSettings};
use crate::handle::NodeHandle;
use bytes::Bytes;
use std::sync::Arc;

/// The endpoints of this agent; clones share them.
#[derive(Clone, Debug)]
pub struct OwnApi(Arc<Api>);

impl OwnApi {
    /// Those of `node`.
    pub fn new(node: NodeHandle, settings: HttpSettings) -> Self {
        let discovery_max_stale = settings.rules.discovery_max_stale;
        let rules = HttpRules { discovery_max_stale, ..HttpRules::default() };
        Self(Arc::new(Api::new(node, HttpSettings { rules, ..settings })))
    }

    /// Whether the node has stopped, so that nothing more is answered.
    pub fn has_stopped(&self) -> bool {
        self.0.node().has_stopped()
    }

    /// What a client gets for `GET target` with this token; an empty one is none.
    pub async fn get(&self, target: String, token: &str) -> Reply {
        let token = (!token.is_empty()).then(|| (Field::Token, token.to_owned()));
        let head = Head {
            method: Method::Get,
            target,
            is_http11: true,
            fields: token.into_iter().collect(),
            framing: BodyFraming::Length(0),
            keep_alive: true,
            expects_continue: false,
        };
        let request = HttpRequest { head, body: Bytes::new(), file: None };
        self.0.answer(&request, None).await
    }
}
