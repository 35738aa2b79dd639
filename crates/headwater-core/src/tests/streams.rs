//! What the conformance suite does not see of the in-memory stream: retention, commits, its producer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::memory::MemoryStreamSource;
use crate::stream::{
    FixedCheckpoints, Lag, ProducerRecord, Progress, ReaderContext, StartPosition, StreamEvent, StreamReader,
};
use crate::time::ManualClock;
use crate::{ErrorKind, Position, SplitId, StreamProducer, StreamSource};

fn context(splits: &[(&str, Progress)]) -> ReaderContext {
    let splits = splits.iter().map(|(split, progress)| (SplitId::from(*split), progress.clone())).collect();
    ReaderContext {
        group: "project.source".into(),
        start: StartPosition::Earliest,
        checkpoints: Arc::new(FixedCheckpoints { splits, ..FixedCheckpoints::default() }),
        buffer_bytes: 1 << 20,
        batch_records: 100,
        refresh: Duration::from_secs(10),
        clock: Arc::new(ManualClock::new(0)),
    }
}

fn stream(records: usize) -> MemoryStreamSource {
    let stream = MemoryStreamSource::new("s").bounded(true);
    stream.add_split(SplitId::from("a"), &[]);
    let record = || (None, Some(Bytes::from("x")), 0);
    stream.append(&SplitId::from("a"), (0..records).map(|_| record()).collect()).unwrap();
    stream
}

/// The positions that a reader delivers up to the end.
async fn positions(reader: &mut dyn StreamReader) -> crate::Result<Vec<u64>> {
    let mut positions = Vec::new();
    while let Some(event) = reader.next().await? {
        if let StreamEvent::Batch(batch) = event {
            positions.extend(batch.positions.iter().flatten().filter_map(|p| Position::new(p.to_vec()).to_u64()));
        }
    }
    Ok(positions)
}

#[tokio::test]
async fn a_trimmed_position_is_lost() {
    let stream = stream(10);
    stream.trim(&SplitId::from("a"), 4);
    let behind = context(&[("a", Progress::Through(Position::from_u64(3)))]);
    let mut reader = stream.subscribe(behind).await.unwrap();
    assert_eq!(positions(reader.as_mut()).await.unwrap_err().kind(), ErrorKind::PositionLost);
    drop(reader);
    // At the edge nothing is lost; without a checkpoint it begins with what there is.
    let edge = context(&[("a", Progress::Through(Position::from_u64(4)))]);
    let mut reader = stream.subscribe(edge).await.unwrap();
    assert_eq!(positions(reader.as_mut()).await.unwrap(), [5, 6, 7, 8, 9, 10]);
    drop(reader);
    let mut reader = stream.subscribe(context(&[])).await.unwrap();
    assert_eq!(positions(reader.as_mut()).await.unwrap(), [5, 6, 7, 8, 9, 10]);
}

#[tokio::test]
async fn commits_are_kept_for_the_owner_alone() {
    let stream = stream(3);
    let mut reader = stream.subscribe(context(&[])).await.unwrap();
    let split = SplitId::from("a");
    let commit = [(split.clone(), Progress::Through(Position::from_u64(2)))];
    reader.commit(&commit).await.unwrap();
    assert_eq!(stream.committed("project.source", &split), None);
    positions(reader.as_mut()).await.unwrap();
    reader.commit(&commit).await.unwrap();
    assert_eq!(stream.committed("project.source", &split), Some(Progress::Through(Position::from_u64(2))));
    assert_eq!(stream.committed("another.source", &split), None);
}

#[tokio::test]
async fn records_of_one_key_stay_in_one_split() {
    let stream = MemoryStreamSource::new("s").with_clock(Arc::new(ManualClock::new(7)));
    for split in ["a", "b", "c"] {
        stream.add_split(SplitId::from(split), &[]);
    }
    let record = |key: usize| ProducerRecord { key: Bytes::from(key.to_string()), value: Bytes::from("v") };
    for _ in 0..5 {
        stream.send((0..20).map(record).collect()).await.unwrap();
    }
    let ends = stream.discover().await.unwrap().into_iter().map(|info| info.end.and_then(|end| end.to_u64()));
    let ends = ends.map(Option::unwrap_or_default).collect::<Vec<_>>();
    assert_eq!(ends.iter().sum::<u64>(), 100);
    assert!(ends.iter().all(|end| end % 5 == 0), "{ends:?}");
    // A stream without splits gets one.
    let empty = MemoryStreamSource::new("t");
    empty.send(vec![record(1)]).await.unwrap();
    assert_eq!(empty.discover().await.unwrap().len(), 1);
}

#[test]
fn closed_and_unknown_splits_take_nothing() {
    let stream = stream(1);
    let record = || vec![(None, None, 0)];
    assert_eq!(stream.append(&SplitId::from("b"), record()).unwrap_err().kind(), ErrorKind::NotFound);
    stream.close_split(&SplitId::from("a"));
    assert_eq!(stream.append(&SplitId::from("a"), record()).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn lag_is_zero_when_all_that_is_known_is() {
    assert!(!Lag::default().is_zero());
    assert!(Lag { records: Some(0), ..Lag::default() }.is_zero());
    assert!(!Lag { records: Some(0), bytes: Some(1), ..Lag::default() }.is_zero());
    assert!(!Lag { time: Some(Duration::from_millis(1)), ..Lag::default() }.is_zero());
}
