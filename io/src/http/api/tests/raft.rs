//! Consensus for operators, over HTTP.

use super::*;
use terraform_core::catalog::query::{RaftConfiguration, RaftServer};
use terraform_core::id::LogIndex;
use terraform_core::node::request::{OperatorRequest, PeerName};

#[test]
fn the_configuration_names_the_voters_and_the_leader() {
    let server = |byte, name: Option<&str>, leader| RaftServer {
        id: NodeId::from_bytes([byte; 16]),
        name: name.map(|name| NodeName::parse(name).unwrap()),
        address: format!("10.0.0.{byte}:8300").parse().unwrap(),
        leader,
        voter: true,
    };
    let servers = vec![server(1, Some("n1"), true), server(2, None, false)];
    let rows = Rows::RaftConfiguration(RaftConfiguration { index: LogIndex::new(7), servers });
    let (reply, asked) = self::server().read("GET /v1/operator/raft/configuration?stale", rows);
    let shown = r#"{"Servers":[{"ID":"01010101-0101-0101-0101-010101010101","Node":"n1","Address":"10.0.0.1:8300","Leader":true,"ProtocolVersion":"3","Voter":true},{"ID":"02020202-0202-0202-0202-020202020202","Node":"(unknown)","Address":"10.0.0.2:8300","Leader":false,"ProtocolVersion":"3","Voter":true}],"Index":7}"#;
    assert_eq!((reply.status, body(&reply).as_str(), reply.meta), (200, shown, None));
    assert_eq!(asked.context.consistency, Consistency::Stale);
}

#[test]
fn a_peer_is_named_in_exactly_one_way() {
    let world = server();
    let path = "DELETE /v1/operator/raft/peer";
    let both = (400, "Bad request: Must specify only one of ?id or ?address".to_owned());
    assert_eq!(world.say(&format!("{path}?id=a&address=b")), both);
    assert!(world.say(path).1.starts_with("Bad request: Must specify either ?id"));
    let (status, shown, asked) = world.write(&format!("{path}?address=10.0.0.1:8300"));
    let removed = PeerName::Address("10.0.0.1:8300".to_owned());
    let wanted = RequestBody::Operator(OperatorRequest::RemovePeer(removed));
    assert_eq!((status, shown.as_str(), asked), (200, "", wanted));
    let text = "id \"a\" was not found in the Raft configuration".to_owned();
    let answer = Err(RequestError::Refused(text.clone()));
    let (reply, _) = world.exchange(&format!("{path}?id=a"), vec![answer]);
    assert_eq!((reply.status, body(&reply)), (500, text));
}

#[test]
fn leadership_goes_to_whom_is_named_or_fit() {
    let world = server();
    let path = "PUT /v1/operator/raft/transfer-leader";
    let wanted = |to| RequestBody::Operator(OperatorRequest::TransferLeadership(to));
    let (status, shown, asked) = world.write(path);
    assert_eq!((status, shown.as_str(), asked), (200, r#"{"Success":true}"#, wanted(None)));
    let id = NodeId::from_bytes([1; 16]);
    let (_, _, asked) = world.write(&format!("{path}?id={id}"));
    assert_eq!(asked, wanted(Some(id)));
    assert_eq!(world.say(&format!("{path}?id=x")).0, 400);
}
