//! What a reader delivers after another one: restarts, starts, hand-overs.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_core::stream::{Progress, StartPosition};
use headwater_core::{ErrorKind, Position, SplitId};

use super::worker::{Entry, Harness, Setup, Worker};
use super::{Record, StreamFixture};
use crate::clause::{applicable, ensure, same, skip};
use crate::{Random, Stop, Verdict, seeds};

/// Adds a log's records to what was processed before.
fn process<F: StreamFixture>(processed: &mut BTreeMap<SplitId, Vec<i64>>, worker: &Worker<F>) {
    for (split, numbers) in worker.numbers() {
        processed.entry(split).or_default().extend(numbers);
    }
}

/// What is left once the records processed so far are taken away, in unbounded streams.
fn left<F: StreamFixture>(
    harness: &Harness<F>,
    processed: &BTreeMap<SplitId, Vec<i64>>,
) -> BTreeMap<SplitId, Vec<i64>> {
    let mut left = harness.everything();
    left.retain(|split, numbers| processed.get(split).and_then(|done| done.last()) != numbers.last());
    left
}

pub(super) async fn every_event<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let harness = Harness::with(fixture, &[12, 5]).await?;
    for events in 0.. {
        let setup = Setup { batch_records: 3, ..Setup::new(&format!("restart{events}")) };
        let mut processed = BTreeMap::new();
        let mut worker = harness.worker(&setup).await?;
        let mut seen = 0;
        while seen < events && !worker.has_read(&harness.everything()) {
            worker.next().await?;
            seen += 1;
        }
        let all = worker.has_read(&harness.everything());
        process(&mut processed, &worker);
        // Dies, or leaves in good order.
        if events % 2 == 0 {
            drop(worker);
        } else {
            worker.close().await?;
        }
        let mut worker = harness.worker(&setup).await?;
        worker.read(&left(&harness, &processed)).await?;
        process(&mut processed, &worker);
        same!(processed, harness.everything(), "records of a reader that stopped after {events} events and its heir");
        if all {
            return Ok(());
        }
    }
    Ok(())
}

pub(super) async fn every_record<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let harness = Harness::with(fixture, &[8]).await?;
    let split = harness.split(0);
    let mut worker = harness.worker(&Setup::new("positions")).await?;
    worker.read(&harness.everything()).await?;
    let positions = worker.positions(&split);
    drop(worker);
    for number in 1..8 {
        let Some(position) = positions.get(&number) else { skip!("the record {number} was not delivered") };
        let setup = Setup { batch_records: 3, ..Setup::new(&format!("resume{number}")) };
        setup.ledger.set(&split, Progress::Through(position.clone()));
        let mut worker = harness.worker(&setup).await?;
        worker.read(&harness.everything()).await?;
        let resumed = worker.log.iter().find_map(|entry| match entry {
            Entry::Assigned { resume, .. } => Some(resume.clone()),
            _ => None,
        });
        same!(resumed.as_ref(), Some(position), "where the split is read on");
        let expected = BTreeMap::from([(split.clone(), (number + 1..=8).collect())]);
        same!(worker.numbers(), expected, "records behind a checkpoint at the record {number}");
    }
    Ok(())
}

pub(super) async fn stable_positions<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let harness = Harness::with(fixture, &[12, 5]).await?;
    let mut found = Vec::new();
    for (index, batch_records) in [1, 5, 6].into_iter().enumerate() {
        let setup = Setup { batch_records, ..Setup::new(&format!("stable{index}")) };
        let mut worker = harness.worker(&setup).await?;
        worker.read(&harness.everything()).await?;
        found.push([worker.positions(&harness.split(0)), worker.positions(&harness.split(1))]);
    }
    for again in &found {
        same!(*again, found[0], "positions of the records, read again in other batches");
    }
    Ok(())
}

pub(super) async fn uncommitted<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let harness = Harness::with(fixture, &[9]).await?;
    let setup = Setup { batch_records: 2, ..Setup::new("crash") };
    for _ in 0..2 {
        let mut worker = harness.worker(&setup).await?;
        worker.dutiful = false;
        while worker.numbers().is_empty() {
            worker.next().await?;
        }
        // The start is checkpointed, and nothing that was read.
        for entry in worker.log.clone() {
            if let Entry::Assigned { split, resume } = entry {
                worker.settle(&[(split, Progress::Through(resume))]).await?;
            }
        }
        worker.close().await?;
    }
    let mut worker = harness.worker(&setup).await?;
    worker.read(&harness.everything()).await?;
    same!(worker.sets(), harness.everything(), "records that were read before and not committed");
    Ok(())
}

pub(super) async fn earliest<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let harness = Harness::with(fixture, &[5, 3]).await?;
    let mut worker = harness.worker(&Setup::new("earliest")).await?;
    worker.read(&harness.everything()).await?;
    for split in [0, 1] {
        let split = harness.split(split);
        let first = worker.numbers().get(&split).and_then(|numbers| numbers.first().copied());
        same!(first, Some(1), "the first record of {split}");
    }
    Ok(())
}

