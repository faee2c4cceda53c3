//! What an operator asks of consensus: to take a server out, to let another one lead
//! (http-api.md §16; raft.md §8, §10).

use super::Node;
use super::request::{OperatorRequest, PeerName, RequestError, Response};
use super::serve::write_error;
use crate::id::NodeId;
use crate::machine::Machine as _;
use crate::raft::{
    Change, Configuration, ProposalError, RaftInput, RoleKind, TransferError, TransferId,
};
use crate::rpc::Ticket;
use crate::time::Instant;

impl Node {
    /// Does what an operator asks of the leader, which this server is or is taken for.
    pub(super) fn operate(&mut self, now: Instant, ticket: Ticket, request: OperatorRequest) {
        let Some(server) = self.server.as_deref_mut() else { return };
        let input = match request {
            OperatorRequest::RemovePeer(peer) => match find(server.raft.configuration(), &peer) {
                Some(removed) => RaftInput::Change {
                    id: server.serving.issue_change(now, ticket),
                    change: Change::Remove { server: removed, force: false },
                },
                None => {
                    let (kind, name) = match peer {
                        PeerName::Id(id) => ("id", id),
                        PeerName::Address(address) => ("address", address),
                    };
                    let text = format!("{kind} {name:?} was not found in the Raft configuration");
                    return self.executed(now, ticket, Err(RequestError::Refused(text)));
                }
            },
            OperatorRequest::Health => return self.tell_health(now, ticket),
            OperatorRequest::TransferLeadership(to) => {
                RaftInput::Transfer { id: server.serving.issue_transfer(ticket), to }
            }
        };
        server.raft.handle(now, input, &mut self.boxes.raft);
    }

    /// Tells how the servers do, which only their leader knows.
    fn tell_health(&mut self, now: Instant, ticket: Ticket) {
        let leads = self.raft().is_some_and(|raft| raft.role() == RoleKind::Leader);
        let health = self.with_reconcile(now, |duties, world, _| duties.health(now, &world));
        let health = health.filter(|_| leads).map(|health| Response::Health(Box::new(health)));
        self.executed(now, ticket, health.ok_or(RequestError::NoLeader));
    }

    /// A change of the configuration is committed, or was not made.
    pub(super) fn change_ended(
        &mut self,
        now: Instant,
        ticket: Ticket,
        result: Result<(), ProposalError>,
    ) {
        self.executed(now, ticket, result.map(|()| Response::Done).map_err(write_error));
    }

    /// Another server leads, or this one still does.
    pub(super) fn transfer_ended(
        &mut self,
        now: Instant,
        id: TransferId,
        result: Result<(), TransferError>,
    ) {
        if id == TransferId::OF_LEAVE {
            return self.hand_over_ended(now);
        }
        let Some(server) = self.server.as_deref_mut() else { return };
        let Some(ticket) = server.serving.take_transfer(id) else { return };
        let result = match result {
            Ok(()) => Ok(Response::Done),
            Err(TransferError::NotLeader) => Err(RequestError::NoLeader),
            Err(error) => Err(RequestError::Refused(error.to_string())),
        };
        self.executed(now, ticket, result);
    }
}

/// The server of this name.
fn find(configuration: &Configuration, wanted: &PeerName) -> Option<NodeId> {
    match wanted {
        PeerName::Id(id) => NodeId::parse(id).ok().filter(|id| configuration.contains(*id)),
        PeerName::Address(address) => {
            let mut servers = configuration.servers();
            let found = servers.find(|(_, server)| server.address.to_string() == *address);
            found.map(|(id, _)| *id)
        }
    }
}
