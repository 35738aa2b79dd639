//! Members of a group.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use headwater_core::stream::{Checkpoints, FixedCheckpoints, Progress};
use headwater_core::{ErrorKind, Position, Result, SplitId};
use serde_json::{Value, json};

use crate::world::{Broker, Outcome, Reader, Setup, ensure, values};

pub(crate) async fn membership_outlives_a_reader_that_is_not_asked(broker: Arc<Broker>) -> Outcome {
    let topic = broker.name();
    broker.create(&topic, 1, &[]).await?;
    let padding = "x".repeat(10_000);
    broker.produce(&topic, 0, &values(&padding, 0..500)).await?;
    let setup = Setup { buffer_bytes: 64 << 10, ..Setup::fresh() };
    let options = json!({"options": {"max.poll.interval.ms": 6000, "session.timeout.ms": 6000}});
    let mut reader = broker.reader(&topic, options, &setup).await?;
    reader.until(|reader| !reader.records.is_empty()).await?;
    // Longer than the session and the poll interval, with a full buffer. There is no event to wait for.
    tokio::time::sleep(Duration::from_secs(9)).await;
    reader.until(|reader| reader.records.len() >= 500).await?;
    ensure!(reader.revoked.is_empty(), "the partition was taken away");
    ensure!(reader.records.len() == 500, "{} records of 500", reader.records.len());
    reader.close().await
}

/// Has `reader` read until it has a partition; the other one is not asked for anything.
async fn until_assigned(reader: &mut Reader) -> Outcome {
    reader.until(|reader| !reader.assigned.is_empty()).await
}

pub(crate) async fn a_revocation_that_is_not_acknowledged_counts_as_lost(broker: Arc<Broker>) -> Outcome {
    let topic = broker.name();
    broker.create(&topic, 2, &[]).await?;
    let (setup, options) = (Setup::fresh(), json!({"revoke_timeout": "1s"}));
    let mut one = broker.reader(&topic, options.clone(), &setup).await?;
    one.until(|reader| reader.assigned.len() == 2).await?;
    // It hears of nothing more: its store is stuck.
    let begin = Instant::now();
    let mut two = broker.reader(&topic, options, &setup).await?;
    until_assigned(&mut two).await?;
    // The second, and what the group needs: a heartbeat of 2 s, and twice that all members join.
    ensure!(begin.elapsed() < Duration::from_secs(25), "held up for {:?}", begin.elapsed());
    one.until(|reader| !reader.revoked.is_empty()).await?;
    ensure!(one.revoked.iter().all(|(_, lost)| *lost), "revoked, not lost: {:?}", one.revoked);
    ensure!(one.assigned.len() == 1, "{:?}", one.assigned);
    one.close().await?;
    two.until(|reader| reader.assigned.len() == 2).await?;
    two.close().await
}

/// A store that does not answer.
#[derive(Debug)]
struct Stuck;

#[async_trait]
impl Checkpoints for Stuck {
    async fn resume(&self, _: &SplitId) -> Result<Option<Progress>> {
        std::future::pending().await
    }

    async fn started(&self) -> Result<bool> {
        std::future::pending().await
    }

    async fn noted(&self, _: &str) -> Result<Option<Bytes>> {
        std::future::pending().await
    }

    async fn note(&self, _: &[(String, Bytes)]) -> Result<()> {
        std::future::pending().await
    }
}

pub(crate) async fn checkpoints_that_cannot_be_read_hold_up_nobody_else(broker: Arc<Broker>) -> Outcome {
    let topic = broker.name();
    broker.create(&topic, 2, &[]).await?;
    for partition in 0..2 {
        broker.produce(&topic, partition, &values("record", 0..5)).await?;
    }
    let stuck = broker.reader(&topic, json!({"revoke_timeout": "60s"}), &Setup::with(Stuck)).await?;
    let mut well = broker.reader(&topic, json!({}), &Setup::fresh()).await?;
    until_assigned(&mut well).await?;
    well.until(|reader| reader.records.len() >= 5).await?;
    stuck.close().await?;
    well.until(|reader| reader.records.len() == 10).await?;
    well.close().await
}

pub(crate) async fn the_newer_group_protocol_shares_partitions(broker: Arc<Broker>) -> Outcome {
    shares_partitions(broker, json!({"group.protocol": "consumer"})).await
}

/// It takes all partitions away and gives all of them again, whenever one moves.
pub(crate) async fn the_eager_protocol_shares_partitions(broker: Arc<Broker>) -> Outcome {
    shares_partitions(broker, json!({"partition.assignment.strategy": "range"})).await
}

/// The engine's checkpoints, which the members of a group share.
#[derive(Debug, Clone, Default)]
struct Ledger {
    splits: Arc<Mutex<BTreeMap<SplitId, Position>>>,
    notes: FixedCheckpoints,
}

impl Ledger {
    /// Checkpoints what a reader has read of the splits that are its own, and tells it so.
    async fn checkpoint(&self, reader: &mut Reader) -> Outcome {
        let further = self.further(reader);
        if further.is_empty() { Ok(()) } else { Ok(reader.reader.commit(&further).await?) }
    }

    fn further(&self, reader: &Reader) -> Vec<(SplitId, Progress)> {
        let mut splits = self.splits.lock().unwrap_or_else(PoisonError::into_inner);
        let mut further = Vec::new();
        for (split, through) in reader.through.iter().filter(|(split, _)| reader.assigned.contains_key(*split)) {
            // What it had read of a split before another one had it may lie behind.
            if splits.get(split).is_none_or(|before| before < through) {
                splits.insert(split.clone(), through.clone());
                further.push((split.clone(), Progress::Through(through.clone())));
            }
        }
        further
    }
}

