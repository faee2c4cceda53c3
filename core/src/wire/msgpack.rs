//! The two msgpack flavours of the Serf world: gossip's and IPC's (gossip-wire.md §2 and §12).
//!
//! A struct is a map whose keys are field names in byte order. Writers are exact, so that real
//! peers re-encode our messages to the same bytes; readers take any order of keys, skip unknown
//! ones, take nil or a missing key for the zero value, and any width or signedness of a number
//! that fits.
//!
//! | kind | gossip | IPC |
//! |---|---|---|
//! | text | `a0\|n`, `da`, `db`; also reads `d9` | `a0\|n`, `d9`, `da`, `db` |
//! | bytes | as text; `c4..c6` are refused | `c4`, `c5`, `c6`; also reads text forms |

use super::DecodeError;
use super::pack::{Reader, put_array, put_blob, put_map, put_nil, put_text, put_unsigned};
use crate::gossip::Versions;
use crate::id::{Incarnation, LamportTime, NameError, NodeName, SeqNo};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How a family of messages writes and reads strings.
pub trait Flavour {
    /// Appends text.
    fn put_text(out: &mut Vec<u8>, text: &str);
    /// Appends bytes.
    fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]);
    /// Reads text or bytes.
    fn get_bytes<'a>(input: &mut Reader<'a>) -> Result<&'a [u8], DecodeError>;
}

/// The flavour of memberlist and Serf messages.
#[derive(Clone, Copy, Debug)]
pub enum Gossip {}

/// The flavour of Serf's local control protocol.
#[derive(Clone, Copy, Debug)]
pub enum Ipc {}

impl Flavour for Gossip {
    fn put_text(out: &mut Vec<u8>, text: &str) {
        Self::put_bytes(out, text.as_bytes());
    }

    fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
        match (u8::try_from(bytes.len()), u16::try_from(bytes.len())) {
            (Ok(len @ ..32), _) => out.push(0xa0 | len),
            (_, Ok(len)) => {
                out.push(0xda);
                out.extend_from_slice(&len.to_be_bytes());
            }
            (_, Err(_)) => {
                let len = u32::try_from(bytes.len()).expect("a message is far below 4 GiB");
                out.push(0xdb);
                out.extend_from_slice(&len.to_be_bytes());
            }
        }
        out.extend_from_slice(bytes);
    }

    fn get_bytes<'a>(input: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
        if let Some(0xc4..=0xc6) = input.peek() {
            return Err(input.invalid("gossip has no bin type"));
        }
        input.blob()
    }
}

impl Flavour for Ipc {
    fn put_text(out: &mut Vec<u8>, text: &str) {
        put_text(out, text);
    }

    fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
        put_blob(out, bytes);
    }

    fn get_bytes<'a>(input: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
        input.blob()
    }
}

/// A value of a message in flavour `F`.
pub trait Field<F: Flavour>: Sized {
    /// Appends the value.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads the value, which is not nil.
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError>;
    /// The value of a missing or nil field; `None` if there must be one.
    fn zero() -> Option<Self>;
    /// Whether a field that is left out when empty is left out.
    fn is_omitted(&self) -> bool {
        false
    }
}

/// Reads a value or, for a nil, takes its zero.
pub fn get<F: Flavour, T: Field<F>>(input: &mut Reader<'_>) -> Result<T, DecodeError> {
    if !input.take_nil() {
        return T::get(input);
    }
    T::zero().ok_or_else(|| input.invalid("is missing"))
}

/// Reads a value; a nil is the same as none.
pub(crate) fn get_some<F: Flavour, T: Field<F>>(
    input: &mut Reader<'_>,
) -> Result<Option<T>, DecodeError> {
    if input.take_nil() { Ok(None) } else { T::get(input).map(Some) }
}

/// The message's bytes.
pub fn encode<F: Flavour, T: Field<F>>(value: &T) -> Bytes {
    let mut out = Vec::with_capacity(64);
    value.put(&mut out);
    out.into()
}

