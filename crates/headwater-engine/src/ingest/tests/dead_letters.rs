use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Float64Type, SchemaRef};
use headwater_core::definitions::{LateEvents, OnError};
use headwater_core::options::Duration;
use headwater_core::transform::{Fingerprint, PlannedTransform, Transformed};
use headwater_core::{Error, ErrorKind, Result};

use super::world::*;
use crate::ingest::{ListedDeadLetter, Replayed, dead_letters, replay_dead_letters};

async fn letters(world: &World) -> Vec<ListedDeadLetter> {
    dead_letters(&world.project()).await.unwrap()
}

async fn reasons(world: &World) -> Vec<(u64, String)> {
    let letters = letters(world).await.into_iter().map(|listed| listed.letter);
    letters.map(|letter| (letter.position.to_u64().unwrap(), letter.reason)).collect()
}

/// Fails where a value is 13, gives two rows where it is 2, none where it is 0.
#[derive(Debug)]
pub(super) struct Superstitious(pub(super) f64);

impl PlannedTransform for Superstitious {
    fn output(&self) -> SchemaRef {
        input()
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::default()
    }

    fn apply(&self, batch: &RecordBatch) -> Result<Transformed> {
        let values = batch.column_by_name("value").unwrap().as_primitive::<Float64Type>();
        let mut inputs = Vec::new();
        for (row, value) in values.iter().enumerate() {
            if value == Some(self.0) {
                return Err(Error::data(format!("`{}` brings bad luck", self.0)));
            }
            let times = if value == Some(2.0) { 2 } else { usize::from(value != Some(0.0)) };
            inputs.extend(std::iter::repeat_n(u32::try_from(row).unwrap(), times));
        }
        let inputs = UInt32Array::from(inputs);
        Ok(Transformed { rows: take_record_batch(batch, &inputs)?, inputs: Some(inputs) })
    }
}

