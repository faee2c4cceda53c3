//! Tables of requests and DNS questions, and of what Consul answers to them.
//!
//! A table is a text file. Its steps are sent in order to one fresh server called `n1`, and every
//! answer must be the one written there. What is expected comes from http-api.md, dns.md and Consul
//! 1.8.7 itself: the binary `replay` sends the same tables to that.
//!
//! ```text
//! # A comment. At the head may stand a configuration file of the agent:
//! config {"node_meta": {"rack": "r1"}}
//!
//! PUT /v1/kv/a?cas=<seen>
//! Accept: text/plain
//! > the body, line by line
//! 200 json meta leader
//! X-Consul-Index: <index:next>
//! < the body, line by line,
//! +   which goes on here without a line's end and without these blanks
//! consul why-not
//! 500 text
//! < what Consul answers
//!
//! DIG +bufsize=1232 n1.node.<program> A
//! 0
//! < NOERROR qr aa rd 1/1/0/1
//! < EDNS: version: 0, flags:; udp: 1232
//! < ANSWER n1.node.<program>. 0 IN A <address>
//! ```
//!
//! - A blank line ends a step. `eventually` before the method repeats a request until its answer is
//!   the expected one. `while` sends it in the background, and its answer is looked at after the
//!   next step.
//! - Without a body line the body is empty. Headers that matter are compared in any case; a value
//!   of `-` says that the header is not there. Words after the status stand for headers: `json`,
//!   `text`, `raw` (what bare values come with) for the type, none of them for no type; `meta` and
//!   `zero-meta` for the index and the leader; `leader`, `stale`, `consistent` for how consistent
//!   the answer is; `unrouted` for the lack of `Vary`.
//! - `<any>`, `<uuid>`, `<index>`, `<number>`, `<time>`, `<hash>` stand for such values, and
//!   `<uuid:name>` keeps one. `<name>` stands for what was kept; `<address>`, `<node-id>` and
//!   `<program>`, which is `terraform` or `consul`, are there from the start.
//! - `DIG` stands before what `dig` asks the server; `dns` says how its answer is written down. It
//!   asks in a datagram without EDNS and leaves an answer that was cut as it is, unless its words
//!   say otherwise. The status is its exit code.
//! - Where Consul answers otherwise on purpose, `consul` names a section of `DIFFERENCES.md` and is
//!   followed by Consul's answer; with none, the step is not sent to Consul.

mod dns;
mod pattern;
mod run;
mod server;
mod table;

pub use pattern::{Pattern, Values};
pub use run::run;
pub use server::{Program, Server};
pub use table::{Expected, Step, Table, When};
