//! Msgpack with named fields: the form of everything that is ours alone.
//!
//! Log entries, registrations on disk and the server protocol on 8300 use it; gossip and IPC have
//! their own flavours in their own files. A struct is a map from field name to value, so that a
//! reader skips fields it does not know; an enum is the array `[tag, value]`, whose tags are never
//! reused. Missing fields take [`Pack::absent`], or are refused by name.

use super::DecodeError;
use super::scan::Scan;
use super::serf::{decode_coordinate, encode_coordinate};
use crate::coordinate::Coordinate;
use crate::id::{
    CheckId, ClusterId, Datacenter, EventId, LamportTime, LogIndex, ModifyIndex, NodeId, NodeName,
    PreparedQueryId, RequestId, RestoreId, ServiceId, ServiceName, SessionId, StoreId, StreamId,
    Term, WriteId,
};
use bytes::Bytes;
use rmp::Marker;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// A value with a msgpack form.
pub trait Pack: Sized {
    /// Appends the value to `out`.
    fn pack(&self, out: &mut Vec<u8>);
    /// Reads one value.
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError>;
    /// The value of a field that is not there, if it may be missing.
    fn absent() -> Option<Self> {
        None
    }
}

/// The msgpack form of `value`.
pub fn to_bytes<T: Pack>(value: &T) -> Bytes {
    let mut out = Vec::with_capacity(128);
    value.pack(&mut out);
    out.into()
}

/// Reads exactly one value from `bytes`.
pub fn from_bytes<T: Pack>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut reader = Reader::new(bytes);
    let value = T::unpack(&mut reader)?;
    match reader.remaining() {
        0 => Ok(value),
        count => Err(DecodeError::Trailing { field: "message", count: count as u64 }),
    }
}

/// A cursor over msgpack bytes that names the field it is in when it refuses something.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    field: &'static str,
}

