//! What is in a topic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use headwater_core::stream::FixedCheckpoints;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use serde_json::json;

use crate::raw::{self, RawRecord};
use crate::world::{Broker, Outcome, Setup, ensure, resumed, split, values};

pub(crate) async fn aborted_transactions_at_the_end_are_stepped_over_while_others_flow(broker: Arc<Broker>) -> Outcome {
    let topic = broker.name();
    broker.create(&topic, 2, &[]).await?;
    let mut client = broker.client();
    client.set("transactional.id", &topic).set("max.in.flight.requests.per.connection", "1");
    let producer: FutureProducer = client.create()?;
    for (round, commit) in [true, false, true, false].into_iter().enumerate() {
        let (producer, topic) = (producer.clone(), topic.clone());
        // These calls block.
        let done = tokio::task::spawn_blocking(move || -> Outcome {
            let patience = Duration::from_secs(30);
            if round == 0 {
                producer.init_transactions(patience)?;
            }
            producer.begin_transaction()?;
            for number in 0..5 {
                let value = format!("{commit} {round} {number}");
                let record = FutureRecord::<(), String>::to(&topic).partition(0).payload(&value);
                drop(producer.send_result(record).map_err(|(error, _)| error)?);
            }
            producer.flush(patience)?;
            if commit {
                producer.commit_transaction(patience)?
            } else {
                producer.abort_transaction(patience)?
            }
            Ok(())
        });
        done.await??;
    }
    // Another partition is never at rest meanwhile.
    let stop = Arc::new(AtomicBool::new(false));
    let flowing = {
        let (stop, producer, topic) = (Arc::clone(&stop), broker.client().create::<FutureProducer>()?, topic.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let record = FutureRecord::<(), str>::to(&topic).partition(1).payload("flows");
                let _ = producer.send(record, Duration::from_secs(5)).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    let source = broker.source(&topic, json!({}))?;
    let ends = source.discover().await?;
    let end = ends.iter().find(|info| info.split == split(0)).and_then(|info| info.end.clone()).ok_or("no end")?;
    let mut reader = broker.reader(&topic, json!({}), &Setup::fresh()).await?;
    reader.until(|reader| reader.through.get(&split(0)).is_some_and(|through| *through >= end)).await?;
    stop.store(true, Ordering::Relaxed);
    flowing.await?;
    let expected: Vec<String> = [0, 2].iter().flat_map(|r| (0..5).map(move |n| format!("true {r} {n}"))).collect();
    ensure!(reader.values(0) == expected, "{:?}", reader.values(0));
    ensure!(end.to_u64() == Some(23), "20 records and 4 markers end at {end:?}");
    reader.close().await
}

pub(crate) async fn a_compacted_topic_is_read_over_its_gaps(broker: Arc<Broker>) -> Outcome {
    let topic = broker.name();
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "50"),
        ("min.cleanable.dirty.ratio", "0.0"),
        ("min.compaction.lag.ms", "0"),
        ("max.compaction.lag.ms", "1"),
    ];
    broker.create(&topic, 1, &settings).await?;
    let producer: FutureProducer = broker.client().create()?;
    let send = async |value: String| -> Outcome {
        let record = FutureRecord::to(&topic).partition(0).key("one").payload(&value);
        producer.send(record, Duration::from_secs(10)).await.map_err(|(error, _)| error)?;
        Ok(())
    };
    send("0".to_owned()).await?;
    let memory = FixedCheckpoints::default();
    let mut reader = broker.reader(&topic, json!({}), &Setup::with(memory.clone())).await?;
    reader.until(|reader| reader.records.len() == 1).await?;
    reader.commit(0, 0).await?;
    reader.close().await?;
    // A segment is closed by the next record after its time, and only closed ones are compacted.
    let mut sent = 1;
    let mut gaps = false;
    while !gaps && sent < 400 {
        send(format!("{sent}")).await?;
        sent += 1;
        tokio::time::sleep(Duration::from_millis(150)).await;
        if sent % 20 == 0 {
            let mut reader = broker.reader(&topic, json!({}), &Setup::fresh()).await?;
            let last = (sent - 1).to_string();
            reader.until(|reader| reader.values(0).last() == Some(&last.as_str())).await?;
            gaps = reader.values(0).first() != Some(&"0");
            reader.close().await?;
        }
    }
    ensure!(gaps, "nothing was compacted in {sent} records");
    let end = broker.source(&topic, json!({}))?.discover().await?[0].end.clone().ok_or("no end")?;
    let mut reader = broker.reader(&topic, json!({}), &Setup::fresh()).await?;
    reader.until(|reader| reader.through.get(&split(0)).is_some_and(|through| *through >= end)).await?;
    ensure!(reader.records.len() < sent, "the gaps have gone");
    reader.close().await?;
    // The record that was committed is gone, and the one that stands behind it says nothing of the topic.
    ensure!(!memory.notes.lock().map_err(|_| "poisoned")?.is_empty(), "nothing was marked");
    let mut reader = broker.reader(&topic, json!({}), &Setup::with(resumed(&memory, 0))).await?;
    reader.until(|reader| reader.through.get(&split(0)).is_some_and(|through| *through >= end)).await?;
    reader.close().await
}

