//! What the machine says about itself: its name and the address others reach it at.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// The host name, as the kernel has it.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The source address this machine would use towards the outside; `None` without a route.
///
/// Connecting a datagram socket sends nothing; 192.0.2.1 is reserved for documentation (RFC 5737).
pub fn route_source() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

/// How many processors this process may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
