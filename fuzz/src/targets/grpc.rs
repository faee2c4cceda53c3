//! Answers to a gRPC check: the input is what the server sends.

use terraform_io::checks::grpc::Exchange;

/// What is told does not depend on how the bytes are cut.
pub fn grpc(data: &[u8]) {
    let (mut whole, mut cut) = (exchange(), exchange());
    let told = whole.feed(data);
    let mut by_bytes = Ok(None);
    for byte in data {
        by_bytes = cut.feed(&[*byte]);
        if by_bytes != Ok(None) {
            break;
        }
    }
    // All at once is more than one answer may be; byte by byte its end comes first.
    if data.len() < 60_000 {
        assert_eq!(by_bytes, told);
    }
}

fn exchange() -> Exchange {
    Exchange::new("h:1", "web", false)
}
