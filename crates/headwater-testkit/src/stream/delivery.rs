//! What a reader delivers while nothing goes wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headwater_core::Position;
use headwater_core::stream::{Payload, StreamEvent};

use super::StreamFixture;
use super::worker::{Entry, Harness, Setup};
use crate::Verdict;
use crate::clause::{ensure, same, skip};

pub(super) async fn assigned_first<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let harness = Harness::with(fixture, &[20, 20]).await?;
    let mut worker = harness.worker(&Setup::new("assigned")).await?;
    worker.read(&harness.everything()).await?;
    let mut owned = Vec::new();
    for entry in &worker.log {
        match entry {
            Entry::Assigned { split, .. } => {
                ensure!(!owned.contains(split), "the split {split} was assigned twice");
                owned.push(split.clone());
            }
            Entry::Batch { split, .. } => ensure!(owned.contains(split), "a batch of {split}, which is not assigned"),
            Entry::Revoked { split } | Entry::Ended { split } => {
                ensure!(owned.contains(split), "the split {split} was taken away and was not assigned");
                owned.retain(|s| s != split);
            }
            Entry::Record { .. } | Entry::Finished => {}
        }
    }
    Ok(())
}

pub(super) async fn order<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let harness = Harness::with(fixture, &[50, 30]).await?;
    let mut worker = harness.worker(&Setup::new("order")).await?;
    worker.read(&harness.everything()).await?;
    let mut last: BTreeMap<_, (Position, i64)> = BTreeMap::new();
    for entry in &worker.log {
        if let Entry::Assigned { split, .. } = entry {
            last.remove(split);
        }
        let Entry::Record { split, position, number } = entry else { continue };
        if let Some((before, number_before)) = last.insert(split.clone(), (position.clone(), *number)) {
            ensure!(before < *position, "in {split} the position {position:?} comes after {before:?}");
            ensure!(number_before < *number, "in {split} the record {number} comes after {number_before}");
        }
    }
    Ok(())
}

pub(super) async fn completeness<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let harness = Harness::with(fixture, &[50, 1, 30]).await?;
    let mut worker = harness.worker(&Setup::new("completeness")).await?;
    worker.read(&harness.everything()).await?;
    same!(worker.sets(), harness.everything(), "records");
    Ok(())
}

pub(super) async fn through<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let harness = Harness::with(fixture, &[30, 10]).await?;
    let mut worker = harness.worker(&Setup::new("through")).await?;
    worker.read(&harness.everything()).await?;
    let mut reached: BTreeMap<_, Position> = BTreeMap::new();
    let mut last: BTreeMap<_, Position> = BTreeMap::new();
    for entry in &worker.log {
        match entry {
            Entry::Record { split, position, .. } => {
                if let Some(reached) = reached.get(split) {
                    ensure!(position > reached, "{position:?} of {split} comes after a batch through {reached:?}");
                }
                last.insert(split.clone(), position.clone());
            }
            Entry::Batch { split, through, .. } => {
                let last = last.get(split).cloned().unwrap_or(Position::START);
                ensure!(*through >= last, "a batch of {split} through {through:?} holds the position {last:?}");
                reached.insert(split.clone(), through.clone());
            }
            _ => {}
        }
    }
    Ok(())
}

pub(super) async fn as_declared<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let harness = Harness::with(fixture, &[6]).await?;
    let capabilities = harness.source.capabilities();
    let schema = harness.source.schema().await?;
    same!(schema.is_none(), capabilities.encoded, "whether the source is encoded, by its schema");
    if let Some(metadata) = &capabilities.metadata {
        let odd = metadata.fields().iter().find(|field| !field.name().starts_with("__"));
        ensure!(odd.is_none(), "a metadata column does not begin with `__`: {odd:?}");
    }
    let setup = Setup::new("declared");
    let mut reader = harness.source.subscribe(setup.context()).await?;
    let mut records = 0;
    while records < 6 {
        let Some(event) = reader.next().await? else { break };
        let StreamEvent::Batch(batch) = event else { continue };
        records += batch.payload.len();
        match &batch.payload {
            Payload::Encoded(_) => ensure!(capabilities.encoded, "an encoded batch from a source of columns"),
            Payload::Rows(rows) => same!(Some(rows.schema()), schema, "the columns of a batch"),
        }
        same!(batch.metadata.as_ref().map(|m| m.schema()), capabilities.metadata, "the metadata columns of a batch");
        let rows = batch.metadata.as_ref().map_or(batch.payload.len(), |metadata| metadata.num_rows());
        same!(rows, batch.payload.len(), "rows of metadata");
    }
    same!(records, 6, "records");
    Ok(())
}