impl<'a> Reader<'a> {
    /// A cursor at the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, field: "message" }
    }

    /// Bytes not read yet.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Names the field that is read next, for errors.
    pub const fn enter(&mut self, field: &'static str) {
        self.field = field;
    }

    /// The field being read.
    pub const fn field(&self) -> &'static str {
        self.field
    }

    /// An error of this field with the rule it breaks.
    pub const fn invalid(&self, rule: &'static str) -> DecodeError {
        DecodeError::Invalid { field: self.field, rule }
    }

    const fn truncated(&self) -> DecodeError {
        DecodeError::Truncated { field: self.field }
    }

    const fn mistyped(&self, expected: &'static str) -> DecodeError {
        DecodeError::Type { field: self.field, expected }
    }

    /// Takes `count` raw bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or_else(|| self.truncated())?;
        self.rest = rest;
        Ok(head)
    }

    fn big_endian(&mut self, width: usize) -> Result<u64, DecodeError> {
        Ok(self.take(width)?.iter().fold(0, |n, byte| (n << 8) | u64::from(*byte)))
    }

    fn marker(&mut self) -> Result<Marker, DecodeError> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| self.truncated())?;
        self.rest = rest;
        Ok(Marker::from_u8(*first))
    }

    /// Whether a nil stands next; takes it if so.
    pub fn take_nil(&mut self) -> bool {
        match self.rest.split_first() {
            Some((0xc0, rest)) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Reads an unsigned integer of any width.
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other marker is of another type")]
    pub fn unsigned(&mut self) -> Result<u64, DecodeError> {
        match self.marker()? {
            Marker::FixPos(n) => Ok(u64::from(n)),
            Marker::U8 => self.big_endian(1),
            Marker::U16 => self.big_endian(2),
            Marker::U32 => self.big_endian(4),
            Marker::U64 => self.big_endian(8),
            _ => Err(self.mistyped("an unsigned integer")),
        }
    }

    /// Reads a signed integer of any width.
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other marker is of another type")]
    pub fn signed(&mut self) -> Result<i64, DecodeError> {
        let too_large = |value, field| DecodeError::Limit { field, value, limit: i64::MAX as u64 };
        match self.marker()? {
            Marker::FixPos(n) => Ok(i64::from(n)),
            Marker::FixNeg(n) => Ok(i64::from(n)),
            Marker::U8 => Ok(i64::from_be_bytes(self.big_endian(1)?.to_be_bytes())),
            Marker::U16 => Ok(i64::from_be_bytes(self.big_endian(2)?.to_be_bytes())),
            Marker::U32 => Ok(i64::from_be_bytes(self.big_endian(4)?.to_be_bytes())),
            Marker::U64 => {
                let n = self.big_endian(8)?;
                i64::try_from(n).map_err(|_| too_large(n, self.field))
            }
            Marker::I8 => Ok(sign_extend(self.big_endian(1)?, 8)),
            Marker::I16 => Ok(sign_extend(self.big_endian(2)?, 16)),
            Marker::I32 => Ok(sign_extend(self.big_endian(4)?, 32)),
            Marker::I64 => Ok(sign_extend(self.big_endian(8)?, 64)),
            _ => Err(self.mistyped("an integer")),
        }
    }

    /// Reads a boolean.
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other marker is of another type")]
    pub fn boolean(&mut self) -> Result<bool, DecodeError> {
        match self.marker()? {
            Marker::True => Ok(true),
            Marker::False => Ok(false),
            _ => Err(self.mistyped("a boolean")),
        }
    }

    /// Reads a string or a byte string.
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other marker is of another type")]
    pub fn blob(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = match self.marker()? {
            Marker::FixStr(n) => u64::from(n),
            Marker::Str8 | Marker::Bin8 => self.big_endian(1)?,
            Marker::Str16 | Marker::Bin16 => self.big_endian(2)?,
            Marker::Str32 | Marker::Bin32 => self.big_endian(4)?,
            _ => return Err(self.mistyped("a string")),
        };
        let length = usize::try_from(length).map_err(|_| self.truncated())?;
        self.take(length)
    }

    /// Reads a UTF-8 string.
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.blob()?;
        std::str::from_utf8(bytes).map_err(|_| self.invalid("is not UTF-8"))
    }

    /// Reads the head of an array; each element needs at least one byte, so the length is bounded.
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other marker is of another type")]
    pub fn array(&mut self) -> Result<usize, DecodeError> {
        let length = match self.marker()? {
            Marker::FixArray(n) => u64::from(n),
            Marker::Array16 => self.big_endian(2)?,
            Marker::Array32 => self.big_endian(4)?,
            _ => return Err(self.mistyped("an array")),
        };
        self.count(length, 1)
    }

    /// Reads the head of a map; each pair needs at least two bytes, so the length is bounded.
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other marker is of another type")]
    pub fn map(&mut self) -> Result<usize, DecodeError> {
        let length = match self.marker()? {
            Marker::FixMap(n) => u64::from(n),
            Marker::Map16 => self.big_endian(2)?,
            Marker::Map32 => self.big_endian(4)?,
            _ => return Err(self.mistyped("a map")),
        };
        self.count(length, 2)
    }

    fn count(&self, length: u64, bytes_each: u64) -> Result<usize, DecodeError> {
        let possible = self.rest.len() as u64 / bytes_each;
        if length > possible {
            return Err(self.truncated());
        }
        usize::try_from(length).map_err(|_| self.truncated())
    }

    /// The first byte not read yet.
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Skips one value of any type.
    pub fn skip(&mut self) -> Result<(), DecodeError> {
        let end = Scan::default().advance(self.field, self.rest, usize::MAX)?;
        self.take(end.ok_or_else(|| self.truncated())?)?;
        Ok(())
    }
}

/// Interprets the low `bits` of `raw` as a two's complement number.
fn sign_extend(raw: u64, bits: u32) -> i64 {
    let shift = 64 - bits;
    i64::from_be_bytes((raw << shift).to_be_bytes()) >> shift
}