#[tokio::test]
async fn a_malformed_record_costs_no_other() {
    let world = World::new();
    world.stream.event("a", 1, 10, 1.0);
    world.stream.add("a", r#"{"id": 2, "ts":"#);
    world.stream.event("a", 3, 10, 3.0);
    world.stream.add("a", r#"{"id": 4, "ts": "1970-01-01T00:00:00Z", "value": "four"}"#);
    world.stream.add("a", r#"{"ts": "1970-01-01T00:00:00Z", "value": 5}"#);
    world.stream.add("a", r#"{"id": 6, "value": 6}"#);
    world.stream.add("a", "[]");
    world.stream.event("a", 8, 10, 8.0);
    world.run().await;
    assert_eq!(world.online().await.len(), 3);
    assert_eq!(world.log().await.len(), 3);
    let reasons = reasons(&world).await;
    let expected = [
        (2, "not a JSON object: EOF while parsing"),
        (4, "column `value`: text `four` does not go into float64 without loss"),
        (5, "column `id`: must not be null"),
        (6, "column `ts`: must not be null"),
        (7, "not a JSON object: invalid type: sequence, expected an object"),
    ];
    assert_eq!(reasons.len(), expected.len(), "{reasons:?}");
    for ((position, reason), (at, beginning)) in reasons.iter().zip(expected) {
        assert!(*position == at && reason.starts_with(beginning), "{position}: {reason}");
    }
    let letters = letters(&world).await;
    assert_eq!(letters[0].letter.record(), r#"{"id": 2, "ts":"#);
    assert!(!letters[0].resolved);

    // Reading it all again, as after a lost online store, puts nothing twice there.
    let mut again = world.clone();
    again.online = World::new().online;
    again.run().await;
    assert_eq!(self::reasons(&again).await.len(), 5);
}

#[tokio::test]
async fn rows_that_cannot_be_transformed_stand_alone() {
    let mut world = World::new();
    world.options.tuning.batch_records = 100;
    world.views = vec![transformed_by(view("values", "g1"), Arc::new(Superstitious(13.0))).into()];
    for value in [1.0, 13.0, 2.0, 0.0, 13.0, 13.0, 3.0] {
        world.stream.event("a", 1, 10, value);
    }
    world.run().await;
    let positions = world.log().await.iter().map(|row| row.1).collect::<Vec<_>>();
    assert_eq!(positions, [1, 3, 3, 7], "two rows of one record, none of another");
    let reasons = reasons(&world).await;
    assert_eq!(reasons.iter().map(|(position, _)| *position).collect::<Vec<_>>(), [2, 5, 6]);
    assert_eq!(reasons[0].1, "`13` brings bad luck");
}

#[tokio::test]
async fn replay_after_a_fix_brings_the_record_in_once() {
    let mut world = World::new();
    world.views = vec![transformed_by(view("values", "g1"), Arc::new(Superstitious(13.0))).into()];
    world.stream.event("a", 1, 10, 1.0);
    world.stream.event("a", 2, 10, 13.0);
    world.stream.add("a", "no JSON at all");
    world.run().await;
    let replay = async |world: &World| replay_dead_letters(&world.project(), None).await.unwrap();
    assert_eq!(replay(&world).await, Replayed { brought_in: 0, failed: 2, skipped: 0 });
    assert_eq!(letters(&world).await.len(), 2, "what fails again stays, once");

    // The fix keeps the generation.
    world.views = vec![transformed_by(view("values", "g1"), Arc::new(Superstitious(14.0))).into()];
    assert_eq!(replay(&world).await, Replayed { brought_in: 1, failed: 1, skipped: 0 });
    assert_eq!(replay(&world).await, Replayed { brought_in: 0, failed: 1, skipped: 1 });
    let log = world.log().await;
    assert_eq!(log.iter().map(|row| row.2).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(world.online().await.len(), 2);
    let resolved = letters(&world).await.iter().map(|listed| listed.resolved).collect::<Vec<_>>();
    assert_eq!(resolved, [true, false]);
}

#[tokio::test]
async fn replay_leaves_alone_what_a_new_generation_has_read_itself() {
    let mut world = World::new();
    world.views = vec![transformed_by(view("values", "g1"), Arc::new(Superstitious(13.0))).into()];
    world.stream.event("a", 1, 10, 13.0);
    world.run().await;
    world.views = vec![transformed_by(view("values", "g2"), Arc::new(Superstitious(14.0))).into()];
    let project = world.project();
    let unread = replay_dead_letters(&project, None).await.unwrap();
    assert_eq!(unread, Replayed { brought_in: 0, failed: 0, skipped: 1 }, "it will read it");
    world.run().await;
    let read = replay_dead_letters(&project, None).await.unwrap();
    assert_eq!(read, Replayed { brought_in: 0, failed: 0, skipped: 1 }, "it has read it");
    assert_eq!(world.log().await.len(), 1);
    assert!(letters(&world).await[0].resolved);
}

#[tokio::test]
async fn on_error_fail_stops_the_job_at_the_record() {
    let mut world = World::new();
    world.settings().on_error = OnError::Fail;
    world.stream.event("a", 1, 10, 1.0);
    world.stream.add("a", "nonsense");
    let mut job = world.start().await;
    let error = job.wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("at position `0000000000000002` of split `a`: not a JSON object"), "{error}");
    assert_eq!(letters(&world).await.len(), 0);
}

#[tokio::test]
async fn events_from_the_future_and_late_ones_are_put_aside() {
    let mut world = World::new();
    world.settings().late_events = LateEvents::DeadLetter;
    world.settings().watermark_delay_threshold = Some(Duration(5_000_000));
    world.settings().max_future_skew = Duration(1_000_000);
    for (ts, stored) in
        [(20_000_000, 20_000_000), (15_000_000, 21_000_000), (14_999_999, 21_000_000), (22_000_001, 21_000_000)]
    {
        world.stream.add_at("a", Some(record(1, ts, None, 1.0)), stored);
    }
    world.run().await;
    let reasons = reasons(&world).await;
    assert_eq!(reasons[0], (3, "the event is older than the watermark".into()));
    assert_eq!(reasons[1].0, 4);
    assert!(reasons[1].1.contains("max_future_skew"), "{reasons:?}");
    assert_eq!(world.log().await.len(), 2);
    // Replayed on purpose, a late event is late no more.
    let done = replay_dead_letters(&world.project(), Some("events")).await.unwrap();
    assert_eq!(done, Replayed { brought_in: 1, failed: 1, skipped: 0 });
}
