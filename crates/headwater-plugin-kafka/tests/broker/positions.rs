//! Where partitions are read on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headwater_core::stream::{FixedCheckpoints, StartPosition};
use headwater_core::{ErrorKind, Position};
use serde_json::json;

use crate::world::{Broker, Outcome, Setup, ensure, resumed, split, values};

pub(crate) async fn latest_is_resolved_once_for_all_partitions(broker: Arc<Broker>) -> Outcome {
    let topic = broker.name();
    broker.create(&topic, 2, &[]).await?;
    for partition in 0..2 {
        broker.produce(&topic, partition, &values("before", 0..5)).await?;
    }
    let latest = |checkpoints| Setup { start: StartPosition::Latest, ..Setup::with(checkpoints) };
    let memory = FixedCheckpoints::default();
    // Two at once: whoever gets a partition, it begins behind what was there.
    let (setup, options) = (latest(memory.clone()), json!({}));
    let (one, two) =
        tokio::join!(broker.reader(&topic, options.clone(), &setup), broker.reader(&topic, options, &setup));
    let (mut one, mut two) = (one?, two?);
    for _ in 0..200 {
        for reader in [&mut one, &mut two] {
            let _ = tokio::time::timeout(Duration::from_millis(50), reader.next()).await;
        }
        if one.assigned.len() == 1 && two.assigned.len() == 1 {
            break;
        }
    }
    for reader in [&one, &two] {
        ensure!(reader.assigned.len() == 1, "two readers of two partitions have {:?}", reader.assigned);
        ensure!(reader.assigned.values().all(|at| *at == Position::from_u64(4)), "{:?}", reader.assigned);
        ensure!(reader.records.is_empty(), "records from before the start: {:?}", reader.records);
    }
    one.close().await?;
    two.close().await?;
    // Partition 0 has a checkpoint, partition 1 died before it had one, partition 2 came later.
    broker.produce(&topic, 1, &values("after", 0..3)).await?;
    broker.grow(&topic, 3).await?;
    let mut reader = broker.reader(&topic, json!({}), &latest(resumed(&memory, 4))).await?;
    broker.produce(&topic, 2, &values("new", 0..2)).await?;
    reader.until(|reader| reader.records.len() == 5).await?;
    ensure!(reader.values(1) == ["after 0", "after 1", "after 2"], "{:?}", reader.values(1));
    ensure!(reader.values(2) == ["new 0", "new 1"], "{:?}", reader.values(2));
    ensure!(reader.assigned.get(&split(2)) == Some(&Position::START), "{:?}", reader.assigned);
    reader.close().await
}

pub(crate) async fn what_retention_has_removed_stops_the_job_or_is_skipped(broker: Arc<Broker>) -> Outcome {
    let topic = broker.name();
    broker.create(&topic, 1, &[]).await?;
    broker.produce(&topic, 0, &values("record", 0..10)).await?;
    broker.delete_before(&topic, 6).await?;
    let memory = FixedCheckpoints::default();
    let mut reader = broker.reader(&topic, json!({}), &Setup::with(resumed(&memory, 2))).await?;
    let error = reader.error().await?;
    ensure!(error.kind() == ErrorKind::PositionLost, "{error}");
    ensure!(error.to_string().contains("removed the records from offset 3 to 6 of partition 0"), "{error}");
    reader.close().await?;
    let earliest = json!({"on_position_lost": "earliest"});
    let mut reader = broker.reader(&topic, earliest.clone(), &Setup::with(resumed(&memory, 2))).await?;
    reader.until(|reader| reader.records.len() == 4).await?;
    ensure!(reader.assigned.get(&split(0)) == Some(&Position::from_u64(5)), "{:?}", reader.assigned);
    ensure!(reader.lost == BTreeMap::from([(split(0), Position::from_u64(5))]), "{:?}", reader.lost);
    ensure!(reader.values(0) == ["record 6", "record 7", "record 8", "record 9"], "{:?}", reader.values(0));
    reader.close().await?;
    // Where nothing is left, no record would show that there is nothing to wait for.
    broker.delete_before(&topic, 10).await?;
    let mut reader = broker.reader(&topic, earliest.clone(), &Setup::with(resumed(&memory, 2))).await?;
    reader.until(|reader| reader.through.contains_key(&split(0))).await?;
    ensure!(reader.lost == BTreeMap::from([(split(0), Position::from_u64(9))]), "{:?}", reader.lost);
    reader.close().await?;
    // A checkpoint behind the end is no matter of retention.
    let mut reader = broker.reader(&topic, earliest, &Setup::with(resumed(&memory, 20))).await?;
    let error = reader.error().await?;
    ensure!(error.to_string().contains("ends at offset 10, before the checkpoint at offset 21"), "{error}");
    reader.close().await
}