/// Appends the head of a map of `len` pairs.
pub fn put_map(out: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).expect("a map in memory has fewer than 2^32 pairs");
    rmp::encode::write_map_len(out, len).expect("writing to a Vec cannot fail");
}

/// Appends the head of an array of `len` values.
pub fn put_array(out: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).expect("an array in memory has fewer than 2^32 values");
    rmp::encode::write_array_len(out, len).expect("writing to a Vec cannot fail");
}

/// Appends an unsigned integer in its shortest form.
pub fn put_unsigned(out: &mut Vec<u8>, value: u64) {
    rmp::encode::write_uint(out, value).expect("writing to a Vec cannot fail");
}

/// Appends a string.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    rmp::encode::write_str(out, text).expect("writing to a Vec cannot fail");
}

/// Appends a nil.
pub fn put_nil(out: &mut Vec<u8>) {
    rmp::encode::write_nil(out).expect("writing to a Vec cannot fail");
}

/// Appends a byte string.
pub fn put_blob(out: &mut Vec<u8>, bytes: &[u8]) {
    rmp::encode::write_bin(out, bytes).expect("writing to a Vec cannot fail");
}

impl Pack for bool {
    fn pack(&self, out: &mut Vec<u8>) {
        rmp::encode::write_bool(out, *self).expect("writing to a Vec cannot fail");
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.boolean()
    }
    fn absent() -> Option<Self> {
        Some(false)
    }
}

macro_rules! pack_unsigned {
    ($($inner:ty),*) => {$(
        impl Pack for $inner {
            fn pack(&self, out: &mut Vec<u8>) {
                put_unsigned(out, u64::from(*self));
            }
            fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let value = input.unsigned()?;
                Self::try_from(value).map_err(|_| DecodeError::Limit {
                    field: input.field(),
                    value,
                    limit: u64::from(<$inner>::MAX),
                })
            }
        }
    )*};
}
pack_unsigned!(u8, u16, u32, u64);

impl Pack for usize {
    fn pack(&self, out: &mut Vec<u8>) {
        put_unsigned(out, *self as u64);
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let value = input.unsigned()?;
        let (field, limit) = (input.field(), Self::MAX as u64);
        Self::try_from(value).map_err(|_| DecodeError::Limit { field, value, limit })
    }
}

impl Pack for i64 {
    fn pack(&self, out: &mut Vec<u8>) {
        rmp::encode::write_sint(out, *self).expect("writing to a Vec cannot fail");
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.signed()
    }
}

impl Pack for String {
    fn pack(&self, out: &mut Vec<u8>) {
        put_text(out, self);
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.text().map(str::to_owned)
    }
    fn absent() -> Option<Self> {
        Some(Self::new())
    }
}

impl Pack for Arc<str> {
    fn pack(&self, out: &mut Vec<u8>) {
        put_text(out, self);
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.text().map(Self::from)
    }
}

impl Pack for Bytes {
    fn pack(&self, out: &mut Vec<u8>) {
        put_blob(out, self);
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.blob().map(Self::copy_from_slice)
    }
}

impl Pack for Duration {
    /// Nanoseconds, at most 2^64-1.
    fn pack(&self, out: &mut Vec<u8>) {
        put_unsigned(out, u64::try_from(self.as_nanos()).unwrap_or(u64::MAX));
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.unsigned().map(Self::from_nanos)
    }
}

impl Pack for crate::time::Instant {
    /// Nanoseconds since the host's epoch.
    fn pack(&self, out: &mut Vec<u8>) {
        put_unsigned(out, self.as_nanos());
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.unsigned().map(Self::from_nanos)
    }
}

impl Pack for crate::time::WallClock {
    fn pack(&self, out: &mut Vec<u8>) {
        self.as_millis().pack(out);
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.signed().map(Self::from_millis)
    }
}