pub(crate) async fn headers_keys_and_every_codec_come_through(broker: Arc<Broker>) -> Outcome {
    let topic = broker.name();
    // The records are years old.
    broker.create(&topic, 1, &[("retention.ms", "-1")]).await?;
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for codec in codecs {
        let producer: FutureProducer = broker.client().set("compression.type", codec).create()?;
        let padded = format!("{codec} {}", "x".repeat(500));
        let headers = OwnedHeaders::new()
            .insert(Header { key: "codec", value: Some(codec) })
            .insert(Header::<&str> { key: "none", value: None });
        let record = FutureRecord::to(&topic).partition(0).key(codec).payload(&padded).timestamp(1_700_000_000_123);
        producer.send(record.headers(headers), Duration::from_secs(10)).await.map_err(|(error, _)| error)?;
    }
    broker.produce(&topic, 0, &values("plain", 0..1)).await?;
    let mut reader = broker.reader(&topic, json!({}), &Setup::fresh()).await?;
    reader.until(|reader| reader.records.len() == 6).await?;
    for (at, (value, (_, metadata))) in reader.values(0).into_iter().zip(reader.values_and_metadata()).enumerate() {
        let column = |name: &str| metadata.column_by_name(name).cloned().ok_or_else(|| format!("no `{name}`"));
        ensure!(column("__partition")?.as_primitive::<Int32Type>().value(0) == 0, "partition");
        let offset = column("__offset")?.as_primitive::<Int64Type>().value(0);
        ensure!(usize::try_from(offset)? == at, "offset {offset} of the record {at}");
        let (key, headers) = (column("__key")?, column("__headers")?);
        let Some(codec) = codecs.get(at) else {
            ensure!(key.is_null(0) && headers.is_null(0) && value == "plain 0", "a record without key and headers");
            continue;
        };
        ensure!(value.starts_with(codec) && value.len() > 500, "{value}");
        ensure!(key.as_binary::<i32>().value(0) == codec.as_bytes(), "key of {codec}");
        let time = column("__timestamp")?.as_primitive::<TimestampMicrosecondType>().value(0);
        ensure!(time == 1_700_000_000_123_000, "time {time}");
        let entries = headers.as_map().value(0);
        let (names, bytes) = (entries.column(0).as_string::<i32>(), entries.column(1).as_binary::<i32>());
        ensure!(names.iter().flatten().eq(["codec", "none"]), "{names:?}");
        ensure!(bytes.value(0) == codec.as_bytes() && bytes.is_null(1), "{bytes:?}");
    }
    reader.close().await
}

pub(crate) async fn records_of_any_client_come_through(broker: Arc<Broker>) -> Outcome {
    let topic = broker.name();
    broker.create(&topic, 1, &[("retention.ms", "-1")]).await?;
    of_any_client(&broker, &topic).await
}

/// Sends what other people's clients may send to an empty topic of one partition, and reads it.
pub(crate) async fn of_any_client(broker: &Broker, topic: &str) -> Outcome {
    let time = 1_700_000_000_000;
    let plain = RawRecord { time, value: Some(b"value"), ..RawRecord::default() };
    let none = [0xff_u8, 0xfe];
    let headers: [(&[u8], Option<&[u8]>); 4] =
        [(b"first", Some(&none)), (&none, Some(b"lost")), (b"", Some(b"")), (b"last", None)];
    let sent = [
        plain.clone(),
        RawRecord { key: Some(b"gone"), value: None, ..plain },
        RawRecord { key: Some(b""), value: Some(b""), ..plain },
        RawRecord { key: Some(&none), value: Some(&none), ..plain },
        RawRecord { time: -1, ..plain },
        RawRecord { headers: &headers, ..plain },
        plain.clone(),
    ];
    let address = broker.servers.split(',').next().unwrap_or_default();
    for record in &sent {
        raw::send(address, topic, record).await?;
    }
    let mut reader = broker.reader(topic, json!({}), &Setup::fresh()).await?;
    reader.until(|reader| reader.records.len() == sent.len()).await?;
    for (at, (record, (value, metadata))) in sent.iter().zip(reader.values_and_metadata()).enumerate() {
        let column = |name: &str| metadata.column_by_name(name).cloned().ok_or_else(|| format!("no `{name}`"));
        let (key, time) = (column("__key")?, column("__timestamp")?);
        let key = key.as_binary::<i32>().iter().next().flatten();
        let time = time.as_primitive::<TimestampMicrosecondType>().iter().next().flatten();
        ensure!(value == record.value && key == record.key, "record {at}: {value:?} under {key:?}");
        ensure!(time == (record.time >= 0).then_some(record.time * 1000), "record {at}: at {time:?}");
        let headers = column("__headers")?;
        if record.headers.is_empty() {
            ensure!(headers.is_null(0), "record {at} has headers");
            continue;
        }
        let entries = headers.as_map().value(0);
        let names = entries.column(0).as_string::<i32>();
        let bytes = entries.column(1).as_binary::<i32>();
        let found: Vec<_> = names.iter().flatten().zip(bytes.iter()).collect();
        let expected: [(&str, Option<&[u8]>); 3] = [("first", Some(&none)), ("", Some(b"")), ("last", None)];
        ensure!(found == expected, "record {at}: {found:?}");
    }
    reader.close().await
}

pub(crate) async fn a_record_larger_than_the_buffer_comes_through(broker: Arc<Broker>) -> Outcome {
    let topic = broker.name();
    broker.create(&topic, 1, &[("max.message.bytes", "8000000")]).await?;
    let producer: FutureProducer = broker.client().set("message.max.bytes", "8000000").create()?;
    let lengths = [10, 7_000_000, 10, 3_000_000, 10];
    for length in lengths {
        let value = "x".repeat(length);
        let record = FutureRecord::<(), String>::to(&topic).partition(0).payload(&value);
        producer.send(record, Duration::from_secs(30)).await.map_err(|(error, _)| error)?;
    }
    let setup = Setup { buffer_bytes: 64 << 10, ..Setup::fresh() };
    let mut reader = broker.reader(&topic, json!({}), &setup).await?;
    reader.until(|reader| reader.records.len() == lengths.len()).await?;
    let read: Vec<usize> = reader.values(0).iter().map(|value| value.len()).collect();
    ensure!(read == lengths, "{read:?}");
    reader.close().await
}
