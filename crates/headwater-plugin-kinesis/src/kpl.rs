//! Records that the Kinesis Producer Library packed into one.
//!
//! An aggregate is four magic bytes, a protobuf message, and the MD5 digest of the message. Whatever is not exactly
//! that is a record like any other.

use md5::{Digest, Md5};
use prost::Message;

const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
const DIGEST: usize = 16;

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
    pub(crate) data: bytes::Bytes,
}

/// The records of an aggregate in their order; `None` where `data` is none.
///
/// The explicit hash keys chose the shard and say nothing more; one that points nowhere makes the aggregate invalid, as
/// a partition key does. Which shard a key would go to today is not looked at: a record counts where it was delivered.
pub(crate) fn unpack(data: &[u8]) -> Option<Vec<Unpacked>> {
    let rest = data.strip_prefix(&MAGIC)?;
    let (message, digest) = rest.split_at_checked(rest.len().checked_sub(DIGEST)?)?;
    if Md5::digest(message).as_slice() != digest {
        return None;
    }
    let aggregated = Aggregated::decode(message).ok()?;
    let entry = |table: &[String], index: u64| table.get(usize::try_from(index).ok()?).cloned();
    let unpacked = aggregated.records.into_iter().map(|packed| {
        if let Some(index) = packed.explicit_hash_key {
            entry(&aggregated.explicit_hash_keys, index)?;
        }
        Some(Unpacked { key: entry(&aggregated.partition_keys, packed.partition_key)?, data: packed.data })
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
        let expected = [("b", "first"), ("a", "second")];
        assert_eq!(records, expected.map(|(key, data)| Unpacked { key: key.into(), data: data.into() }));
        assert_eq!(unpack(&aggregate(&Aggregated::default())).unwrap(), vec![]);
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
