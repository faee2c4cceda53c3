//! A thousand malformed messages of DNS and as many of HTTP, made of valid ones by a fixed seed:
//! each is answered or refused by the rules, and nothing else comes of them (dns.md §4).

use e2e::{Agent, LONG, Options, Random};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream, UdpSocket};

/// Messages of each protocol.
const COUNT: usize = 1000;
/// What a question of ours looks like that must be answered: `sturdy.node.terraform A`.
const GOOD: &[u8] = b"\xbe\xef\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\
    \x06sturdy\x04node\x09terraform\x00\x00\x01\x00\x01";
/// KiB by which a second round of the same messages may enlarge the agent.
const GROWTH_KIB: u64 = 4096;

/// Valid questions that malformed ones are made of.
fn questions() -> Vec<Vec<u8>> {
    let names: [&[u8]; 6] = [
        b"\x06sturdy\x04node\x09terraform\x00",
        b"\x03web\x07service\x09terraform\x00",
        b"\x04_web\x04_tcp\x07service\x09terraform\x00",
        b"\x080a000001\x04addr\x09terraform\x00",
        b"\x011\x010\x010\x0210\x07in-addr\x04arpa\x00",
        b"\x03www\x07example\x03com\x00",
    ];
    // OPT records: none, a plain one, one with a client's subnet and one with a cookie.
    let options: [&[u8]; 4] = [
        b"",
        b"\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00",
        b"\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x0a\x00\x08\x00\x06\x00\x01\x10\x00\x0a\x01",
        b"\x00\x00\x29\x02\x00\x00\x00\x00\x00\x00\x0c\x00\x0a\x00\x08abcdefgh",
    ];
    let mut questions = Vec::new();
    for name in names {
        for option in options {
            for kind in [1_u8, 12, 28, 33, 255] {
                let mut message = vec![0x11, kind, 1, 0, 0, 1, 0, 0, 0, 0, 0];
                message.push(u8::from(!option.is_empty()));
                message.extend_from_slice(name);
                message.extend_from_slice(&[0, kind, 0, 1]);
                message.extend_from_slice(option);
                questions.push(message);
            }
        }
    }
    questions
}

