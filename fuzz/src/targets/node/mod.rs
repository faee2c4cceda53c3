//! A whole agent: the input chooses what happens to it, and what hostile peers say.
//!
//! The host keeps its side of the contract (style.md §3.2): time does not go back, operations of a
//! lane complete in their order, a check that was not asked for has no result. Everything else is
//! the input's choice: what arrives, from whom, how a write ends, when it stops. Peers know the
//! protocols and answer what the agent asks with any numbers they like, because bytes at random
//! never pass a header. The rules: nothing panics, each request is answered at most once, a drain
//! ends, and what the disk holds when the agent dies can be read by the next one.

mod host;
mod peers;
mod serf;
mod users;

use crate::choices::Choices;
use host::Host;

/// Steps of one input; enough for elections, few enough for speed.
const STEPS_MAX: usize = 400;

/// Drives one agent through the input's choices.
pub fn node(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut host = Host::start(choices.byte());
    for _ in 0..STEPS_MAX {
        if choices.is_empty() || host.is_stopped() {
            break;
        }
        match choices.byte() % 16 {
            0..=2 => host.pass_time(&mut choices),
            3 | 4 => host.complete_write(&mut choices),
            5 | 6 => host.datagram(&mut choices),
            7 => host.open_stream(&mut choices),
            8 => host.stream_bytes(&mut choices),
            9..=11 => host.peer_speaks(&mut choices),
            12 => host.close_stream(&mut choices),
            13 | 14 => host.request(&mut choices),
            _ => host.rare(&mut choices),
        }
        host.drain();
    }
    host.restart();
}
