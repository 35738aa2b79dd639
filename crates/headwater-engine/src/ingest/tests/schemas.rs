//! Jobs whose records name their writers' schemas.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use headwater_core::definitions::{OnError, RecordFormat};
use headwater_core::stream::{RegisteredSchema, SchemaRegistry};
use headwater_core::{Error, ErrorKind, Result};

use super::records::framed;
use super::world::{World, assert_each_once, record};
use crate::ingest::JobState;
use crate::ingest::dead_letters;

const WRITER: &str = r#"{"type": "record", "name": "Event", "fields": [
    {"name": "id", "type": "int"}, {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "value", "type": "float"}]}"#;
const READER: &str = r#"{"type": "record", "name": "Event", "fields": [
    {"name": "id", "type": "long"}, {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "created", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}], "default": null},
    {"name": "value", "type": "double"}]}"#;

/// Knows one schema, when it is there.
#[derive(Debug, Default)]
struct TestRegistry {
    away: AtomicBool,
}

/// Does not let anybody in.
#[derive(Debug)]
struct ClosedRegistry;

#[async_trait]
impl SchemaRegistry for ClosedRegistry {
    async fn schema(&self, _: u32) -> Result<Option<RegisteredSchema>> {
        Err(Error::new(ErrorKind::PermissionDenied, "the registry answers with status `401`"))
    }
}

#[async_trait]
impl SchemaRegistry for TestRegistry {
    async fn schema(&self, id: u32) -> Result<Option<RegisteredSchema>> {
        if self.away.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "the registry is away"));
        }
        let schema = RegisteredSchema { kind: "avro".into(), text: WRITER.into(), references: Vec::new() };
        Ok((id == 1).then_some(schema))
    }
}

fn event(id: u8, millis: u8, value: f32) -> Vec<u8> {
    framed(1, &[[id * 2, millis * 2].as_slice(), &value.to_le_bytes()].concat())
}

#[tokio::test]
async fn a_job_waits_for_its_registry_and_buries_what_it_does_not_know() {
    let registry = Arc::new(TestRegistry { away: AtomicBool::new(true) });
    let mut world = World::new();
    world.stream.registry = Some(Arc::clone(&registry) as Arc<dyn SchemaRegistry>);
    world.settings().record_format = Some(RecordFormat::avro(READER));
    world.stream.add("a", event(1, 10, 0.5));
    world.stream.add("a", framed(2, &[2]));
    world.stream.add("a", event(2, 20, 1.5));
    let mut job = world.start().await;
    let says = || async { job.status().retrying.is_some_and(|retrying| retrying.contains("the registry is away")) };
    world.until("the status to say that the registry is away", says).await;
    assert_eq!(job.status().state, JobState::Running);
    registry.away.store(false, Ordering::SeqCst);
    job.wait().await.unwrap();
    let log = world.log().await;
    assert_each_once(&log);
    let rows = log.iter().map(|row| (row.1, row.2, row.3, row.4.map(f64::from_bits))).collect::<Vec<_>>();
    assert_eq!(rows, [(1, 1, 10_000, Some(0.5)), (3, 2, 20_000, Some(1.5))]);
    let dead = dead_letters(&world.project()).await.unwrap();
    let reasons = dead.iter().map(|dead| dead.letter.reason.as_str()).collect::<Vec<_>>();
    assert_eq!(reasons, ["the schema registry knows no schema `2`"]);
}

/// It says which columns it has; the registry, which would let nobody in, is not asked for more.
#[tokio::test]
async fn json_is_read_with_the_header_of_a_registry_and_without() {
    let mut world = World::new();
    world.stream.registry = Some(Arc::new(ClosedRegistry));
    world.stream.add("a", framed(7, record(1, 10, None, 0.5).as_bytes()));
    world.stream.event("a", 2, 20, 1.5);
    // A header alone, and one that is cut short.
    world.stream.add("a", framed(7, b""));
    world.stream.add("a", [0, 0, 7]);
    world.run().await;
    let log = world.log().await;
    assert_each_once(&log);
    let rows = log.iter().map(|row| (row.1, row.2, row.3, row.4.map(f64::from_bits))).collect::<Vec<_>>();
    assert_eq!(rows, [(1, 1, 10, Some(0.5)), (2, 2, 20, Some(1.5))]);
    assert_eq!(dead_letters(&world.project()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_registry_that_lets_nobody_in_ends_the_job() {
    let mut world = World::new();
    world.stream.registry = Some(Arc::new(ClosedRegistry));
    world.settings().record_format = Some(RecordFormat::avro(READER));
    world.stream.add("a", event(1, 10, 0.5));
    let mut job = world.start().await;
    let error = job.wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(job.status().state, JobState::Failed);
    assert!(job.status().reason.is_some_and(|reason| reason.contains("status `401`")));
    assert!(world.log().await.is_empty() && dead_letters(&world.project()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_schema_that_nobody_knows_ends_the_job_where_errors_do() {
    let mut world = World::new();
    world.stream.registry = Some(Arc::new(TestRegistry::default()));
    world.settings().record_format = Some(RecordFormat::avro(READER));
    world.settings().on_error = OnError::Fail;
    world.stream.add("a", event(1, 10, 0.5));
    world.stream.add("a", framed(2, &[2]));
    let error = world.start().await.wait().await.unwrap_err();
    let says = "position `0000000000000002` of split `a`: the schema registry knows no schema `2`";
    assert!(error.kind() == ErrorKind::Data && error.to_string().contains(says), "{error}");
}
