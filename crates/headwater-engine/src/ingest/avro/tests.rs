//! Avro as fastavro writes and reads it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::BinaryArray;
use async_trait::async_trait;
use headwater_core::definitions::RecordFormat;
use headwater_core::stream::{RegisteredSchema, SchemaRegistry};
use headwater_core::{ErrorKind, Result};
use headwater_testkit::Random;
use serde_json::{Value, json};

use super::{AvroDecoder, Origin, describe, schema};
use crate::ingest::tests::records::{decode, decoder, framed, unhex};

/// Made by `tests/records/make.py`.
const GOLDEN: &str = include_str!("../../../tests/records/avro.json");

#[derive(Debug, Default)]
struct TestRegistry {
    schemas: Mutex<BTreeMap<u32, RegisteredSchema>>,
    asked: Mutex<Vec<u32>>,
}

impl TestRegistry {
    fn put(&self, id: u32, kind: &str, text: &Value) {
        let schema = RegisteredSchema { kind: kind.into(), text: text.to_string(), references: Vec::new() };
        self.schemas.lock().unwrap().insert(id, schema);
    }

    fn asked(&self) -> Vec<u32> {
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.sort_unstable();
        asked
    }
}

#[async_trait]
impl SchemaRegistry for TestRegistry {
    async fn schema(&self, id: u32) -> Result<Option<RegisteredSchema>> {
        self.asked.lock().unwrap().push(id);
        Ok(self.schemas.lock().unwrap().get(&id).cloned())
    }
}

fn record(fields: Value) -> Value {
    json!({"type": "record", "name": "Ride", "fields": fields})
}

fn cases() -> Vec<Value> {
    serde_json::from_str(GOLDEN).unwrap()
}

fn bytes_of(case: &Value) -> Vec<Vec<u8>> {
    case["records"].as_array().unwrap().iter().map(|hex| unhex(hex.as_str().unwrap())).collect()
}

#[tokio::test]
async fn records_read_as_another_library_resolves_them() {
    for case in cases() {
        let name = case["name"].as_str().unwrap();
        let format = RecordFormat::avro(case["reader"].to_string());
        let expected: Vec<_> = case["rows"].as_array().unwrap().iter().cloned().map(Ok).collect();
        if case["writer"] == case["reader"] {
            let records = bytes_of(&case).into_iter().map(Some).collect::<Vec<_>>();
            assert_eq!(decode(&decoder(&format, None), &records).await, expected, "{name}, without a registry");
        }
        if name == "a single object" {
            continue;
        }
        let registry = Arc::new(TestRegistry::default());
        registry.put(7, "avro", &case["writer"]);
        let records = bytes_of(&case).iter().map(|value| Some(framed(7, value))).collect::<Vec<_>>();
        assert_eq!(decode(&decoder(&format, Some(registry)), &records).await, expected, "{name}");
    }
}

#[tokio::test]
async fn writers_may_change_from_record_to_record() {
    let registry = Arc::new(TestRegistry::default());
    let id = |of: &str| json!({"name": "id", "type": of});
    registry.put(1, "avro", &record(json!([id("int")])));
    registry.put(2, "avro", &record(json!([id("long"), {"name": "note", "type": "string"}])));
    registry.put(3, "protobuf", &json!("syntax"));
    registry.put(4, "avro", &record(json!([{"name": "other", "type": "int"}])));
    let reader = record(json!([id("long"), {"name": "note", "type": ["null", "string"], "default": null}]));
    let decoder = decoder(&RecordFormat::avro(reader.to_string()), Some(registry.clone()));
    let records = [
        Some(framed(1, &[2])),
        Some(framed(2, &[4, 2, b'n'])),
        Some(framed(1, &[6])),
        None,
        Some(framed(3, &[8])),
        Some(framed(4, &[8])),
        Some(framed(99, &[8])),
        Some(vec![2]),
        Some(framed(2, &[10])),
        Some(framed(2, &[12, 0, 0])),
        Some(framed(2, &[14, 0])),
    ];
    let row = |id: i64, note: Option<&str>| Ok(json!({"id": id, "note": note}));
    let out = decode(&decoder, &records).await;
    let says = [
        (4, "schema `3` is one of protobuf, not of Avro"),
        (5, "schema `4` cannot be read as the source's `schema` says: "),
        (6, "the schema registry knows no schema `99`"),
        (7, "the record names no schema"),
        (8, "the record is not of its writer's schema: "),
        (9, "the record is not of its writer's schema: it goes on behind its end"),
    ];
    for (at, says) in says {
        assert!(out[at].as_ref().unwrap_err().starts_with(says), "{at}: {:?}", out[at]);
    }
    assert_eq!(out[3], Err("tombstone".into()));
    assert_eq!(
        [&out[0], &out[1], &out[2], &out[10]].map(Clone::clone),
        [row(1, None), row(2, Some("n")), row(3, None), row(7, Some(""))]
    );
    assert_eq!(registry.asked(), [1, 2, 3, 4, 99]);
}