/// Reads exactly one value from `bytes`.
pub fn decode<F: Flavour, T: Field<F>>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut input = Reader::new(bytes);
    let value = get(&mut input)?;
    match input.remaining() {
        0 => Ok(value),
        count => Err(DecodeError::Trailing { field: "message", count: count as u64 }),
    }
}

/// Reads a number that is not negative, whatever its width and signedness.
fn natural(input: &mut Reader<'_>) -> Result<u64, DecodeError> {
    match input.peek() {
        Some(0xd0..=0xd3 | 0xe0..) => {
            let value = input.signed()?;
            u64::try_from(value).map_err(|_| input.invalid("is negative"))
        }
        _ => input.unsigned(),
    }
}

macro_rules! natural_field {
    ($($number:ty),*) => {$(
        impl<F: Flavour> Field<F> for $number {
            fn put(&self, out: &mut Vec<u8>) {
                put_unsigned(out, u64::from(*self));
            }
            fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let value = natural(input)?;
                Self::try_from(value).map_err(|_| DecodeError::Limit {
                    field: input.field(),
                    value,
                    limit: u64::from(<$number>::MAX),
                })
            }
            fn zero() -> Option<Self> {
                Some(0)
            }
            fn is_omitted(&self) -> bool {
                *self == 0
            }
        }
    )*};
}
natural_field!(u8, u16, u32, u64);

macro_rules! number_field {
    ($($name:ident($inner:ty)),*) => {$(
        impl<F: Flavour> Field<F> for $name {
            fn put(&self, out: &mut Vec<u8>) {
                put_unsigned(out, u64::from(self.get()));
            }
            fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
                <$inner as Field<F>>::get(input).map(Self::new)
            }
            fn zero() -> Option<Self> {
                Some(Self::ZERO)
            }
        }
    )*};
}
number_field!(SeqNo(u32), Incarnation(u32), LamportTime(u64));

impl<F: Flavour> Field<F> for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(if *self { 0xc3 } else { 0xc2 });
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.boolean()
    }
    fn zero() -> Option<Self> {
        Some(false)
    }
    fn is_omitted(&self) -> bool {
        !*self
    }
}

/// The 64 bits of an IEEE 754 number. Codecs carry it; arithmetic is for whoever needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FloatBits(pub u64);

impl<F: Flavour> Field<F> for FloatBits {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(0xcb);
        out.extend_from_slice(&self.0.to_be_bytes());
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if input.peek() != Some(0xcb) {
            return Err(DecodeError::Type { field: input.field(), expected: "a 64-bit float" });
        }
        let bytes = input.take(9)?;
        Ok(Self(bytes.iter().skip(1).fold(0, |bits, byte| (bits << 8) | u64::from(*byte))))
    }
    fn zero() -> Option<Self> {
        Some(Self(0))
    }
}

/// Nanoseconds.
impl<F: Flavour> Field<F> for Duration {
    fn put(&self, out: &mut Vec<u8>) {
        put_unsigned(out, u64::try_from(self.as_nanos()).unwrap_or(u64::MAX));
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        natural(input).map(Self::from_nanos)
    }
    fn zero() -> Option<Self> {
        Some(Self::ZERO)
    }
}

impl<F: Flavour> Field<F> for String {
    fn put(&self, out: &mut Vec<u8>) {
        F::put_text(out, self);
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        text::<F>(input).map(str::to_owned)
    }
    fn zero() -> Option<Self> {
        Some(Self::new())
    }
    fn is_omitted(&self) -> bool {
        self.is_empty()
    }
}

fn text<'a, F: Flavour>(input: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let bytes = F::get_bytes(input)?;
    std::str::from_utf8(bytes).map_err(|_| input.invalid("is not UTF-8"))
}

impl<F: Flavour> Field<F> for Bytes {
    fn put(&self, out: &mut Vec<u8>) {
        F::put_bytes(out, self);
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        F::get_bytes(input).map(Self::copy_from_slice)
    }
    fn zero() -> Option<Self> {
        Some(Self::new())
    }
}