/// Breaks a message in one of several ways.
fn broken(random: &mut Random, good: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    let place = |random: &mut Random, length: usize| {
        usize::try_from(random.below(length as u64)).expect("a place is small")
    };
    let byte = |random: &mut Random| random.next().to_le_bytes()[0];
    match random.below(9) {
        0 => bytes.truncate(place(random, bytes.len())),
        1 => {
            let at = place(random, bytes.len());
            bytes[at] = byte(random);
        }
        // Counts that promise what is not there.
        2 => {
            let at = 4 + place(random, 8);
            bytes[at] = byte(random) | 1;
        }
        // A name that points at itself, before itself, and behind the message.
        3 => {
            let target = [12, 0, 11, 200][place(random, 4)];
            bytes.splice(12..12, [0xc0, target]);
        }
        // Labels of kinds that do not exist, and labels longer than the message.
        4 => bytes[12] = [0x40, 0x80, 63, 0xff][place(random, 4)],
        // A name that is too long.
        5 => {
            let label = [&[63][..], &[b'x'; 63]].concat();
            bytes.splice(12..12, label.repeat(4));
        }
        // Any flags: replies, other opcodes.
        6 => (bytes[2], bytes[3]) = (byte(random), byte(random)),
        // A second OPT record, or one whose length is wrong.
        7 => {
            bytes.extend_from_slice(b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00");
            bytes.push(byte(random));
            bytes[11] = bytes[11].wrapping_add(1);
        }
        _ => {
            let behind = place(random, 600);
            bytes.extend((0..behind).map(|_| byte(random)));
        }
    }
    bytes
}

/// Checks a reply by what the header of its message alone demands.
fn judge(message: &[u8], reply: Option<&[u8]>) {
    let what = format!("{message:02x?} was answered with {reply:02x?}");
    let is_dropped = message.len() < 12 || message[2] & 0x80 != 0;
    let Some(reply) = reply else {
        assert!(is_dropped, "{what}");
        return;
    };
    assert!(!is_dropped && reply.len() >= 12, "{what}");
    assert_eq!(reply[..2], message[..2], "{what}");
    assert!(reply[2] & 0x80 != 0, "{what}");
    let bare = match ((message[2] >> 3) & 15, &message[4..6]) {
        (0 | 4, [0, 1]) => return,
        (0 | 4, _) => 1,
        _ => 4,
    };
    assert_eq!((reply.len(), reply[3]), (12, bare), "{what}");
}

/// Sends a message and a good question behind it; whatever comes before the good one's reply is the
/// message's.
fn over_udp(socket: &UdpSocket, message: &[u8]) {
    socket.send(message).expect("loopback takes a datagram");
    socket.send(GOOD).expect("loopback takes a datagram");
    let (mut buffer, mut reply) = ([0; 4096], None);
    loop {
        let length = socket.recv(&mut buffer).expect("the agent answers a good question");
        if buffer[..2] == GOOD[..2] && message.get(..2) != Some(&GOOD[..2]) {
            break;
        }
        reply = Some(buffer[..length].to_vec());
    }
    judge(message, reply.as_deref());
}

/// The same on a stream, which then ends; every fourth has a length that is not the message's.
fn over_tcp(agent: &Agent, number: usize, message: &[u8]) {
    let mut stream = TcpStream::connect((agent.options.address, 8600)).expect("DNS listens");
    stream.set_read_timeout(Some(LONG)).expect("a timeout can be set");
    let length = u16::try_from(message.len()).expect("messages are short");
    let is_framed = !number.is_multiple_of(4);
    let told = if is_framed { length } else { [0, 1, 11, u16::MAX][number / 4 % 4] };
    let mut bytes = [&told.to_be_bytes()[..], message].concat();
    if is_framed {
        let length = u16::try_from(GOOD.len()).expect("it is short");
        bytes.extend([&length.to_be_bytes()[..], GOOD].concat());
    }
    // A connection that was closed on us already is an answer too.
    let _ = stream.write_all(&bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let mut rest = all.as_slice();
    let mut replies = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let (reply, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)));
        replies.push(reply);
        rest = behind;
    }
    if is_framed {
        let last = replies.pop().expect("a good question is answered");
        assert_eq!(last[..2], GOOD[..2]);
        judge(message, replies.pop());
        assert!(replies.is_empty());
    }
}

/// Valid requests that change nothing, even if breaking them leaves them valid.
const REQUESTS: [&str; 6] = [
    "GET /v1/catalog/nodes HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /v1/kv/kept?raw HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n",
    "PUT /v1/kv/never?cas=999999999 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nvalue",
    "PUT /v1/kv/never?cas=999999999 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
     5\r\nvalue\r\n0\r\n\r\n",
    "PUT /v1/catalog/register HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{\"Node\": }",
    "GET /v1/health/service/web?passing&index=0&wait=1ms HTTP/1.1\r\nHost: x\r\n\r\n",
];

/// Words at which requests are broken, and what they become.
const BREAKS: [(&str, &str); 22] = [
    ("HTTP/1.1", "HTTP/9.9"),
    ("HTTP/1.1", "HTTP/1.1 "),
    ("HTTP/1.1", ""),
    ("GET ", "GET\t"),
    ("GET", "G\0T"),
    ("PUT", "PUTPUTPUTPUTPUTPUTPUTPUTPUTPUTPUT"),
    ("/v1", "v1"),
    ("/v1", "/v1/%zz"),
    ("/v1", "/v1/\u{1}"),
    ("/v1", "//v1/../.."),
    ("Host: x", "Host x"),
    ("Host: x", "Host : x"),
    ("Host: x", ": x"),
    ("Host: x", "Host: x\0y"),
    ("Host: x\r\n", "Host: x\n"),
    ("Host: x\r\n", " folded: y\r\n"),
    ("Content-Length: 5", "Content-Length: -5"),
    ("Content-Length: 5", "Content-Length: 5\r\nContent-Length: 6"),
    ("Content-Length: 5", "Content-Length: 99999999999999999999"),
    ("\r\n5\r\n", "\r\nxyz\r\n"),
    ("\r\n5\r\n", "\r\nffffffffffffffff\r\n"),
    ("index=0&wait=1ms", "index=x&wait=&&&=%"),
];