#[tokio::test]
async fn what_the_registry_has_said_is_not_asked_again() {
    let registry = Arc::new(TestRegistry::default());
    let schema = record(json!([{"name": "id", "type": "int"}]));
    registry.put(1, "avro", &schema);
    let decoder = AvroDecoder::new(&schema.to_string(), Some(registry.clone())).unwrap();
    // How many of one record for each of these schemas can be read.
    let read = async |ids: &[u32]| {
        let records: BinaryArray = ids.iter().map(|id| Some(framed(*id, &[2]))).collect();
        let writers = match decoder.writers(&records) {
            Some(writers) => writers,
            None => decoder.ask(&records).await.unwrap(),
        };
        decoder.decode(&records, &writers).unwrap().0.iter().map(|rows| rows.records.len()).sum::<usize>()
    };
    let read_each = async |ids: &[u32]| {
        let mut each = Vec::new();
        for id in ids {
            each.push(read(&[*id]).await);
        }
        each
    };
    assert_eq!(read_each(&[1, 1, 2, 2, 1]).await, [1, 1, 0, 0, 1]);
    assert_eq!(registry.asked(), [1, 2]);
    // That there is no such schema does not hold for ever.
    let Origin::Registry(_, known) = &decoder.origin else { panic!("there is a registry") };
    known.lock().unwrap().unknown_for = Duration::ZERO;
    assert_eq!(read(&[3]).await, 0);
    registry.put(3, "avro", &schema);
    assert_eq!(read_each(&[3, 3, 2]).await, [1, 1, 0]);
    assert_eq!(registry.asked(), [3, 3]);
    // Records that name thousands of schemas take no more memory than a thousand.
    known.lock().unwrap().unknown_for = Duration::from_secs(3_600);
    for from in (100..4_100).step_by(500) {
        assert_eq!(read(&(from..from + 500).collect::<Vec<_>>()).await, 0);
    }
    assert_eq!(registry.asked().len(), 4_000);
    assert_eq!(read(&[1, 1]).await, 2);
    assert_eq!(registry.asked(), [1]);
}

#[tokio::test]
async fn a_bad_record_costs_no_other() {
    let mut random = Random::new(7);
    for case in cases() {
        let expected = case["rows"].as_array().unwrap();
        let good = bytes_of(&case);
        let registry = Arc::new(TestRegistry::default());
        registry.put(7, "avro", &case["writer"]);
        let decoder = decoder(&RecordFormat::avro(case["reader"].to_string()), Some(registry));
        if case["name"] == "a single object" {
            continue;
        }
        for _ in 0..20 {
            let mut records = Vec::new();
            let mut sound = Vec::new();
            for _ in 0..random.below(12) {
                let at = random.below(good.len());
                let mut value = good[at].clone();
                let is_sound = random.once_in(2);
                if !is_sound {
                    match random.below(3) {
                        0 => value.truncate(random.below(value.len())),
                        1 => value.push(0),
                        _ => {
                            let at = random.below(value.len());
                            value[at] ^= 1 << random.below(8);
                        }
                    }
                }
                sound.push(is_sound.then(|| expected[at].clone()));
                records.push(Some(framed(7, &value)));
            }
            for (out, sound) in decode(&decoder, &records).await.into_iter().zip(sound) {
                match sound {
                    Some(row) => assert_eq!(out, Ok(row), "{}", case["name"]),
                    None => assert_ne!(out, Err("missing".into())),
                }
            }
        }
    }
}

#[tokio::test]
async fn text_that_is_none_fails_alone() {
    let reader = record(json!([{"name": "text", "type": "string"}]));
    let decoder = decoder(&RecordFormat::avro(reader.to_string()), None);
    let records = [b"\x02a", b"\x02\xff", b"\x02b", b"\x02\xc3", b"\x02c"].map(|record| Some(record.to_vec()));
    let out = decode(&decoder, &records).await;
    let rows = out.iter().flatten().map(|row| row["text"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(rows, ["a", "b", "c"]);
    assert_eq!((out[1].is_err(), out[3].is_err()), (true, true));
}

#[tokio::test]
async fn schemas_are_put_together_from_those_they_refer_to() {
    let place = json!({"type": "record", "name": "Place", "namespace": "geo", "fields": [
        {"name": "lat", "type": "double"}, {"name": "unit", "type": "Unit"}]});
    let unit = json!({"type": "enum", "name": "geo.Unit", "symbols": ["M", "KM"]});
    let writer = json!({"type": "record", "name": "Ride", "namespace": "rides", "fields": [
        {"name": "from", "type": "geo.Place"}, {"name": "to", "type": ["null", "geo.Place"]},
        {"name": "in", "type": {"type": "array", "items": "geo.Unit"}}]});
    let references = [("geo.Unit", &unit), ("geo.Place", &place)];
    let references = references.map(|(name, schema)| (name.to_owned(), schema.to_string())).to_vec();
    let whole = schema::whole(&writer.to_string(), &references).unwrap();
    let registry = Arc::new(TestRegistry::default());
    let registered = RegisteredSchema { kind: "avro".into(), text: writer.to_string(), references };
    registry.schemas.lock().unwrap().insert(1, registered);
    let decoder = decoder(&RecordFormat::avro(whole), Some(registry));
    let value = [0_f64.to_le_bytes().as_slice(), &[2, 0], &[2, 2, 0]].concat();
    let out = decode(&decoder, &[Some(framed(1, &value))]).await;
    assert_eq!(out, [Ok(json!({"from": {"lat": 0.0, "unit": "KM"}, "to": null, "in": ["KM"]}))]);
}

#[test]
fn schemas_that_are_none_are_refused_with_the_reason() {
    let node = r#"{"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}"#;
    for (text, says) in [
        ("record", "no Avro schema"),
        (r#""string""#, "the schema is not one of a record"),
        (r#"{"type": "enum", "name": "E", "symbols": ["A"]}"#, "the schema is not one of a record"),
        (r#"{"type": "record", "name": "R"}"#, "Expected a Record"),
        (node, "Node"),
    ] {
        let error = describe(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().starts_with("`record_format.schema`: ") && error.message().contains(says), "{error}");
    }
}