/// Subscribes with `start` and reads until the split is assigned; checkpoints its start.
async fn begun<F: StreamFixture>(harness: &Harness<F>, setup: &Setup, split: usize) -> Verdict<Worker<F>> {
    let mut worker = match harness.worker(setup).await {
        // `Unsupported`, from the call or from the reader, says that the source cannot start there.
        Err(stop) => return Err(stop),
        Ok(worker) => worker,
    };
    while !worker.has(&harness.split(split)) {
        worker.next().await?;
    }
    Ok(worker)
}

pub(super) async fn latest<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let mut harness = Harness::with(fixture, &[5]).await?;
    let setup = Setup { start: StartPosition::Latest, ..Setup::new("latest") };
    let worker = begun(&harness, &setup, 0).await?;
    same!(worker.numbers(), BTreeMap::new(), "records before the latest");
    // Dies at once. What comes meanwhile is not lost.
    drop(worker);
    harness.produce(0, 3).await?;
    let mut worker = harness.worker(&setup).await?;
    worker.read(&harness.everything()).await?;
    same!(worker.numbers(), BTreeMap::from([(harness.split(0), vec![6, 7, 8])]), "records since the first start");
    Ok(())
}

pub(super) async fn start_at<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let harness = Harness::with(fixture, &[9]).await?;
    let stores_times = harness.fixture.stores_times();
    for (number, offset) in [(4, 0), (4, -1), (1, -100_000_000)] {
        let start = StartPosition::At(Record::new(number).time + offset);
        let setup = Setup { start, batch_records: 3, ..Setup::new(&format!("at{number}{offset}")) };
        let reader = harness.source.subscribe(setup.context()).await;
        if !stores_times {
            let kind = match reader {
                Err(error) => error.kind(),
                Ok(mut reader) => match reader.next().await {
                    Err(error) => error.kind(),
                    Ok(_) => skip!("the fixture stores no times"),
                },
            };
            same!(kind, ErrorKind::Unsupported, "the error of a source that cannot start at a time");
            skip!("the source cannot start at a time, and says so");
        }
        drop(reader);
        let mut worker = harness.worker(&Setup { group: format!("{}again", setup.group), ..setup }).await?;
        worker.read(&harness.everything()).await?;
        let expected = BTreeMap::from([(harness.split(0), (number..=9).collect())]);
        same!(worker.numbers(), expected, "records from {offset} µs beside the time of the record {number}");
    }
    Ok(())
}

pub(super) async fn new_split<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let mut harness = Harness::with(fixture, &[5]).await?;
    let setup = Setup { start: StartPosition::Latest, ..Setup::new("newsplit") };
    let mut worker = begun(&harness, &setup, 0).await?;
    if harness.source.capabilities().bounded {
        drop(worker);
        let added = harness.add_split().await?;
        harness.produce(added, 4).await?;
        worker = harness.worker(&setup).await?;
        while worker.next().await? {}
        let found = worker.numbers().remove(&harness.split(added));
        same!(found, Some(vec![1, 2, 3, 4]), "records of a split that came after the start at the latest");
        return Ok(());
    }
    // While it runs, and while nobody does.
    let added = harness.add_split().await?;
    harness.produce(added, 4).await?;
    let expected = BTreeMap::from([(harness.split(added), vec![1, 2, 3, 4])]);
    worker.read(&expected).await?;
    same!(worker.numbers(), expected, "records of a split that came while the reader ran");
    drop(worker);
    let added = harness.add_split().await?;
    harness.produce(added, 3).await?;
    let mut worker = harness.worker(&setup).await?;
    let expected = BTreeMap::from([(harness.split(added), vec![1, 2, 3])]);
    worker.read(&expected).await?;
    same!(worker.numbers(), expected, "records of a split that came while no reader ran");
    Ok(())
}

pub(super) async fn later_run<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let mut harness = Harness::with(fixture, &[4, 2]).await?;
    let setup = Setup::new("later");
    let mut processed = BTreeMap::new();
    for _ in 0..3 {
        let mut worker = harness.worker(&setup).await?;
        worker.read(&left(&harness, &processed)).await?;
        process(&mut processed, &worker);
        same!(processed, harness.everything(), "records of one run after another");
        drop(worker);
        harness.produce(1, 3).await?;
    }
    Ok(())
}

pub(super) async fn at_the_end<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let harness = Harness::with(fixture, &[4]).await?;
    let split = harness.split(0);
    let mut worker = harness.worker(&Setup::new("whole")).await?;
    worker.read(&harness.everything()).await?;
    let positions = worker.positions(&split);
    drop(worker);
    // A checkpoint at the very end: nothing is left, and nothing comes again.
    let Some(end) = positions.get(&4) else { skip!("the last record was not delivered") };
    let setup = Setup::new("atend");
    setup.ledger.set(&split, Progress::Through(end.clone()));
    let mut worker = harness.worker(&setup).await?;
    while let Some(true) = worker.glance().await? {}
    same!(worker.numbers(), BTreeMap::new(), "records behind a checkpoint at the end");
    Ok(())
}