impl Pack for IpAddr {
    /// 4 or 16 bytes in network order.
    fn pack(&self, out: &mut Vec<u8>) {
        match self {
            Self::V4(ip) => put_blob(out, &ip.octets()),
            Self::V6(ip) => put_blob(out, &ip.octets()),
        }
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bytes = input.blob()?;
        if let Ok(four) = <[u8; 4]>::try_from(bytes) {
            return Ok(Self::from(four));
        }
        let sixteen = <[u8; 16]>::try_from(bytes);
        sixteen.map(Self::from).map_err(|_| input.invalid("an IP address has 4 or 16 bytes"))
    }
}

impl Pack for SocketAddr {
    fn pack(&self, out: &mut Vec<u8>) {
        put_array(out, 2);
        self.ip().pack(out);
        self.port().pack(out);
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if input.array()? != 2 {
            return Err(input.invalid("an address is [ip, port]"));
        }
        Ok(Self::new(IpAddr::unpack(input)?, u16::unpack(input)?))
    }
}

impl<T: Pack> Pack for Option<T> {
    fn pack(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.pack(out),
            None => put_nil(out),
        }
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if input.take_nil() { Ok(None) } else { T::unpack(input).map(Some) }
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Pack> Pack for Vec<T> {
    fn pack(&self, out: &mut Vec<u8>) {
        put_array(out, self.len());
        self.iter().for_each(|value| value.pack(out));
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = input.array()?;
        (0..len).map(|_| T::unpack(input)).collect()
    }
    fn absent() -> Option<Self> {
        Some(Self::new())
    }
}

impl<K: Pack + Ord, V: Pack> Pack for BTreeMap<K, V> {
    fn pack(&self, out: &mut Vec<u8>) {
        put_map(out, self.len());
        for (key, value) in self {
            key.pack(out);
            value.pack(out);
        }
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = input.map()?;
        (0..len).map(|_| Ok((K::unpack(input)?, V::unpack(input)?))).collect()
    }
    fn absent() -> Option<Self> {
        Some(Self::new())
    }
}

impl<A: Pack, B: Pack> Pack for (A, B) {
    fn pack(&self, out: &mut Vec<u8>) {
        put_array(out, 2);
        self.0.pack(out);
        self.1.pack(out);
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if input.array()? != 2 {
            return Err(input.invalid("is a pair"));
        }
        Ok((A::unpack(input)?, B::unpack(input)?))
    }
}

impl<T: Pack> Pack for Arc<T> {
    fn pack(&self, out: &mut Vec<u8>) {
        (**self).pack(out);
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        T::unpack(input).map(Self::new)
    }
}

impl<T: Pack> Pack for Box<T> {
    fn pack(&self, out: &mut Vec<u8>) {
        (**self).pack(out);
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        T::unpack(input).map(Self::new)
    }
}

impl Pack for () {
    fn pack(&self, out: &mut Vec<u8>) {
        put_nil(out);
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.skip()
    }
}

macro_rules! pack_text {
    ($($name:ident),*) => {$(
        impl Pack for $name {
            fn pack(&self, out: &mut Vec<u8>) {
                put_text(out, self.as_str());
            }
            fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let text = input.text()?;
                Self::parse(text).map_err(|_| input.invalid("is not a legal name"))
            }
        }
    )*};
}
pack_text!(NodeName, ServiceName, ServiceId, CheckId, Datacenter);

macro_rules! pack_uuid {
    ($($name:ident),*) => {$(
        impl Pack for $name {
            fn pack(&self, out: &mut Vec<u8>) {
                put_blob(out, self.as_bytes());
            }
            fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let bytes = input.blob()?;
                let bytes = <[u8; 16]>::try_from(bytes);
                bytes.map(Self::from_bytes).map_err(|_| input.invalid("an identity has 16 bytes"))
            }
        }
    )*};
}
pack_uuid!(NodeId, StoreId, ClusterId, EventId, RestoreId, SessionId, PreparedQueryId);

/// A blob in the form that acks carry, whose reader knows every rule.
impl Pack for Coordinate {
    fn pack(&self, out: &mut Vec<u8>) {
        put_blob(out, &encode_coordinate(self));
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        decode_coordinate(input.blob()?)
    }
}