#[async_trait]
impl Checkpoints for Ledger {
    async fn resume(&self, split: &SplitId) -> Result<Option<Progress>> {
        let splits = self.splits.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(splits.get(split).cloned().map(Progress::Through))
    }

    async fn started(&self) -> Result<bool> {
        Ok(!self.splits.lock().unwrap_or_else(PoisonError::into_inner).is_empty())
    }

    async fn noted(&self, name: &str) -> Result<Option<Bytes>> {
        self.notes.noted(name).await
    }

    async fn note(&self, notes: &[(String, Bytes)]) -> Result<()> {
        self.notes.note(notes).await
    }
}

/// The values of a partition.
fn of(partition: i32, numbers: Range<usize>) -> Vec<String> {
    values(&format!("of {partition}:"), numbers)
}

/// Reads with two members in turn, and checkpoints what they read as the engine does, until it is so.
async fn both_until(
    one: &mut Reader,
    two: &mut Reader,
    ledger: &Ledger,
    is_so: impl Fn(&Reader, &Reader) -> bool,
) -> Outcome {
    for _ in 0..600 {
        if is_so(one, two) {
            return Ok(());
        }
        for reader in [&mut *one, &mut *two] {
            if let Ok(event) = tokio::time::timeout(Duration::from_millis(50), reader.next()).await {
                event?;
            }
            ledger.checkpoint(reader).await?;
        }
    }
    let read = [one.records.len(), two.records.len()];
    Err(format!("{:?} and {:?}, with {read:?} records", one.assigned, two.assigned).into())
}

async fn shares_partitions(broker: Arc<Broker>, options: Value) -> Outcome {
    let topic = broker.name();
    broker.create(&topic, 2, &[]).await?;
    for partition in 0..2 {
        broker.produce(&topic, partition, &of(partition, 0..5)).await?;
    }
    let ledger = Ledger::default();
    let (setup, options) = (Setup::with(ledger.clone()), json!({ "options": options }));
    let mut one = broker.reader(&topic, options.clone(), &setup).await?;
    one.until(|reader| reader.records.len() == 10).await?;
    ledger.checkpoint(&mut one).await?;
    let mut two = broker.reader(&topic, options, &setup).await?;
    both_until(&mut one, &mut two, &ledger, |one, two| one.assigned.len() == 1 && two.assigned.len() == 1).await?;
    for partition in 0..2 {
        broker.produce(&topic, partition, &of(partition, 5..10)).await?;
    }
    // What comes twice comes before what stands behind it: then something else is missing of twenty.
    both_until(&mut one, &mut two, &ledger, |one, two| one.records.len() + two.records.len() >= 20).await?;
    let mut read = [&one, &two].map(|reader| [reader.values(0), reader.values(1)].concat()).concat();
    read.sort_unstable();
    let mut expected = [of(0, 0..10), of(1, 0..10)].concat();
    expected.sort_unstable();
    ensure!(read == expected, "{read:?}");
    ensure!(!two.records.is_empty(), "the second member has read nothing");
    one.close().await?;
    two.until(|reader| reader.assigned.len() == 2).await?;
    two.close().await
}

pub(crate) async fn a_static_member_gets_its_partitions_back(broker: Arc<Broker>) -> Outcome {
    let topic = broker.name();
    broker.create(&topic, 2, &[]).await?;
    let member = |name: &str| json!({"instance_id": name, "options": {"session.timeout.ms": 30_000}});
    let setup = Setup::fresh();
    let mut one = broker.reader(&topic, member("one"), &setup).await?;
    one.until(|reader| reader.assigned.len() == 2).await?;
    let mut two = broker.reader(&topic, member("two"), &setup).await?;
    for _ in 0..600 {
        for reader in [&mut one, &mut two] {
            let _ = tokio::time::timeout(Duration::from_millis(50), reader.next()).await;
        }
        if one.assigned.len() == 1 && two.assigned.len() == 1 {
            break;
        }
    }
    let before: Vec<SplitId> = one.assigned.keys().cloned().collect();
    // It goes and comes back within its session: nobody else hears of it.
    one.close().await?;
    let mut again = broker.reader(&topic, member("one"), &setup).await?;
    until_assigned(&mut again).await?;
    let after: Vec<SplitId> = again.assigned.keys().cloned().collect();
    ensure!(before == after, "{before:?} became {after:?}");
    let _ = tokio::time::timeout(Duration::from_millis(500), two.next()).await;
    ensure!(two.revoked.is_empty() && two.assigned.len() == 1, "the other one was disturbed: {:?}", two.assigned);
    again.close().await?;
    two.close().await
}

pub(crate) async fn two_members_of_one_name_are_told_so(broker: Arc<Broker>) -> Outcome {
    for protocol in ["classic", "consumer"] {
        let topic = broker.name();
        broker.create(&topic, 1, &[]).await?;
        let setup = Setup::fresh();
        let twin = json!({"instance_id": "twin", "options": {"group.protocol": protocol}});
        let mut one = broker.reader(&topic, twin.clone(), &setup).await?;
        until_assigned(&mut one).await?;
        let mut two = broker.reader(&topic, twin, &setup).await?;
        // The classic protocol takes the second for the first, restarted; the newer one refuses it while the first is alive.
        let error = if protocol == "classic" { one.error().await? } else { two.error().await? };
        ensure!(error.kind() == ErrorKind::Conflict, "{protocol}: {error}");
        ensure!(error.to_string().contains("the same `instance_id`"), "{protocol}: {error}");
        one.close().await?;
        two.close().await?;
    }
    Ok(())
}
