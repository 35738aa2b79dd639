//! Messages as Google's library writes them.

use headwater_core::ErrorKind;
use headwater_core::definitions::RecordFormat;
use headwater_core::stream::{RegisteredSchema, SchemaRegistry};
use headwater_testkit::Random;
use serde_json::{Value, json};

use super::describe;
use crate::ingest::tests::records::{decode, decoder, framed, unhex};

/// Made by `tests/records/make.py`.
const GOLDEN: &str = include_str!("../../../tests/records/protobuf.json");

/// Nobody asks it anything.
#[derive(Debug)]
struct SilentRegistry;

#[async_trait::async_trait]
impl SchemaRegistry for SilentRegistry {
    async fn schema(&self, id: u32) -> headwater_core::Result<Option<RegisteredSchema>> {
        panic!("schema {id} was asked for")
    }
}

fn format(message: &str) -> RecordFormat {
    RecordFormat::protobuf("rides.desc", message)
}

fn golden() -> (Vec<Vec<u8>>, Vec<Value>) {
    let cases: Vec<Value> = serde_json::from_str(GOLDEN).unwrap();
    cases.iter().map(|case| (unhex(case["record"].as_str().unwrap()), case["row"].clone())).unzip()
}

#[tokio::test]
async fn messages_read_as_they_were_written() {
    let (records, rows) = golden();
    let records = records.into_iter().map(Some).collect::<Vec<_>>();
    let out = decode(&decoder(&format("rides.v1.Ride"), None), &records).await;
    assert_eq!(out, rows.into_iter().map(Ok).collect::<Vec<_>>());
}

#[test]
fn fields_that_no_column_can_hold_bring_none() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/records");
    let (schema, _) = describe(&format("rides.v1.Ride"), folder.as_ref()).unwrap();
    let missing = ["anything", "previous"].map(|name| schema.column_with_name(name).is_some());
    assert_eq!((missing, schema.fields().len()), ([false, false], 21));
}

#[tokio::test]
async fn framed_messages_say_which_of_the_file_they_are() {
    let registry = || Some(std::sync::Arc::new(SilentRegistry) as std::sync::Arc<dyn SchemaRegistry>);
    let leg = decoder(&format("rides.v1.Ride.Leg"), registry());
    let first = decoder(&format("rides.v1.Place"), registry());
    let body = [8, 5];
    let with = |indices: &[u8]| Some(framed(1, &[indices, &body].concat()));
    let out =
        decode(&leg, &[with(&[4, 2, 0]), with(&[0]), with(&[2, 2]), Some(body.to_vec()), Some(framed(1, &[4]))]).await;
    assert_eq!(out[0], Ok(json!({"metres": 5})));
    let says = [
        (1, "the record is of the message [0] of its writer's file, and `rides.v1.Ride.Leg` is [1, 0]"),
        (2, "the record is of the message [1] of its writer's file"),
        (3, "the record names no schema"),
        (4, "the record ends within the indices of its message"),
    ];
    for (at, says) in says {
        assert!(out[at].as_ref().unwrap_err().starts_with(says), "{:?}", out[at]);
    }
    // The file's first message has a short form.
    let empty = Ok(json!({"lat": 0.0, "lon": null}));
    assert_eq!(decode(&first, &[Some(framed(1, &[0])), Some(framed(1, &[2, 0]))]).await, [empty.clone(), empty]);
}

#[tokio::test]
async fn a_bad_message_costs_no_other() {
    let (records, rows) = golden();
    let decoder = decoder(&format("rides.v1.Ride"), None);
    let mut random = Random::new(11);
    for _ in 0..300 {
        let mut bad = records[1].clone();
        if random.once_in(2) {
            bad.truncate(random.below(bad.len()));
        } else {
            let at = random.below(bad.len());
            bad[at] ^= 1 << random.below(8);
        }
        let out = decode(&decoder, &[Some(records[1].clone()), Some(bad), None, Some(records[3].clone())]).await;
        assert_eq!((&out[0], &out[3]), (&Ok(rows[1].clone()), &Ok(rows[3].clone())));
        assert_ne!(out[1], Err("missing".into()));
    }
}

#[tokio::test]
async fn what_a_column_cannot_hold_fails() {
    let decoder = decoder(&format("rides.v1.Ride"), None);
    // The field `ts` with a nanosecond, the field `big` with all bits, the field `ts` beyond the years.
    let finer = vec![0x12, 2, 0x10, 1];
    let large = vec![0x78, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let late = vec![0x12, 10, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    let text = vec![0x32, 1, 0xff];
    let out = decode(&decoder, &[Some(finer), Some(large), Some(late), Some(text)]).await;
    let says = [
        "column `ts`: time `0 s 1 ns` is finer than a microsecond",
        "column `big`: `18446744073709551615` does not go into int64 without loss",
        "column `ts`: time `9223372036854775807 s 0 ns` does not go into 64 bits of microseconds",
        "not a message `rides.v1.Ride`",
    ];
    for (out, says) in out.iter().zip(says) {
        assert!(out.as_ref().unwrap_err().starts_with(says), "{out:?}");
    }
}

#[test]
fn a_descriptor_set_has_to_be_there_and_hold_the_message() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.desc"), "no descriptors").unwrap();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/records/rides.desc");
    for (file, message, kind, says) in [
        ("missing.desc", "rides.v1.Ride", ErrorKind::NotFound, "missing.desc` cannot be read"),
        ("bad.desc", "rides.v1.Ride", ErrorKind::Invalid, "protoc --include_imports"),
        (golden, "rides.v1.Rid", ErrorKind::NotFound, "did you mean `rides.v1.Ride`?"),
    ] {
        let error = describe(&RecordFormat::protobuf(file, message), folder.path()).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.message().contains(says), "{error}");
    }
}
