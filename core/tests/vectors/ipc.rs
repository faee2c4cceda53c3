//! The control protocol: every captured and hand-made connection, read from both ends.

use crate::common::{Vector, canonical, load};
use std::collections::BTreeMap;
use terraform_core::wire::ipc::{Body, Command, Request, RequestReader, Response, ResponseReader};

fn requests(name: &str, bytes: &[u8]) -> Vec<Request> {
    let mut reader = RequestReader::new();
    reader.feed(bytes).unwrap();
    std::iter::from_fn(|| reader.next_request().unwrap_or_else(|error| panic!("{name}: {error}")))
        .collect()
}

fn responses(name: &str, sent: &[Request], bytes: &[u8]) -> Vec<Response> {
    let mut reader = ResponseReader::new();
    sent.iter().for_each(|request| reader.expect(request));
    reader.feed(bytes);
    std::iter::from_fn(|| reader.next_response().unwrap_or_else(|error| panic!("{name}: {error}")))
        .collect()
}

/// Two hand-made clients write text where bytes belong, or leave out `FilterTags`; what was read
/// is written in the regular form.
const IRREGULAR: [&str; 2] = ["event-payload-as-str-client", "members-filtered-bad-regex-client"];

#[test]
fn both_sides_of_every_connection_encode_to_the_same_bytes() {
    let mut sent: BTreeMap<String, Vec<Request>> = BTreeMap::new();
    let (mut clients, mut agents) = (0, 0);
    for Vector { name, bytes, .. } in load("ipc") {
        let encoded: Vec<u8> = if let Some(connection) = name.strip_suffix("-client") {
            clients += 1;
            let requests = requests(&name, &bytes);
            let encoded = requests.iter().flat_map(Request::encode).collect();
            sent.insert(connection.to_owned(), requests);
            encoded
        } else if let Some(connection) = name.strip_suffix("-agent") {
            agents += 1;
            let responses = responses(&name, &sent[connection], &bytes);
            responses.iter().flat_map(Response::encode).collect()
        } else {
            let subscription =
                Request { seq: 2, command: Command::Stream { filter: String::new() } };
            let started = Response::header(2, String::new()).encode();
            let bytes = [started, bytes.clone()].concat();
            let responses = responses(&name, &[subscription], &bytes);
            assert!(matches!(responses[..], [_, Response { body: Some(Body::Event(_)), .. }]));
            responses.iter().skip(1).flat_map(Response::encode).collect()
        };
        // The capture ends between a header and its record.
        let cut = if name == "monitor-agent" { bytes.len() - 13 } else { bytes.len() };
        let bytes = bytes.slice(..cut);
        if !IRREGULAR.contains(&name.as_str()) {
            assert_eq!(canonical(&encoded), canonical(&bytes), "{name}");
            let has_real_map = encoded != bytes;
            assert!(!has_real_map || encoded.len() == bytes.len(), "{name}");
        }
    }
    assert_eq!((clients, agents), (46, 46));
}
