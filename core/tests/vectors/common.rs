//! Reads vector files and compares msgpack without regard to the order of maps.

use bytes::Bytes;

/// One vector.
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) transport: String,
    pub(crate) bytes: Bytes,
    /// What the layers hold, where the vector says it.
    pub(crate) plain: Bytes,
    /// The name of its key, where there is one.
    pub(crate) key: String,
}

/// The vectors of `tests/vectors/FILE.json`.
pub(crate) fn load(file: &str) -> Vec<Vector> {
    let text = match file {
        "udp-plain" => include_str!("udp-plain.json"),
        "tcp-plain" => include_str!("tcp-plain.json"),
        "encrypted" => include_str!("encrypted.json"),
        "computed" => include_str!("computed.json"),
        "probes" => include_str!("probes.json"),
        "ipc" => include_str!("ipc.json"),
        _ => panic!("no vectors called {file}"),
    };
    let json: serde_json::Value = serde_json::from_str(text).unwrap();
    let vectors = json["vectors"].as_array().unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    vectors
        .iter()
        .map(|vector| Vector {
            name: text(&vector["name"]),
            transport: text(&vector["transport"]),
            bytes: unhex(&text(&vector["hex"])),
            plain: unhex(&text(&vector["plain"])),
            key: text(&vector["key"]),
        })
        .collect()
}

fn unhex(text: &str) -> Bytes {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap();
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::try_from(digit(&pair[0]) * 16 + digit(&pair[1])).unwrap()).collect()
}

/// The msgpack values in `bytes`, with the entries of every map in one fixed order.
pub(crate) fn canonical(bytes: &[u8]) -> Vec<u8> {
    let mut rest = bytes;
    let mut out = Vec::new();
    while !rest.is_empty() {
        value(&mut rest, &mut out);
    }
    out
}

fn value(rest: &mut &[u8], out: &mut Vec<u8>) {
    let head = rest[0];
    let word = |at: usize| usize::from(rest[at]) << 8 | usize::from(rest[at + 1]);
    let (bytes, values, pairs) = match head {
        0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0.. => (1, 0, 0),
        0x80..=0x8f => (1, 0, usize::from(head & 0x0f)),
        0x90..=0x9f => (1, usize::from(head & 0x0f), 0),
        0xa0..=0xbf => (1 + usize::from(head & 0x1f), 0, 0),
        0xc4 | 0xd9 => (2 + usize::from(rest[1]), 0, 0),
        0xc5 | 0xda => (3 + word(1), 0, 0),
        0xcc | 0xd0 => (2, 0, 0),
        0xcd | 0xd1 => (3, 0, 0),
        0xce | 0xd2 => (5, 0, 0),
        0xcb | 0xcf | 0xd3 => (9, 0, 0),
        0xdc => (3, word(1), 0),
        0xde => (3, 0, word(1)),
        _ => panic!("no vector holds {head:x}"),
    };
    out.extend_from_slice(&rest[..bytes]);
    *rest = &rest[bytes..];
    (0..values).for_each(|_| value(rest, out));
    let mut entries: Vec<Vec<u8>> = (0..pairs)
        .map(|_| {
            let mut entry = Vec::new();
            value(rest, &mut entry);
            value(rest, &mut entry);
            entry
        })
        .collect();
    entries.sort();
    entries.iter().for_each(|entry| out.extend_from_slice(entry));
}
