//! `/v1/operator/raft`: who takes part in consensus, and who leads it.
//!
//! - Source: http-api.md §16. `transfer-leader` is of later releases: it names the server by `id`,
//!   or lets the leader choose.

use super::*;
use crate::http::json::Json;
use terraform_core::id::NodeId;
use terraform_core::node::request::{OperatorRequest, PeerName};

impl Api {
    pub(super) async fn raft_configuration(&self, request: &ApiRequest<'_>) -> Handled {
        let options = options::read(request, Reads::default())?;
        let answer = self.query(options, Query::RaftConfiguration).await;
        let answer = answer.map_err(|error| Reply::error(&error))?;
        let Rows::RaftConfiguration(configuration) = &answer.rows else {
            return Err(unexpected(&answer));
        };
        let mut json = Json::default();
        json.object(|json| {
            json.key("Servers");
            json.array(&configuration.servers, |json, server| {
                json.object(|json| {
                    json.field("ID", &server.id.to_string());
                    let name = server.name.as_ref().map_or("(unknown)", |name| name.as_str());
                    json.field("Node", name);
                    json.field("Address", &server.address.to_string());
                    json.field("Leader", server.leader);
                    json.field("ProtocolVersion", "3");
                    json.field("Voter", server.voter);
                });
            });
            json.field("Index", configuration.index.get());
        });
        Ok(Reply::json(json.into_bytes()))
    }

    pub(super) async fn raft_peer(&self, request: &ApiRequest<'_>) -> Handled {
        let (id, address) = (request.params.get("id"), request.params.get("address"));
        let refused = |rule: &str| Err(Reply::text(400, format!("Bad request: {rule}")));
        let peer = match (id, address) {
            ("", "") => {
                let rule = "Must specify either ?id with the server's ID or ?address with IP:port \
                            of peer to remove";
                return refused(rule);
            }
            (id, "") => PeerName::Id(id.to_owned()),
            ("", address) => PeerName::Address(address.to_owned()),
            (..) => return refused("Must specify only one of ?id or ?address"),
        };
        self.operate(request, OperatorRequest::RemovePeer(peer)).await?;
        Ok(Reply::empty())
    }

    pub(super) async fn raft_transfer(&self, request: &ApiRequest<'_>) -> Handled {
        let to = match request.params.get("id") {
            "" => None,
            id => {
                let bad = |_| Reply::text(400, format!("Bad request: {id:?} is no server's ID"));
                Some(NodeId::parse(id).map_err(bad)?)
            }
        };
        self.operate(request, OperatorRequest::TransferLeadership(to)).await?;
        Ok(Reply::json(br#"{"Success":true}"#.to_vec()))
    }

    async fn operate(
        &self,
        request: &ApiRequest<'_>,
        wanted: OperatorRequest,
    ) -> Result<(), Reply> {
        let context = options::write(request)?;
        let done = self.done(context, RequestBody::Operator(wanted)).await;
        done.map_err(|error| Reply::error(&error))
    }
}