impl<F: Flavour> Field<F> for NodeName {
    fn put(&self, out: &mut Vec<u8>) {
        F::put_text(out, self.as_str());
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::parse(text::<F>(input)?).map_err(|error| match error {
            NameError::Empty { .. } => input.invalid("is empty"),
            NameError::TooLong { length, limit, .. } => DecodeError::Limit {
                field: input.field(),
                value: length as u64,
                limit: limit as u64,
            },
            NameError::Character { .. } | NameError::NotUuid { .. } => {
                input.invalid("holds a control character")
            }
        })
    }
    fn zero() -> Option<Self> {
        None
    }
}

/// Empty text stands for no name.
impl<F: Flavour> Field<F> for Option<NodeName> {
    fn put(&self, out: &mut Vec<u8>) {
        F::put_text(out, self.as_ref().map_or("", NodeName::as_str));
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if input.peek() == Some(0xa0) {
            input.skip()?;
            return Ok(None);
        }
        <NodeName as Field<F>>::get(input).map(Some)
    }
    fn zero() -> Option<Self> {
        Some(None)
    }
    fn is_omitted(&self) -> bool {
        self.is_none()
    }
}

/// Four bytes, or sixteen; an IPv4 address in sixteen is read as IPv4.
impl<F: Flavour> Field<F> for IpAddr {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::V4(ip) => F::put_bytes(out, &ip.octets()),
            Self::V6(ip) => F::put_bytes(out, &ip.octets()),
        }
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bytes = F::get_bytes(input)?;
        if let Ok(four) = <[u8; 4]>::try_from(bytes) {
            return Ok(Self::from(four));
        }
        let sixteen = <[u8; 16]>::try_from(bytes).map(Self::from);
        let address = sixteen.map_err(|_| input.invalid("an IP address has 4 or 16 bytes"))?;
        Ok(address.to_canonical())
    }
    fn zero() -> Option<Self> {
        None
    }
}

/// Empty bytes stand for no address.
impl<F: Flavour> Field<F> for Option<IpAddr> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Some(ip) => Field::<F>::put(ip, out),
            None => F::put_bytes(out, &[]),
        }
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if input.peek() == Some(0xa0) {
            input.skip()?;
            return Ok(None);
        }
        <IpAddr as Field<F>>::get(input).map(Some)
    }
    fn zero() -> Option<Self> {
        Some(None)
    }
    fn is_omitted(&self) -> bool {
        self.is_none()
    }
}

/// The six bytes of `Vsn`; a missing or empty one is `None`.
impl<F: Flavour> Field<F> for Option<Versions> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Some(v) => F::put_bytes(
                out,
                &[
                    v.protocol_min,
                    v.protocol_max,
                    v.protocol,
                    v.delegate_min,
                    v.delegate_max,
                    v.delegate,
                ],
            ),
            None => put_nil(out),
        }
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bytes = F::get_bytes(input)?;
        let &[protocol_min, protocol_max, protocol, delegate_min, delegate_max, delegate] = bytes
        else {
            let rule = "six bytes are needed";
            return if bytes.is_empty() { Ok(None) } else { Err(input.invalid(rule)) };
        };
        Ok(Some(Versions {
            protocol_min,
            protocol_max,
            protocol,
            delegate_min,
            delegate_max,
            delegate,
        }))
    }
    fn zero() -> Option<Self> {
        Some(None)
    }
}

/// A type whose absence is written as nil.
pub trait Nullable {}
impl Nullable for Bytes {}
impl Nullable for u64 {}
impl<T> Nullable for Vec<T> {}
impl<T> Nullable for BTreeMap<String, T> {}

impl<F: Flavour, T: Field<F> + Nullable> Field<F> for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.put(out),
            None => put_nil(out),
        }
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        T::get(input).map(Some)
    }
    fn zero() -> Option<Self> {
        Some(None)
    }
    fn is_omitted(&self) -> bool {
        self.is_none()
    }
}