pub(super) async fn random<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    for seed in seeds(8) {
        match one_random(Arc::clone(&fixture), seed).await {
            Err(Stop::Failed(reason)) => return Err(Stop::Failed(format!("seed {seed}: {reason}"))),
            other => other?,
        }
    }
    Ok(())
}

/// Produces, adds and ends splits, drops calls, restarts; in the end every record has been processed once.
async fn one_random<F: StreamFixture>(fixture: Arc<F>, seed: u64) -> Verdict {
    let mut random = Random::new(seed);
    let mut harness = Harness::with(fixture, &[3, 2]).await?;
    let setup = Setup { batch_records: 1 + random.below(5), ..Setup::new(&format!("random{seed}")) };
    let mut open = vec![0, 1];
    let mut processed = BTreeMap::new();
    let mut worker = harness.worker(&setup).await?;
    for _ in 0..60 {
        let any = open.get(random.below(open.len())).copied();
        // What a stream cannot do is left out.
        let done = match (random.below(12), any) {
            (0..3, Some(split)) => harness.produce(split, 1 + i64::try_from(random.below(6))?).await,
            (3, _) if random.once_in(3) => match harness.add_split().await {
                Ok(split) => {
                    open.push(split);
                    harness.produce(split, 2).await
                }
                Err(stop) => Err(stop),
            },
            (4, Some(split)) if random.once_in(3) => match harness.end_split(split).await {
                Ok(children) => {
                    open.retain(|other| *other != split);
                    open.extend(children);
                    Ok(())
                }
                Err(stop) => Err(stop),
            },
            (5, _) => {
                process(&mut processed, &worker);
                if random.once_in(2) {
                    drop(worker);
                } else {
                    worker.close().await?;
                }
                worker = harness.worker(&setup).await?;
                Ok(())
            }
            _ => worker.poll(1 + random.below(6)).await.map(|_| ()),
        };
        match done {
            Err(Stop::Skipped(_)) | Ok(()) => {}
            failed => failed?,
        }
    }
    process(&mut processed, &worker);
    drop(worker);
    let mut worker = harness.worker(&setup).await?;
    worker.read(&left(&harness, &processed)).await?;
    process(&mut processed, &worker);
    same!(processed, harness.everything(), "records");
    Ok(())
}

pub(super) async fn discover<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let harness = Harness::with(fixture, &[5, 2]).await?;
    let mut worker = harness.worker(&Setup::new("discover")).await?;
    while worker.numbers().is_empty() {
        worker.next().await?;
    }
    let found = applicable(harness.source.discover().await)?;
    let mut expected = vec![harness.split(0), harness.split(1)];
    expected.sort();
    let mut splits = found.iter().map(|info| info.split.clone()).collect::<Vec<_>>();
    splits.sort();
    same!(splits, expected, "splits");
    // It has no effect on the reader.
    worker.read(&harness.everything()).await?;
    same!(worker.numbers(), harness.everything(), "records around a discovery");
    for info in found {
        let Some(end) = info.end else { continue };
        let last = worker.positions(&info.split).into_values().last().unwrap_or(Position::START);
        same!(end, last, "the end of {}", info.split);
    }
    Ok(())
}

pub(super) async fn discover_empty<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let mut harness = Harness::with(fixture, &[0]).await?;
    for info in applicable(harness.source.discover().await)? {
        if let Some(end) = info.end {
            same!(end, Position::START, "the end of the empty split {}", info.split);
        }
    }
    harness.produce(0, 2).await?;
    let found = harness.source.discover().await?;
    let Some(info) = found.iter().find(|info| info.split == harness.split(0)) else {
        return Err(Stop::Failed(format!("the split {} is not among {found:?}", harness.split(0))));
    };
    ensure!(info.end != Some(Position::START), "the end of a split with records is its start");
    Ok(())
}

pub(super) async fn identity<F: StreamFixture>(fixture: Arc<F>) -> Verdict {
    let harness = Harness::with(Arc::clone(&fixture), &[1]).await?;
    let context = super::stream_context(Arc::new(headwater_core::time::SystemClock));
    let again = harness.fixture.open(&harness.stream, &context).await?;
    same!(again.identity(), harness.source.identity(), "the identity of the stream, opened again");
    same!(again.capabilities(), harness.source.capabilities(), "the capabilities of the stream, opened again");
    let other = Harness::with(fixture, &[1]).await?;
    ensure!(other.source.identity() != harness.source.identity(), "two streams have one identity");
    Ok(())
}