pub(super) async fn stored_times<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    use arrow::array::AsArray;
    use arrow::datatypes::TimestampMicrosecondType;
    let harness = Harness::with(fixture, &[6]).await?;
    let metadata = harness.source.capabilities().metadata;
    let declared =
        metadata.is_some_and(|metadata| metadata.index_of(headwater_core::stream::METADATA_TIMESTAMP).is_ok());
    if !declared || !harness.fixture.stores_times() {
        skip!("the stream does not hand over stored times");
    }
    let mut reader = harness.source.subscribe(Setup::new("times").context()).await?;
    let mut records = 0;
    while records < 6 {
        let Some(event) = reader.next().await? else { break };
        let StreamEvent::Batch(batch) = event else { continue };
        let numbers = harness.fixture.numbers(&batch)?;
        records += numbers.len();
        let times = batch.metadata.as_ref().and_then(|m| m.column_by_name(headwater_core::stream::METADATA_TIMESTAMP));
        let Some(times) = times.and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>()) else {
            ensure!(false, "a batch lacks its stored times");
            continue;
        };
        let expected = numbers.iter().map(|number| super::Record::new(*number).time).collect::<Vec<_>>();
        same!(times.values().to_vec(), expected, "stored times");
    }
    Ok(())
}

pub(super) async fn batch_records<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let harness = Harness::with(fixture, &[40, 5]).await?;
    for limit in [1, 3, 1000] {
        let setup = Setup { batch_records: limit, ..Setup::new(&format!("batch{limit}")) };
        let mut worker = harness.worker(&setup).await?;
        worker.read(&harness.everything()).await?;
        for entry in &worker.log {
            let Entry::Batch { records, .. } = entry else { continue };
            ensure!(*records <= limit, "a batch of {records} records where at most {limit} are asked for");
        }
    }
    Ok(())
}

pub(super) async fn buffer_bytes<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    const RECORD: usize = 10_000;
    let mut harness = Harness::with(fixture, &[0, 0]).await?;
    harness.produce_padded(0, 50, RECORD).await?;
    harness.produce_padded(1, 20, RECORD).await?;
    for buffer_bytes in [RECORD / 10, RECORD * 4] {
        let setup = Setup { buffer_bytes, batch_records: 1000, ..Setup::new(&format!("bytes{buffer_bytes}")) };
        let mut worker = harness.worker(&setup).await?;
        worker.read(&harness.everything()).await?;
        for entry in &worker.log {
            let Entry::Batch { records, .. } = entry else { continue };
            let bytes = records * RECORD;
            ensure!(
                *records <= 1 || bytes <= buffer_bytes,
                "a batch of {bytes} bytes where {buffer_bytes} may be held"
            );
        }
        same!(worker.sets(), harness.everything(), "records larger than the buffer");
    }
    Ok(())
}

pub(super) async fn stalled<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    const RECORD: usize = 9_000;
    const BUFFER: usize = 40 * RECORD;
    /// Nothing is handed out for so long, looked at so often: a reader that keeps to a rate may pause for a second.
    const STILL: (u32, Duration) = (20, Duration::from_millis(100));
    let mut harness = Harness::with(fixture, &[0]).await?;
    if harness.fixture.handed_out(&harness.stream).is_none() {
        skip!("the fixture does not see what the stream has handed out");
    }
    let most = BUFFER + harness.fixture.on_the_way();
    harness.produce_padded(0, i64::try_from(4 * most / RECORD)?, RECORD).await?;
    let setup = Setup { buffer_bytes: BUFFER, batch_records: 9, ..Setup::new("stalled") };
    let mut worker = harness.worker(&setup).await?;
    while worker.numbers().is_empty() {
        worker.next().await?;
    }
    let taken = worker.numbers().values().map(Vec::len).sum::<usize>();
    // From here on nobody asks, until the reader has come to rest, or has fetched everything.
    let (mut handed_out, mut still) = (0, 0);
    while still < STILL.0 {
        tokio::time::sleep(STILL.1).await;
        let now = harness.fixture.handed_out(&harness.stream).unwrap_or_default();
        still = if now == handed_out { still + 1 } else { 0 };
        handed_out = now;
    }
    let held = handed_out.saturating_sub(taken) * RECORD;
    ensure!(held <= most, "{held} bytes were handed out that nobody asked for, where {BUFFER} may be held");
    worker.read(&harness.everything()).await?;
    same!(worker.sets(), harness.everything(), "records of a reader that nobody asked for a while");
    let read = worker.numbers().values().map(Vec::len).sum::<usize>();
    let handed_out = harness.fixture.handed_out(&harness.stream).unwrap_or_default();
    ensure!(handed_out >= read, "the fixture saw {handed_out} records handed out of {read} that were read");
    Ok(())
}

