//! What is asked of the service, in whose name, and what it refuses.

use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use headwater_core::ErrorKind;
use headwater_core::stream::{ProducerRecord, StreamEvent};
use headwater_plugin_kinesis::PLUGIN;
use serde_json::Value;

use crate::job::{Job, Load, open_context};
use crate::server::wire::{before, refuse};
use crate::server::{Server, options};

#[tokio::test]
async fn what_does_not_pass_stops_the_reader() {
    let asks = [("polling", "GetRecords"), ("polling", "GetShardIterator"), ("polling", "ListShards")];
    for (consumer, denied) in asks.into_iter().chain([("fan_out", "ListShards"), ("fan_out", "SubscribeToShard")]) {
        let server = Server::start(options(), move |app| {
            before(app, move |call, next| {
                Box::pin(async move {
                    if call.operation == denied {
                        return refuse(StatusCode::BAD_REQUEST, "AccessDeniedException");
                    }
                    call.pass(next).await
                })
            })
        });
        let stream = server.create(1).await.unwrap();
        let mut job = Job::new(stream.open(consumer, &open_context()).unwrap());
        let error = job.live(1, usize::MAX).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{consumer}, {denied}");
    }

    let stream = Server::plain().create(1).await.unwrap();
    let none = stream.open_with(&[("stream_name", "none")], &open_context()).unwrap();
    assert_eq!(none.discover().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(Job::new(none).subscribe().await.err().map(|error| error.kind()), Some(ErrorKind::NotFound));
}

#[tokio::test]
async fn throttling_that_lasts_is_reported_and_passes() {
    let calls = Arc::new(Mutex::new(0));
    let throttle = move |app| {
        before(app, move |call, next| {
            let throttled = call.operation == "GetRecords" && {
                let mut calls = calls.lock().unwrap();
                *calls += 1;
                *calls <= 5
            };
            Box::pin(async move {
                if throttled {
                    return refuse(StatusCode::BAD_REQUEST, "ProvisionedThroughputExceededException");
                }
                call.pass(next).await
            })
        })
    };
    let server = Server::start(options(), throttle);
    let stream = server.create(1).await.unwrap();
    stream.put_keyed(vec![("a".into(), b"a:0".to_vec())]).await.unwrap();
    let mut reader = Job::new(stream.open("polling", &open_context()).unwrap()).subscribe().await.unwrap();
    let mut reported = Vec::new();
    loop {
        match reader.next().await {
            Ok(Some(StreamEvent::Batch(batch))) if batch.payload.len() == 1 => break,
            Ok(_) => {}
            Err(error) => reported.push(error),
        }
    }
    assert!(!reported.is_empty());
    assert_eq!(reader.repeated() + reported.len() as u64, 5, "calls that were repeated");
    assert!(reported.iter().all(|error| error.kind() == ErrorKind::Throttled && error.is_retryable()), "{reported:?}");
}

/// What readers asked since it was last looked at: operations with what they were asked for.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// A server that notes what readers ask. The emulator behind it knows no ARNs in three operations: there it is given the
/// name instead.
fn noting() -> (Server, Asked) {
    let asked = Asked::default();
    let noted = Arc::clone(&asked);
    let note = move |app| {
        before(app, move |mut call, next| {
            noted.lock().unwrap().push((call.operation.clone(), call.body.clone()));
            if ["DescribeStreamSummary", "ListShards", "GetShardIterator"].contains(&call.operation.as_str())
                && let Some(name) = call.text("StreamARN").and_then(|arn| arn.rsplit('/').next()).map(str::to_owned)
            {
                call.body = without(call.body, "StreamARN");
                call.body["StreamName"] = name.into();
            }
            Box::pin(call.pass(next))
        })
    };
    (Server::start(options(), note), asked)
}

fn without(mut body: Value, name: &str) -> Value {
    if let Some(fields) = body.as_object_mut() {
        fields.remove(name);
    }
    body
}

#[tokio::test]
async fn a_stream_named_by_its_arn_is_asked_for_by_its_arn_alone() {
    let (server, asked) = noting();
    let asks = [
        ("polling", vec!["DescribeStreamSummary", "GetRecords", "GetShardIterator", "ListShards"]),
        (
            "fan_out",
            vec![
                "DescribeStreamConsumer",
                "DescribeStreamSummary",
                "ListShards",
                "RegisterStreamConsumer",
                "SubscribeToShard",
            ],
        ),
    ];
    for (consumer, operations) in asks {
        let stream = server.create(2).await.unwrap();
        let arn = stream.arn().await.unwrap();
        let mut load = Load { keys: 5, sent: 0 };
        load.send(&stream, 3).await.unwrap();
        let source = stream.open_by_arn(consumer, &open_context()).await.unwrap();
        assert_eq!(source.identity(), stream.open(consumer, &open_context()).unwrap().identity());
        assert_eq!(source.discover().await.unwrap().len(), 2);
        let mut job = Job::new(source);
        job.live(load.total(), usize::MAX).await.unwrap();
        assert_eq!(job.by_key(), load.expected());
        let asked = std::mem::take(&mut *asked.lock().unwrap());
        for (operation, body) in &asked {
            let by = if operation == "SubscribeToShard" { "ConsumerARN" } else { "StreamARN" };
            let named = body[by].as_str().unwrap_or_default();
            assert!(named == arn || by == "ConsumerARN" && named.starts_with(&format!("{arn}/consumer/")), "{asked:?}");
            assert_eq!(body.get("StreamName"), None, "{asked:?}");
        }
        let mut seen = asked.into_iter().map(|(operation, _)| operation).collect::<Vec<_>>();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, operations, "{consumer}");
    }
}

#[tokio::test]
async fn the_producer_sends_to_an_arn() {
    let (server, asked) = noting();
    let stream = server.create(1).await.unwrap();
    let arn = stream.arn().await.unwrap();
    let producer = (PLUGIN.producer.unwrap().open)(&server.config(&[("stream_arn", &arn)]), &open_context()).unwrap();
    producer.send(vec![ProducerRecord { key: "a".into(), value: "a:0".into() }]).await.unwrap();
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    let operations = asked.iter().map(|(operation, _)| operation.as_str()).collect::<Vec<_>>();
    assert_eq!(operations, ["DescribeStreamSummary", "PutRecords"]);
    assert!(
        asked.iter().all(|(_, body)| body["StreamARN"] == arn.as_str() && body.get("StreamName").is_none()),
        "{asked:?}"
    );
    let mut job = Job::new(stream.open("polling", &open_context()).unwrap());
    job.live(1, usize::MAX).await.unwrap();
    assert_eq!(job.processed, ["a:0"]);
}

#[tokio::test]
async fn the_consumer_of_a_group_stays_registered_and_is_found_again() {
    let (server, asked) = noting();
    let stream = server.create(1).await.unwrap();
    let mut load = Load { keys: 2, sent: 0 };
    for _ in 0..2 {
        load.send(&stream, 2).await.unwrap();
        let mut job = Job::new(stream.open("fan_out", &open_context()).unwrap());
        let mut reader = job.subscribe().await.unwrap();
        job.read(&mut *reader, load.total(), usize::MAX).await.unwrap();
        reader.close().await.unwrap();
        assert_eq!(stream.consumers().await.unwrap(), ["tests.job"]);
    }
    let asked = asked.lock().unwrap();
    let times = |name: &str| asked.iter().filter(|(operation, _)| operation == name).count();
    assert_eq!((times("RegisterStreamConsumer"), times("DeregisterStreamConsumer")), (1, 0));
}