impl<F: Flavour, T: Field<F>> Field<F> for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_array(out, self.len());
        self.iter().for_each(|value| value.put(out));
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = input.array()?;
        (0..len).map(|_| get(input)).collect()
    }
    fn zero() -> Option<Self> {
        Some(Self::new())
    }
}

impl<F: Flavour, T: Field<F>> Field<F> for BTreeMap<String, T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_map(out, self.len());
        for (key, value) in self {
            F::put_text(out, key);
            value.put(out);
        }
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = input.map()?;
        (0..len).map(|_| Ok((text::<F>(input)?.to_owned(), get(input)?))).collect()
    }
    fn zero() -> Option<Self> {
        Some(Self::new())
    }
}

/// Implements [`Field`] for a struct: `message!(Gossip, Nack { "SeqNo" => seq_no });`.
///
/// Keys stand in byte order, which is checked when compiling. `=> field omitempty` leaves the
/// pair out when the field is empty.
macro_rules! message {
    ($flavour:ty, $name:ident { $($key:literal => $field:ident $($omit:ident)?),* $(,)? }) => {
        impl $crate::wire::msgpack::Field<$flavour> for $name {
            fn put(&self, out: &mut Vec<u8>) {
                const { assert!($crate::wire::msgpack::is_sorted(&[$($key),*]), "keys in order") };
                let present = [$(
                    $crate::wire::msgpack::message!(@present $flavour, &self.$field $(, $omit)?)
                ),*];
                let len = present.into_iter().filter(|present| *present).count();
                $crate::wire::pack::put_map(out, len);
                $(if $crate::wire::msgpack::message!(
                    @present $flavour, &self.$field $(, $omit)?
                ) {
                    <$flavour as $crate::wire::msgpack::Flavour>::put_text(out, $key);
                    $crate::wire::msgpack::Field::<$flavour>::put(&self.$field, out);
                })*
            }

            fn get(
                input: &mut $crate::wire::pack::Reader<'_>,
            ) -> Result<Self, $crate::wire::DecodeError> {
                input.enter(stringify!($name));
                let len = input.map()?;
                $(let mut $field = None;)*
                for _ in 0..len {
                    input.enter(stringify!($name));
                    match <$flavour as $crate::wire::msgpack::Flavour>::get_bytes(input)? {
                        $(key if key == $key.as_bytes() => {
                            input.enter($key);
                            $field = $crate::wire::msgpack::get_some::<$flavour, _>(input)?;
                        })*
                        _ => input.skip()?,
                    }
                }
                Ok(Self {$(
                    $field: $field
                        .or_else($crate::wire::msgpack::Field::<$flavour>::zero)
                        .ok_or($crate::wire::DecodeError::Invalid {
                            field: $key,
                            rule: "is missing",
                        })?,
                )*})
            }

            fn zero() -> Option<Self> {
                None
            }
        }
    };
    (@present $flavour:ty, $value:expr) => { true };
    (@present $flavour:ty, $value:expr, omitempty) => {
        !$crate::wire::msgpack::Field::<$flavour>::is_omitted($value)
    };
}
pub(crate) use message;

/// Whether every key is smaller than the next in byte order.
pub(crate) const fn is_sorted(keys: &[&str]) -> bool {
    let mut rest = keys;
    while let [first, tail @ ..] = rest {
        if let [second, ..] = tail
            && !is_less(first.as_bytes(), second.as_bytes())
        {
            return false;
        }
        rest = tail;
    }
    true
}