macro_rules! pack_number {
    ($($name:ident),*) => {$(
        impl Pack for $name {
            fn pack(&self, out: &mut Vec<u8>) {
                put_unsigned(out, self.get());
            }
            fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
                input.unsigned().map(Self::new)
            }
            fn absent() -> Option<Self> {
                Some(Self::ZERO)
            }
        }
    )*};
}
pack_number!(Term, LogIndex, ModifyIndex, RequestId, LamportTime, StreamId, WriteId);

/// Implements [`Pack`] for a struct as a map from field name to value.
///
/// `pack_struct!(Node { name, address });` lists the fields in wire order; a type over another one
/// names that with its trait, as `ServiceQuery<R: Row>`.
#[macro_export]
macro_rules! pack_struct {
    ($name:ident $(<$row:ident: $bound:path>)? { $($field:ident),* $(,)? }) => {
        impl $(<$row: $bound>)? $crate::wire::pack::Pack for $name $(<$row>)? {
            fn pack(&self, out: &mut Vec<u8>) {
                let Self { $($field),* } = self;
                $crate::pack_struct!(@put out $($field)*);
            }

            fn unpack(
                input: &mut $crate::wire::pack::Reader<'_>,
            ) -> Result<Self, $crate::wire::DecodeError> {
                input.enter(stringify!($name));
                $crate::pack_struct!(@take input [Self] $($field)*)
            }
        }
    };
    (@put $out:ident $($field:ident)*) => {{
        let names: &[&str] = &[$(stringify!($field)),*];
        $crate::wire::pack::put_map($out, names.len());
        $(
            $crate::wire::pack::put_text($out, stringify!($field));
            $crate::wire::pack::Pack::pack($field, $out);
        )*
    }};
    (@take $input:ident [$($made:tt)*] $($field:ident)*) => {{
        $(let mut $field = None;)*
        for _ in 0..$input.map()? {
            match $input.text()? {
                $(stringify!($field) => {
                    $input.enter(stringify!($field));
                    $field = Some($crate::wire::pack::Pack::unpack($input)?);
                })*
                _ => $input.skip()?,
            }
        }
        Ok($($made)* {$(
            $field: match $field.or_else($crate::wire::pack::Pack::absent) {
                Some(value) => value,
                None => {
                    return Err($crate::wire::DecodeError::Invalid {
                        field: stringify!($field),
                        rule: "is missing",
                    });
                }
            },
        )*})
    }};
}

