//! Writes JSON straight into bytes, in the form that Consul's encoder gives it.
//!
//! - Source: http-api.md §1.2: compact, `<` `>` `&` U+2028 U+2029 escaped inside strings, other
//!   text raw; `?pretty` indents by four spaces and ends with a line feed.
//! - Keys appear in the order of the calls; maps are sorted by whoever iterates them.

/// A JSON text under construction. Commas are put where they belong.
#[derive(Clone, Debug, Default)]
pub struct Json {
    out: Vec<u8>,
}

impl Json {
    /// An empty text with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { out: Vec::with_capacity(bytes) }
    }

    /// The text.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// Writes an object whose members `fill` writes with [`field`](Self::field).
    pub fn object(&mut self, fill: impl FnOnce(&mut Self)) {
        self.out.push(b'{');
        fill(self);
        self.out.push(b'}');
    }

    /// Writes an array with one element for each item.
    pub fn array<T>(&mut self, items: impl IntoIterator<Item = T>, each: impl Fn(&mut Self, T)) {
        self.out.push(b'[');
        for item in items {
            self.separate(b'[');
            each(self, item);
        }
        self.out.push(b']');
    }

    /// Writes a member's name; its value follows.
    pub fn key(&mut self, name: &str) {
        self.separate(b'{');
        self.string(name);
        self.out.push(b':');
    }

    /// Writes a member.
    pub fn field(&mut self, name: &str, value: impl Value) {
        self.key(name);
        value.write(self);
    }

    /// Writes a member unless its value is empty, zero or false (`omitempty`).
    pub fn field_if_set(&mut self, name: &str, value: impl Value) {
        if !value.is_zero() {
            self.field(name, value);
        }
    }

    /// Writes `null`.
    pub fn null(&mut self) {
        self.out.extend_from_slice(b"null");
    }

    /// Writes a ready piece of JSON.
    pub fn raw(&mut self, json: &str) {
        self.out.extend_from_slice(json.as_bytes());
    }

    /// Writes a string.
    pub fn string(&mut self, text: &str) {
        self.out.push(b'"');
        let bytes = text.as_bytes();
        let mut start = 0;
        for (at, byte) in bytes.iter().enumerate() {
            let is_plain = match byte {
                b'"' | b'\\' | b'<' | b'>' | b'&' => false,
                // U+2028 and U+2029 are E2 80 A8 and E2 80 A9.
                0xe2 => !matches!(bytes.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9])),
                0..0x20 => false,
                0x20.. => true,
            };
            if is_plain {
                continue;
            }
            self.out.extend_from_slice(bytes.get(start..at).unwrap_or_default());
            start = at + 1;
            match byte {
                b'"' => self.out.extend_from_slice(b"\\\""),
                b'\\' => self.out.extend_from_slice(b"\\\\"),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                b'\r' => self.out.extend_from_slice(b"\\r"),
                b'\t' => self.out.extend_from_slice(b"\\t"),
                0xe2 => {
                    let last = bytes.get(at + 2).copied().unwrap_or_default();
                    self.raw(if last == 0xa8 { "\\u2028" } else { "\\u2029" });
                    start = at + 3;
                }
                byte => self.raw(&format!("\\u{byte:04x}")),
            }
        }
        self.out.extend_from_slice(bytes.get(start..).unwrap_or_default());
        self.out.push(b'"');
    }

    /// Puts a comma unless this is the first thing behind `open`.
    fn separate(&mut self, open: u8) {
        if self.out.last() != Some(&open) {
            self.out.push(b',');
        }
    }
}

/// What can be written as a plain JSON value.
pub trait Value {
    /// Writes it.
    fn write(&self, json: &mut Json);
    /// Whether `omitempty` leaves it out.
    fn is_zero(&self) -> bool;
}

impl Value for &str {
    fn write(&self, json: &mut Json) {
        json.string(self);
    }
    fn is_zero(&self) -> bool {
        self.is_empty()
    }
}

impl Value for &String {
    fn write(&self, json: &mut Json) {
        json.string(self);
    }
    fn is_zero(&self) -> bool {
        self.is_empty()
    }
}

impl Value for bool {
    fn write(&self, json: &mut Json) {
        json.raw(if *self { "true" } else { "false" });
    }
    fn is_zero(&self) -> bool {
        !self
    }
}

impl Value for i64 {
    fn write(&self, json: &mut Json) {
        json.raw(&self.to_string());
    }
    fn is_zero(&self) -> bool {
        *self == 0
    }
}

impl Value for u64 {
    fn write(&self, json: &mut Json) {
        json.raw(&self.to_string());
    }
    fn is_zero(&self) -> bool {
        *self == 0
    }
}

/// The shortest digits that read back as the same number, with an exponent below 1e-6 and from 1e21
/// on, as Go writes them. What is not finite has no form in JSON and is written as `null`.
impl Value for f64 {
    fn write(&self, json: &mut Json) {
        let size = self.abs();
        if !size.is_finite() {
            json.null();
        } else if size >= 1e21 {
            json.raw(&format!("{self:e}").replace('e', "e+"));
        } else if size > 0.0 && size < 1e-6 {
            json.raw(&format!("{self:e}"));
        } else {
            json.raw(&self.to_string());
        }
    }
    fn is_zero(&self) -> bool {
        *self == 0.0
    }
}

/// Indents compact JSON by four spaces and ends it with a line feed; empty objects and arrays stay
/// on one line.
pub fn pretty(compact: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(compact.len() * 2);
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + depth * 4, b' ');
    };
    let mut bytes = compact.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if in_string {
            out.push(byte);
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                if matches!(bytes.peek(), Some(b'}' | b']')) {
                    out.extend(bytes.next());
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            byte => {
                in_string = byte == b'"';
                out.push(byte);
            }
        }
    }
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn string(text: &str) -> String {
        let mut json = Json::default();
        json.string(text);
        String::from_utf8(json.into_bytes()).unwrap()
    }

    #[test]
    fn strings_are_escaped_as_consul_escapes_them() {
        assert_eq!(string("<a>&\"\\"), r#""\u003ca\u003e\u0026\"\\""#);
        assert_eq!(string("ü€\u{2028}x\u{2029}\n\u{1}"), "\"ü€\\u2028x\\u2029\\n\\u0001\"");
    }

    #[test]
    fn members_and_elements_are_separated() {
        let mut json = Json::default();
        json.object(|json| {
            json.field("a", 1_i64);
            json.field_if_set("b", "");
            json.key("c");
            json.array(["x", "{", "["], |json, item| json.string(item));
            json.key("d");
            json.object(|_| {});
            json.field("e", true);
        });
        let text = String::from_utf8(json.into_bytes()).unwrap();
        assert_eq!(text, r#"{"a":1,"c":["x","{","["],"d":{},"e":true}"#);
    }

    #[test]
    fn pretty_output_is_indented_by_four_spaces() {
        let text = pretty(br#"{"a":[],"b":{"c":"x:{,\"}"},"d":[1,2]}"#);
        let expected = "{\n    \"a\": [],\n    \"b\": {\n        \"c\": \"x:{,\\\"}\"\n    },\n    \
                        \"d\": [\n        1,\n        2\n    ]\n}\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn any_string_is_read_back(text in any::<String>()) {
            let written = string(&text);
            prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }
    }
}
