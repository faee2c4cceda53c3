//! What the machine says about itself: its name, the address others reach it at; and how many
//! descriptors it lets this process have.

use nix::unistd::{Group, User};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// The host name, as the kernel has it.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The release of the kernel.
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
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

/// The number of a user that is given by name or by number.
///
/// - Errors: the text for the operator, with the name.
pub fn user_id(name: &str) -> Result<u32, String> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(format!("failed to look up user {name}: unknown user {name}")),
        Err(error) => Err(format!("failed to look up user {name}: {error}")),
    }
}

/// The number of a group, likewise.
pub fn group_id(name: &str) -> Result<u32, String> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(format!("failed to look up group {name}: unknown group {name}")),
        Err(error) => Err(format!("failed to look up group {name}: {error}")),
    }
}

/// Takes as many descriptors as the machine allows: each connection is one, and shells are started
/// with as few as programs from another time can deal with.
///
/// Where that is refused the limit stays as it is, and connections wait for others to end.
pub fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let _refused = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_known_by_name_and_by_number() {
        assert_eq!((user_id("root"), group_id("root")), (Ok(0), Ok(0)));
        assert_eq!((user_id("7"), group_id("8")), (Ok(7), Ok(8)));
        let unknown = "failed to look up user no such user: unknown user no such user";
        assert_eq!(user_id("no such user"), Err(unknown.to_owned()));
        assert!(group_id("").is_err());
    }

    #[test]
    fn descriptors_are_as_many_as_the_machine_allows() {
        raise_descriptor_limit();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