const fn is_less(mut a: &[u8], mut b: &[u8]) -> bool {
    loop {
        match (a, b) {
            ([x, a_rest @ ..], [y, b_rest @ ..]) => {
                if *x != *y {
                    return *x < *y;
                }
                (a, b) = (a_rest, b_rest);
            }
            ([], [_, ..]) => return true,
            ([_, ..] | [], []) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Sample {
        count: u32,
        name: Option<NodeName>,
        payload: Option<Bytes>,
    }
    message!(Gossip, Sample { "Count" => count, "Name" => name omitempty, "Payload" => payload });

    /// A sample whose `Count` has this wire form.
    fn with_count(count: &[u8]) -> Result<u32, DecodeError> {
        let bytes = [b"\x81\xa5Count", count].concat();
        decode::<Gossip, Sample>(&bytes).map(|sample| sample.count)
    }

    #[test]
    fn a_number_is_read_in_any_width_and_signedness_that_fits() {
        for form in
            [&b"\x07"[..], b"\xcc\x07", b"\xd0\x07", b"\xd1\0\x07", b"\xd3\0\0\0\0\0\0\0\x07"]
        {
            assert_eq!(with_count(form), Ok(7));
        }
        let negative = DecodeError::Invalid { field: "Count", rule: "is negative" };
        assert_eq!(with_count(b"\xff"), Err(negative.clone()));
        assert_eq!(with_count(b"\xd1\xff\x00"), Err(negative));
        let large = DecodeError::Limit { field: "Count", value: 1 << 32, limit: (1 << 32) - 1 };
        assert_eq!(with_count(b"\xcf\0\0\0\x01\0\0\0\0"), Err(large));
    }

    #[test]
    fn a_missing_or_nil_field_is_zero() {
        let zero = Sample { count: 0, name: None, payload: None };
        assert_eq!(decode::<Gossip, Sample>(b"\x80").as_ref(), Ok(&zero));
        assert_eq!(decode::<Gossip, Sample>(b"\x82\xa5Count\xc0\xa4Name\xa0").as_ref(), Ok(&zero));
        assert_eq!(&*encode(&zero), b"\x82\xa5Count\0\xa7Payload\xc0");
        let refused = DecodeError::Invalid { field: "message", rule: "is missing" };
        assert_eq!(decode::<Gossip, Sample>(b"\xc0"), Err(refused));
    }

    #[test]
    fn gossip_strings_have_the_legacy_forms_only() {
        for (len, head) in
            [(31, &b"\xbf"[..]), (32, b"\xda\0\x20"), (70_000, b"\xdb\0\x01\x11\x70")]
        {
            let mut out = Vec::new();
            Gossip::put_bytes(&mut out, &vec![0; len]);
            assert_eq!(&out[..head.len()], head);
            assert_eq!(out.len(), head.len() + len);
            assert_eq!(Gossip::get_bytes(&mut Reader::new(&out)), Ok(&vec![0; len][..]));
        }
        let rule = "gossip has no bin type";
        let refused = DecodeError::Invalid { field: "Payload", rule };
        let bin = b"\x81\xa7Payload\xc4\x01x";
        assert_eq!(decode::<Gossip, Sample>(bin), Err(refused));
        assert_eq!(decode::<Ipc, Bytes>(b"\xc4\x01x"), Ok(Bytes::from_static(b"x")));
    }

    #[test]
    fn an_ipv4_address_in_sixteen_bytes_is_read_as_ipv4() {
        let mapped = b"\xb0\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\x01";
        assert_eq!(decode::<Gossip, IpAddr>(mapped), Ok(IpAddr::from([127, 0, 0, 1])));
        let rule = "an IP address has 4 or 16 bytes";
        let refused = DecodeError::Invalid { field: "message", rule };
        assert_eq!(decode::<Gossip, IpAddr>(b"\xa3abc"), Err(refused));
    }

    #[test]
    fn keys_out_of_order_are_noticed() {
        assert!(is_sorted(&["LTime", "LeftMembers", "SourceAddr", "SourceNode", "SourcePort"]));
        assert!(!is_sorted(&["Node", "Nack"]));
        assert!(!is_sorted(&["Node", "Node"]));
        assert!(is_sorted(&["Source", "SourceAddr"]) && !is_sorted(&["SourceAddr", "Source"]));
    }
}
