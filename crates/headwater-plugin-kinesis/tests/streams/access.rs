//! What the service refuses.

use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use headwater_core::ErrorKind;
use headwater_core::stream::StreamEvent;

use crate::job::{Job, open_context};
use crate::server::wire::{before, refuse};
use crate::server::{Server, options};

#[tokio::test]
async fn what_does_not_pass_stops_the_reader() {
    let deny = |app| {
        before(app, |call, next| {
            Box::pin(async move {
                if call.operation == "GetRecords" {
                    return refuse(StatusCode::BAD_REQUEST, "AccessDeniedException");
                }
                call.pass(next).await
            })
        })
    };
    let server = Server::start(options(), deny);
    let stream = server.create(1).await.unwrap();
    let mut job = Job::new(stream.open("polling", &open_context()).unwrap());
    assert_eq!(job.live(1, usize::MAX).await.unwrap_err().kind(), ErrorKind::PermissionDenied);

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
    assert!(reported.iter().all(|error| error.kind() == ErrorKind::Throttled && error.is_retryable()), "{reported:?}");
}
