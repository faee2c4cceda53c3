//! The server port: the input is a stream of frames.

use super::raft_wire;
use terraform_core::wire::frame::FrameDecoder;
use terraform_core::wire::rpc::Frame;

/// What decodes survives its encoding; what frames carry is decoded too.
pub fn server_wire(data: &[u8]) {
    let mut decoder = FrameDecoder::default();
    let piece = usize::from(data.last().copied().unwrap_or(0)) + 1;
    for piece in data.chunks(piece) {
        decoder.push(piece);
        while let Ok(Some(body)) = decoder.next_frame() {
            let Ok(frame) = Frame::decode(&body) else {
                return;
            };
            match &frame {
                Frame::Raft(message) | Frame::Bootstrap(message) => raft_wire(message),
                Frame::Hello(_) => decoder.accept_hello(),
                Frame::Request(_)
                | Frame::Reply(_)
                | Frame::Ping
                | Frame::Pong
                | Frame::Cancel(_) => {}
            }
            let mut again = FrameDecoder::default();
            again.accept_hello();
            again.push(&frame.encode().expect("what fitted into a frame fits again"));
            let body = again.next_frame().expect("it has the length it says");
            let body = body.expect("all of it is there");
            assert_eq!(Frame::decode(&body), Ok(frame), "a frame survives its encoding");
        }
    }
}
