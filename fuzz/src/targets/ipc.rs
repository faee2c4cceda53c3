//! The control protocol: the input is what a client sends and, once more, what an agent sends.

use std::collections::BTreeMap;
use std::time::Duration;
use terraform_core::wire::ipc::{
    Command, Join, Query, Request, RequestReader, Response, ResponseReader,
};

/// One command for each shape a response has.
fn commands() -> [Command; 8] {
    let query = Query {
        filter_nodes: None,
        filter_tags: Some(BTreeMap::new()),
        name: String::new(),
        payload: None,
        relay_factor: 0,
        request_ack: false,
        timeout: Duration::ZERO,
    };
    [
        Command::Join(Join { addresses: Vec::new(), replay: false, wan: false }),
        Command::Members,
        Command::ListKeys,
        Command::GetCoordinate { node: String::new() },
        Command::Stats,
        Command::Stream { filter: String::new() },
        Command::Monitor { level: String::new() },
        Command::Query(query),
    ]
}

fn read_requests(data: &[u8], piece: usize) -> Vec<Request> {
    let mut reader = RequestReader::new();
    let mut requests = Vec::new();
    for piece in data.chunks(piece) {
        if reader.feed(piece).is_err() {
            break;
        }
        loop {
            match reader.next_request() {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break,
                Err(_) => return requests,
            }
        }
    }
    requests
}

fn read_responses(data: &[u8], command: &Command, piece: usize) -> Vec<Response> {
    let mut reader = ResponseReader::new();
    for seq in 1..4 {
        reader.expect(&Request { seq, command: command.clone() });
    }
    let mut responses = Vec::new();
    for piece in data.chunks(piece) {
        reader.feed(piece);
        loop {
            match reader.next_response() {
                Ok(Some(response)) => responses.push(response),
                Ok(None) => break,
                Err(_) => return responses,
            }
        }
    }
    responses
}

/// What decodes survives its encoding; how a connection is cut changes nothing.
pub fn ipc(data: &[u8]) {
    let piece = usize::from(data.first().copied().unwrap_or(0)) % 7 + 1;
    let requests = read_requests(data, data.len().max(1));
    assert_eq!(read_requests(data, piece), requests, "requests may arrive in any pieces");
    let encoded: Vec<u8> = requests.iter().flat_map(Request::encode).collect();
    assert_eq!(read_requests(&encoded, piece), requests, "requests survive their encoding");
    for command in commands() {
        let responses = read_responses(data, &command, data.len().max(1));
        let cut = read_responses(data, &command, piece);
        assert_eq!(cut, responses, "responses may arrive in any pieces");
        let encoded: Vec<u8> = responses.iter().flat_map(Response::encode).collect();
        let again = read_responses(&encoded, &command, piece);
        assert_eq!(again, responses, "responses survive their encoding");
    }
}
