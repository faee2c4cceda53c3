//! One line about each host, for people (simulation.md §11.3).

use crate::host::Host;
use terraform_core::node::Node;
use terraform_core::serf::MemberStatus;

/// Role, term, log positions, and members as the host sees them.
pub fn state_line(host: &Host) -> String {
    match &host.running {
        Some(running) => node_line(&running.node),
        None => format!("{:<10} down", host.config.name),
    }
}

/// The same of a node.
pub fn node_line(node: &Node) -> String {
    let name = node.name();
    let count = |status| node.members().filter(|member| member.status == status).count();
    let members = format!(
        "a{} f{} l{}",
        count(MemberStatus::Alive),
        count(MemberStatus::Failed),
        count(MemberStatus::Left)
    );
    match node.raft() {
        None => format!("{name:<10} client  {members}"),
        Some(raft) => format!(
            "{name:<10} {:<9} term {:<4} last/commit/applied {}/{}/{}  voters {}  {members}",
            raft.role().as_str(),
            raft.term(),
            raft.last_index(),
            raft.commit(),
            raft.applied(),
            raft.configuration().voters.len(),
        ),
    }
}