fn broken_request(random: &mut Random, good: &str) -> Vec<u8> {
    let fitting: Vec<_> = BREAKS.iter().filter(|(word, _)| good.contains(word)).collect();
    let pick = |random: &mut Random, length: usize| {
        usize::try_from(random.below(length as u64)).expect("a place is small")
    };
    match random.below(4) {
        0 | 1 => {
            let (word, instead) = fitting[pick(random, fitting.len())];
            good.replacen(word, instead, 1).into_bytes()
        }
        2 => {
            let mut bytes = good.as_bytes().to_vec();
            // The path and its guard stay, so that nothing is written.
            let at = bytes.iter().position(|byte| *byte == b'\r').expect("a line ends");
            let at = at + pick(random, bytes.len() - at);
            bytes[at] = random.next().to_le_bytes()[0];
            bytes
        }
        _ => good.as_bytes()[..pick(random, good.len())].to_vec(),
    }
}

fn over_http(agent: &Agent, request: &[u8]) {
    let mut stream = TcpStream::connect((agent.options.address, 8500)).expect("HTTP listens");
    stream.set_read_timeout(Some(LONG)).expect("a timeout can be set");
    // A connection that was closed on us already is an answer too.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(Shutdown::Write);
    let mut reply = Vec::new();
    let end = stream.read_to_end(&mut reply);
    let what = String::from_utf8_lossy(request).into_owned();
    let timed_out = end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!timed_out, "no end after {what:?}");
    let reply = String::from_utf8_lossy(&reply).into_owned();
    let Some(status) = reply.strip_prefix("HTTP/1.1 ") else {
        assert!(reply.is_empty(), "{what:?} was answered with {reply:?}");
        return;
    };
    let status: u16 = status.split(' ').next().unwrap_or_default().parse().expect("a status");
    // A query string that cannot be decoded (http-api.md §1.1).
    let bad_query = what.contains("=% ");
    let is_legal =
        matches!(status, 200 | 301 | 400..=499 | 501 | 505) || status == 500 && bad_query;
    assert!(is_legal, "{what:?} was answered with {reply:?}");
}

/// All of them, once.
fn send_all(agent: &Agent) {
    let mut random = Random::new(20_260_101);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    socket.connect((agent.options.address, 8600)).expect("loopback is there");
    socket.set_read_timeout(Some(LONG)).expect("a timeout can be set");
    let questions = questions();
    for number in 0..COUNT {
        let message = broken(&mut random, &questions[number % questions.len()]);
        if number % 2 == 0 {
            over_udp(&socket, &message);
        } else {
            over_tcp(agent, number / 2, &message);
        }
    }
    for number in 0..COUNT {
        let request = broken_request(&mut random, REQUESTS[number % REQUESTS.len()]);
        over_http(agent, &request);
    }
}

#[test]
fn a_thousand_malformed_messages_of_each_protocol_change_nothing() {
    let mut agent = Options::new("sturdy", &["-server", "-bootstrap"]).start();
    agent.wait_until_listed();
    assert_eq!(agent.put("/v1/kv/kept", "value").body, "true");
    let web = r#"{"Node": "n", "Address": "10.0.0.1", "Service": {"Service": "web", "Port": 80}}"#;
    assert_eq!(agent.put("/v1/catalog/register", web).body, "true");
    let paths =
        ["/v1/catalog/nodes", "/v1/catalog/services", "/v1/health/service/web", "/v1/kv/?recurse"];
    let all = |agent: &Agent| paths.map(|path| agent.get(path).body);
    let before = all(&agent);
    send_all(&agent);
    let grown = agent.resident_kib();
    send_all(&agent);
    assert_eq!(agent.ended(), None);
    assert_eq!(all(&agent), before, "the catalog and the keys are as they were");
    assert_eq!(agent.get("/v1/kv/kept?raw").body, "value");
    let found = crate::cluster::dig(&agent.address(), "web.service.terraform", 1);
    assert_eq!(found.addresses, ["10.0.0.1"]);
    let now = agent.resident_kib();
    assert!(now <= grown + GROWTH_KIB, "{grown} KiB became {now}");
}