/// Implements [`Pack`] for an enum as `[tag, value]`; a variant holds one value, nothing, or fields
/// as a struct does.
///
/// `pack_enum!(Command { 1 => Register(Registration), 2 => Noop, 3 => Move { from, to } });` — tags
/// are never reused.
#[macro_export]
macro_rules! pack_enum {
    ($name:ident { $(
        $tag:literal => $variant:ident $(($inner:ty))? $({ $($field:ident),* $(,)? })?
    ),* $(,)? }) => {
        impl $crate::wire::pack::Pack for $name {
            fn pack(&self, out: &mut Vec<u8>) {
                $crate::wire::pack::put_array(out, 2);
                match self {
                    $($crate::pack_enum!(
                        @pattern $variant value $(($inner))? $({ $($field)* })?
                    ) => {
                        $crate::wire::pack::put_unsigned(out, $tag);
                        $crate::pack_enum!(@pack out value $(($inner))? $({ $($field)* })?);
                    })*
                }
            }

            fn unpack(
                input: &mut $crate::wire::pack::Reader<'_>,
            ) -> Result<Self, $crate::wire::DecodeError> {
                input.enter(stringify!($name));
                if input.array()? != 2 {
                    return Err(input.invalid("is [tag, value]"));
                }
                match input.unsigned()? {
                    $($tag => $crate::pack_enum!(
                        @unpack input $variant $(($inner))? $({ $($field)* })?
                    ),)*
                    value => Err($crate::wire::DecodeError::Unknown {
                        field: stringify!($name),
                        value,
                    }),
                }
            }
        }
    };
    (@pattern $variant:ident $value:ident ($inner:ty)) => { Self::$variant($value) };
    (@pattern $variant:ident $value:ident { $($field:ident)* }) => {
        Self::$variant { $($field),* }
    };
    (@pattern $variant:ident $value:ident) => { Self::$variant };
    (@pack $out:ident $value:ident ($inner:ty)) => {
        $crate::wire::pack::Pack::pack($value, $out)
    };
    (@pack $out:ident $value:ident { $($field:ident)* }) => {
        $crate::pack_struct!(@put $out $($field)*)
    };
    (@pack $out:ident $value:ident) => { $crate::wire::pack::put_nil($out) };
    (@unpack $input:ident $variant:ident ($inner:ty)) => {
        <$inner as $crate::wire::pack::Pack>::unpack($input).map(Self::$variant)
    };
    (@unpack $input:ident $variant:ident { $($field:ident)* }) => {
        $crate::pack_struct!(@take $input [Self::$variant] $($field)*)
    };
    (@unpack $input:ident $variant:ident) => {{
        $input.skip()?;
        Ok(Self::$variant)
    }};
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq)]
    struct Sample {
        name: String,
        count: u64,
        peers: Vec<SocketAddr>,
        note: Option<String>,
    }
    pack_struct!(Sample { name, count, peers, note });

    #[derive(Debug, PartialEq)]
    enum Choice {
        Nothing,
        Number(u64),
        Move { from: String, to: u64 },
    }
    pack_enum!(Choice { 0 => Nothing, 1 => Number(u64), 2 => Move { from, to } });

    proptest! {
        #[test]
        fn a_struct_survives_its_wire_form(name in ".{0,40}", count: u64, note in prop::option::of(".{0,9}")) {
            let peers = vec![SocketAddr::from(([127, 0, 0, 1], 8300))];
            let sample = Sample { name, count, peers, note };
            prop_assert_eq!(from_bytes::<Sample>(&to_bytes(&sample)), Ok(sample));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = from_bytes::<Sample>(&bytes);
            let _ = from_bytes::<Choice>(&bytes);
            let _ = Reader::new(&bytes).skip();
        }

        #[test]
        fn a_signed_number_survives_its_wire_form(n: i64) {
            prop_assert_eq!(from_bytes::<i64>(&to_bytes(&n)), Ok(n));
        }
    }

    #[test]
    fn an_unknown_field_is_skipped_and_a_missing_one_named() {
        let mut bytes = Vec::new();
        put_map(&mut bytes, 2);
        put_text(&mut bytes, "later");
        put_array(&mut bytes, 1);
        put_text(&mut bytes, "x");
        put_text(&mut bytes, "name");
        put_text(&mut bytes, "n");
        let missing = DecodeError::Invalid { field: "count", rule: "is missing" };
        assert_eq!(from_bytes::<Sample>(&bytes), Err(missing));
    }

    #[test]
    fn an_enum_is_a_tag_and_a_value() {
        assert_eq!(&*to_bytes(&Choice::Nothing), &[0x92, 0, 0xc0]);
        assert_eq!(from_bytes(&[0x92, 1, 5]), Ok(Choice::Number(5)));
        let moved = Choice::Move { from: "a".to_owned(), to: 3 };
        let bytes = to_bytes(&moved);
        assert_eq!(&*bytes, b"\x92\x02\x82\xa4from\xa1a\xa2to\x03");
        assert_eq!(from_bytes(&bytes), Ok(moved));
        let missing = DecodeError::Invalid { field: "to", rule: "is missing" };
        assert_eq!(from_bytes::<Choice>(b"\x92\x02\x81\xa4from\xa1a"), Err(missing));
        let unknown = DecodeError::Unknown { field: "Choice", value: 9 };
        assert_eq!(from_bytes::<Choice>(&[0x92, 9, 5]), Err(unknown));
    }
}