pub(super) async fn finished_for_ever<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let harness = Harness::with(fixture, &[10, 10]).await?;
    if !harness.source.capabilities().bounded {
        skip!("the stream is not bounded");
    }
    let mut worker = harness.worker(&Setup::new("finished")).await?;
    worker.read(&harness.everything()).await?;
    for _ in 0..5 {
        same!(worker.next().await?, false, "whether the finished stream had another event");
    }
    Ok(())
}

pub(super) async fn finishes_when_delivered<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    for splits in [&[10, 10][..], &[0, 3]] {
        let harness = Harness::with(Arc::clone(&fixture), splits).await?;
        if !harness.source.capabilities().bounded {
            skip!("the stream is not bounded");
        }
        let mut worker = harness.worker(&Setup::new("delivered")).await?;
        while worker.next().await? {}
        same!(worker.sets(), harness.everything(), "records before the stream was finished");
    }
    Ok(())
}

pub(super) async fn waits<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let mut harness = Harness::with(fixture, &[3]).await?;
    harness.unbounded()?;
    let mut worker = harness.worker(&Setup::new("waits")).await?;
    for _ in 0..4 {
        worker.read(&harness.everything()).await?;
        if let Some(more) = worker.glance().await? {
            ensure!(more, "the stream is finished, although it is not bounded");
        }
        harness.produce(0, 2).await?;
    }
    worker.read(&harness.everything()).await?;
    same!(worker.sets(), harness.everything(), "records that were produced while the reader waited");
    Ok(())
}

pub(super) async fn cancel<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let harness = Harness::with(fixture, &[25, 10]).await?;
    // Polled once and dropped, again and again; then twice, and so on: every await point is the last one sometime.
    for (round, longest) in [1, 2, 3, 8, 40].into_iter().enumerate() {
        let setup = Setup { batch_records: 3, ..Setup::new(&format!("cancel{round}")) };
        let mut worker = harness.worker(&setup).await?;
        let mut attempts = 0;
        while !worker.has_read(&harness.everything()) {
            attempts += 1;
            // A reader that keeps nothing of an unfinished call comes on with longer ones; it is not to be hurried.
            let polls = if attempts % 50 == 0 { 200 } else { 1 + attempts % longest };
            worker.poll(polls).await?;
            ensure!(attempts < 5000, "dropped {attempts} times, `next` does not come to an end");
        }
        same!(worker.numbers(), harness.everything(), "records, `next` dropped after up to {longest} polls");
    }
    Ok(())
}

pub(super) async fn lag<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    // Some are told of the end of a split now and then, and not with what they read: more than they hold, and time.
    for (records, padding, pause) in [(20, 0, Duration::ZERO), (220, 9_000, Duration::from_millis(250))] {
        let mut harness = Harness::with(Arc::clone(&fixture), &[0]).await?;
        harness.produce_padded(0, records, padding).await?;
        let mut worker = harness.worker(&Setup { batch_records: 5, ..Setup::new("lag") }).await?;
        let everything = harness.everything();
        let mut finished = 0;
        while !worker.has_read(&everything) {
            if !worker.next().await? {
                finished += 1;
            }
            ensure!(finished < 100, "the stream says that it is finished, and is not");
            if !worker.log.iter().any(|entry| matches!(entry, Entry::Batch { lag: Some(_), .. })) {
                tokio::time::sleep(pause).await;
            }
        }
        if counts_down(&worker.log, u64::try_from(records)?)? {
            return Ok(());
        }
    }
    skip!("the source does not know its lag")
}

/// Checks the lag of every batch that has one, of so many records; whether there was any.
fn counts_down(log: &[Entry], mut left: u64) -> Verdict<bool> {
    let mut last = None;
    for entry in log {
        let Entry::Batch { lag, records, .. } = entry else { continue };
        left = left.saturating_sub(u64::try_from(*records)?);
        let Some(lag) = lag else { continue };
        if let Some(known) = lag.records {
            same!(known, left, "records that the reader is behind");
        }
        ensure!(left == 0 || !lag.is_zero(), "no lag where {left} records are left");
        last = Some(*lag);
    }
    if let Some(last) = last {
        ensure!(last.is_zero(), "the lag after the last record is {last:?}");
    }
    Ok(last.is_some())
}
