//! Records that the Kinesis Producer Library packed into one.
//!
//! An aggregate is four magic bytes, a protobuf message, and the MD5 digest of the message. Whatever is not exactly
//! that is a record like any other.

use std::ops::RangeInclusive;

use md5::{Digest, Md5};
use prost::Message;

const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
const DIGEST: usize = 16;
/// The partition key of every aggregate that the library itself makes: it chooses the shard by an explicit hash key. Other
/// libraries take the key of the first record.
const OWN_KEY: &str = "a";

/// The hash keys of a shard, from the first to the last.
pub(crate) type HashKeys = RangeInclusive<u128>;

#[derive(Clone, PartialEq, Message)]
struct Aggregated {
    #[prost(string, repeated, tag = "1")]
    partition_keys: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    explicit_hash_keys: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    records: Vec<Packed>,
}

#[derive(Clone, PartialEq, Message)]
struct Packed {
    #[prost(uint64, required, tag = "1")]
    partition_key: u64,
    #[prost(uint64, optional, tag = "2")]
    explicit_hash_key: Option<u64>,
    #[prost(bytes = "bytes", required, tag = "3")]
    data: bytes::Bytes,
}

/// A record out of an aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) key: String,
    /// What chose the shard instead of the key.
    pub(crate) explicit_hash_key: Option<String>,
    pub(crate) data: bytes::Bytes,
}

impl Unpacked {
    /// Whether this record, which came in an aggregate with the partition key `of` to a shard with these hash keys, comes
    /// again in another shard.
    ///
    /// The library packs what goes to one shard. Where that one was split meanwhile, it sends anew what lies outside of
    /// the child that has got the aggregate. Aggregates of others never come again, wherever their keys belong.
    pub(crate) fn comes_again(&self, of: &str, shard: &HashKeys) -> bool {
        of == OWN_KEY && self.hash_key().is_some_and(|hash_key| !shard.contains(&hash_key))
    }

    /// What chooses the shard of the record; `None` where an explicit one is no number.
    fn hash_key(&self) -> Option<u128> {
        match &self.explicit_hash_key {
            Some(explicit) => explicit.parse().ok(),
            None => Some(u128::from_be_bytes(Md5::digest(&self.key).into())),
        }
    }
}

/// The records of an aggregate in their order; `None` where `data` is none.
///
/// An explicit hash key that points nowhere makes the aggregate invalid, as a partition key does.
pub(crate) fn unpack(data: &[u8]) -> Option<Vec<Unpacked>> {
    let rest = data.strip_prefix(&MAGIC)?;
    let (message, digest) = rest.split_at_checked(rest.len().checked_sub(DIGEST)?)?;
    if Md5::digest(message).as_slice() != digest {
        return None;
    }
    let aggregated = Aggregated::decode(message).ok()?;
    let entry = |table: &[String], index: u64| table.get(usize::try_from(index).ok()?).cloned();
    let unpacked = aggregated.records.into_iter().map(|packed| {
        let explicit_hash_key = match packed.explicit_hash_key {
            Some(index) => Some(entry(&aggregated.explicit_hash_keys, index)?),
            None => None,
        };
        let key = entry(&aggregated.partition_keys, packed.partition_key)?;
        Some(Unpacked { key, explicit_hash_key, data: packed.data })
    });
    unpacked.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aggregate(message: &Aggregated) -> Vec<u8> {
        let message = message.encode_to_vec();
        let mut data = MAGIC.to_vec();
        data.extend(&message);
        data.extend(Md5::digest(&message));
        data
    }

    fn two() -> Aggregated {
        let packed = |partition_key, explicit_hash_key, data: &'static str| Packed {
            partition_key,
            explicit_hash_key,
            data: data.into(),
        };
        Aggregated {
            partition_keys: vec!["a".into(), "b".into()],
            explicit_hash_keys: vec!["7".into()],
            records: vec![packed(1, None, "first"), packed(0, Some(0), "second")],
        }
    }

    #[test]
    fn an_aggregate_gives_its_records_in_order() {
        let records = unpack(&aggregate(&two())).unwrap();
        let expected = [("b", None, "first"), ("a", Some("7"), "second")].map(|(key, explicit, data)| Unpacked {
            key: key.into(),
            explicit_hash_key: explicit.map(str::to_owned),
            data: data.into(),
        });
        assert_eq!(records, expected);
        assert_eq!(unpack(&aggregate(&Aggregated::default())).unwrap(), vec![]);
    }

    #[test]
    fn only_what_the_library_sends_again_elsewhere_is_told_apart() {
        let record = |key: &str, explicit: Option<&str>| Unpacked {
            key: key.into(),
            explicit_hash_key: explicit.map(str::to_owned),
            data: "x".into(),
        };
        // The MD5 of `b`.
        let hash = 0x92eb_5ffe_e6ae_2fec_3ad7_1c77_7531_578f;
        let (before, with, behind) = (0..=hash - 1, hash..=hash, hash + 1..=u128::MAX);
        let plain = record("b", None);
        assert!(plain.comes_again("a", &before) && !plain.comes_again("a", &with) && plain.comes_again("a", &behind));
        let explicit = record("b", Some("7"));
        assert!(!explicit.comes_again("a", &before) && explicit.comes_again("a", &behind));
        // Others aggregate what belongs to several shards, and send it once.
        assert!(!plain.comes_again("b", &before) && !explicit.comes_again("key-0", &behind));
        assert!(!record("b", Some("seven")).comes_again("a", &behind));
    }

    #[test]
    fn anything_else_is_a_plain_record() {
        let whole = aggregate(&two());
        assert_eq!(unpack(b""), None);
        assert_eq!(unpack(br#"{"driver_id": 1}"#), None);
        // Every cut and every flipped byte: the digest or the magic does not fit any more.
        for at in 0..whole.len() {
            assert_eq!(unpack(&whole[..at]), None, "cut at {at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            assert_eq!(unpack(&flipped), None, "flipped at {at}");
        }
        let mut astray = two();
        astray.records[0].partition_key = 2;
        assert_eq!(unpack(&aggregate(&astray)), None);
        let mut astray = two();
        astray.records[1].explicit_hash_key = Some(u64::MAX);
        assert_eq!(unpack(&aggregate(&astray)), None);
    }
}