pub(crate) async fn retention_that_overtakes_a_reader_is_survived(broker: Arc<Broker>) -> Outcome {
    for goes_on in [false, true] {
        let topic = broker.name();
        broker.create(&topic, 1, &[]).await?;
        broker.produce(&topic, 0, &values(&"x".repeat(10_000), 0..1000)).await?;
        // Far more than the reader may hold, so that it has not read on when the records go.
        let checkpoints = resumed(&FixedCheckpoints::default(), 0);
        let setup = Setup { buffer_bytes: 64 << 10, ..Setup::with(checkpoints) };
        let policy = if goes_on { "earliest" } else { "fail" };
        let mut reader = broker.reader(&topic, json!({"on_position_lost": policy}), &setup).await?;
        reader.until(|reader| !reader.records.is_empty()).await?;
        broker.delete_before(&topic, 980).await?;
        if goes_on {
            let end = Position::from_u64(999);
            reader.until(|reader| reader.through.get(&split(0)) == Some(&end)).await?;
            ensure!(reader.revoked == [(split(0), false)], "what was said of the loss: {:?}", reader.revoked);
            let resumed = reader.assigned.get(&split(0)).and_then(Position::to_u64);
            ensure!(resumed == Some(979), "went on after {resumed:?}");
        } else {
            let error = reader.error().await?;
            ensure!(error.kind() == ErrorKind::PositionLost, "{error}");
            ensure!(error.to_string().contains("retention has removed"), "{error}");
        }
        reader.close().await?;
    }
    Ok(())
}

pub(crate) async fn a_topic_made_anew_is_noticed_by_its_last_committed_record(broker: Arc<Broker>) -> Outcome {
    let topic = broker.name();
    broker.create(&topic, 1, &[]).await?;
    broker.produce(&topic, 0, &values("old", 0..5)).await?;
    let memory = FixedCheckpoints::default();
    let mut reader = broker.reader(&topic, json!({}), &Setup::with(memory.clone())).await?;
    reader.until(|reader| reader.records.len() == 5).await?;
    reader.commit(0, 4).await?;
    reader.close().await?;
    let marks = || memory.notes.lock().map(|notes| notes.len()).unwrap_or_default();
    ensure!(marks() == 1, "{} marks", marks());
    // The same topic is the same.
    broker.produce(&topic, 0, &values("old", 5..7)).await?;
    let mut reader = broker.reader(&topic, json!({}), &Setup::with(resumed(&memory, 4))).await?;
    reader.until(|reader| reader.records.len() == 2).await?;
    reader.close().await?;
    // Of a record that is gone nothing is concluded.
    broker.delete_before(&topic, 5).await?;
    let mut reader = broker.reader(&topic, json!({}), &Setup::with(resumed(&memory, 4))).await?;
    reader.until(|reader| reader.records.len() == 2).await?;
    reader.close().await?;
    // Another topic of the same name, with as many records.
    broker.delete(&topic).await?;
    let mut made = Err("not tried".into());
    for _ in 0..100 {
        made = broker.create(&topic, 1, &[]).await;
        if made.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    made?;
    broker.produce(&topic, 0, &values("new", 0..7)).await?;
    for policy in ["fail", "earliest"] {
        let options = json!({"on_position_lost": policy});
        let mut reader = broker.reader(&topic, options, &Setup::with(resumed(&memory, 4))).await?;
        let error = reader.error().await?;
        ensure!(error.kind() == ErrorKind::PositionLost, "{error}");
        ensure!(error.to_string().contains("the record at offset 4 of partition 0 is another one"), "{error}");
        ensure!(reader.records.is_empty(), "records of another topic");
        reader.close().await?;
    }
    Ok(())
}

/// A topic that was read comes back: at once with fewer records, as many and more, and after a while. And between two looks at
/// the topic's metadata, so that librdkafka would read on in it and say nothing.
pub(crate) async fn a_topic_made_anew_under_a_reader_is_noticed(broker: Arc<Broker>) -> Outcome {
    let unseen = json!({"options": {
        "topic.metadata.refresh.interval.ms": 60_000, "topic.metadata.refresh.fast.interval.ms": 60_000,
    }});
    let often = || json!({});
    let cases = [(0..3, 0, often()), (0..10, 0, often()), (0..20, 0, often()), (0..20, 3, often()), (0..20, 0, unseen)];
    for (records, pause, options) in cases {
        let topic = broker.name();
        broker.create(&topic, 1, &[]).await?;
        broker.produce(&topic, 0, &values("old", 0..10)).await?;
        let checkpoints = resumed(&FixedCheckpoints::default(), 4);
        let mut reader = broker.reader(&topic, options, &Setup::with(checkpoints)).await?;
        reader.until(|reader| reader.records.len() == 5).await?;
        reader.commit(0, 9).await?;
        broker.delete(&topic).await?;
        tokio::time::sleep(Duration::from_secs(pause)).await;
        broker.create(&topic, 1, &[]).await?;
        broker.produce(&topic, 0, &values("new", records.clone())).await?;
        let error = reader.error().await.map_err(|late| format!("{records:?} after {pause} s: {late}"))?;
        ensure!(error.kind() == ErrorKind::PositionLost, "{records:?} after {pause} s: {error}");
        ensure!(error.to_string().contains("the topic was re-created"), "{records:?} after {pause} s: {error}");
        reader.close().await?;
    }
    Ok(())
}

pub(crate) async fn a_topic_that_is_deleted_under_a_reader_ends_it(broker: Arc<Broker>) -> Outcome {
    let topic = broker.name();
    broker.create(&topic, 1, &[]).await?;
    broker.produce(&topic, 0, &values("record", 0..10)).await?;
    let mut reader = broker.reader(&topic, json!({}), &Setup::fresh()).await?;
    reader.until(|reader| reader.records.len() == 10).await?;
    broker.delete(&topic).await?;
    let error = reader.error().await?;
    ensure!(error.kind() == ErrorKind::NotFound && error.to_string().contains(&topic), "{error}");
    reader.close().await
}
