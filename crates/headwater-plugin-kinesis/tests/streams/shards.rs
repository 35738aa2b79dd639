//! How shards are found, and what becomes of their children.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use headwater_core::stream::{Progress, StartPosition};
use headwater_core::time::{Clock, SystemClock};
use headwater_core::{ErrorKind, SplitId};
use serde_json::{Value, json};

use crate::job::{Ahead, Job, Load, open_context};
use crate::server::wire::{Call, answer, before, body_of, refuse};
use crate::server::{Server, options, shard_id};

/// Gives listings shard by shard.
#[derive(Default)]
struct Pages {
    /// What was handed out or will be; a token is the place of a page.
    pages: Vec<Value>,
    /// Why calls were refused.
    refused: Vec<&'static str>,
}

impl Pages {
    fn first(&mut self, listing: &Value) -> Response {
        let shards = listing["Shards"].as_array().unwrap();
        let first = self.pages.len();
        for (shard, next) in shards.iter().zip(first + 1..) {
            let more = next < first + shards.len();
            self.pages.push(json!({ "Shards": [shard], "NextToken": more.then(|| next.to_string()) }));
        }
        answer(&self.pages[first])
    }

    fn next(&mut self, call: &Call, token: usize) -> Response {
        if call.text("StreamName").is_some() {
            self.refused.push("a name beside a token");
            return refuse(StatusCode::BAD_REQUEST, "InvalidArgumentException");
        }
        // The second page of the first listing came too late.
        if token == 1 {
            self.refused.push("an old token");
            return refuse(StatusCode::BAD_REQUEST, "ExpiredNextTokenException");
        }
        answer(&self.pages[token])
    }
}

#[tokio::test]
async fn shards_are_listed_by_pages_and_anew_when_a_token_expires() {
    let pages = Arc::new(Mutex::new(Pages::default()));
    let shared = Arc::clone(&pages);
    let server = Server::start(options(), move |app| {
        before(app, move |call, next| {
            let pages = Arc::clone(&shared);
            Box::pin(async move {
                if call.operation != "ListShards" {
                    return call.pass(next).await;
                }
                if let Some(token) = call.text("NextToken").map(|token| token.parse().unwrap()) {
                    return pages.lock().unwrap().next(&call, token);
                }
                match body_of(call.pass(next).await).await {
                    Ok(listing) => pages.lock().unwrap().first(&listing),
                    Err(refused) => refused,
                }
            })
        })
    });
    let stream = server.create(3).await.unwrap();
    let source = stream.open("polling", &open_context()).unwrap();
    assert_eq!(source.discover().await.unwrap().len(), 3);
    let mut load = Load { keys: 9, sent: 0 };
    load.send(&stream, 2).await.unwrap();
    let mut job = Job::new(source);
    job.live(load.total(), usize::MAX).await.unwrap();
    assert_eq!(job.by_key(), load.expected());
    assert_eq!(pages.lock().unwrap().refused, ["an old token"]);
}

#[tokio::test]
async fn children_that_are_named_are_read_before_they_are_listed() {
    // What the last answer to who polls names as children: the emulator does so in subscriptions alone.
    let children: Arc<Mutex<Value>> = Arc::default();
    let named = Arc::clone(&children);
    let server = Server::start(options(), move |app| {
        before(app, move |call, next| {
            let named = Arc::clone(&named);
            Box::pin(async move {
                let (lists, reads) = (call.operation == "ListShards", call.operation == "GetRecords");
                let response = call.pass(next).await;
                if !lists && !reads {
                    return response;
                }
                match body_of(response).await {
                    Ok(mut body) => {
                        if lists {
                            // Listings show what was there in the beginning.
                            body["Shards"].as_array_mut().unwrap().retain(|shard| shard["ParentShardId"].is_null());
                        } else if body["NextShardIterator"].is_null() {
                            body["ChildShards"] = named.lock().unwrap().clone();
                        }
                        answer(&body)
                    }
                    Err(refused) => refused,
                }
            })
        })
    });
    for consumer in ["polling", "fan_out"] {
        let stream = server.create(1).await.unwrap();
        let mut load = Load { keys: 6, sent: 0 };
        load.send(&stream, 3).await.unwrap();
        let mut job = Job::new(stream.open(consumer, &open_context()).unwrap());
        job.live(load.total(), usize::MAX).await.unwrap();
        let child = |shard| json!({ "ShardId": shard_id(shard), "ParentShards": [shard_id(0)] });
        *children.lock().unwrap() = stream.split(0).await.unwrap().into_iter().map(child).collect();
        load.send(&stream, 3).await.unwrap();
        job.live(load.total(), usize::MAX).await.unwrap();
        assert_eq!(job.by_key(), load.expected(), "{consumer}");
    }
}

#[tokio::test]
async fn a_job_that_began_at_the_latest_reads_children_from_their_beginning() {
    let server = Server::plain();
    for consumer in ["polling", "fan_out"] {
        let stream = server.create(1).await.unwrap();
        let mut load = Load { keys: 6, sent: 0 };
        load.send(&stream, 2).await.unwrap();
        let mut job = Job::new(stream.open(consumer, &open_context()).unwrap());
        job.start = StartPosition::Latest;
        // Nothing is read of what was there; the shard is handed out.
        job.live(1, 1).await.unwrap();
        // The children have records before anybody can know of them, and are closed again.
        let children = stream.split(0).await.unwrap();
        load.send(&stream, 2).await.unwrap();
        for child in children {
            stream.split(child).await.unwrap();
        }
        load.send(&stream, 2).await.unwrap();
        job.live(4 * load.keys, usize::MAX).await.unwrap();
        let expected = load.expected().into_iter().map(|(key, numbers)| (key, numbers[2..].to_vec()));
        assert_eq!(job.by_key(), expected.collect(), "{consumer}");
    }
}

#[tokio::test]
async fn closed_shards_that_a_start_at_the_latest_leaves_out_end_without_being_read() {
    let server = Server::plain();
    for consumer in ["polling", "fan_out"] {
        let stream = server.create(1).await.unwrap();
        let mut load = Load { keys: 6, sent: 0 };
        load.send(&stream, 2).await.unwrap();
        let children = stream.split(0).await.unwrap();
        load.send(&stream, 2).await.unwrap();
        let grandchildren = stream.split(children[0]).await.unwrap();
        load.send(&stream, 2).await.unwrap();
        let mut job = Job::new(stream.open(consumer, &open_context()).unwrap());
        job.start = StartPosition::Latest;
        // It dies when the closed shards are handed out and their ends are not committed.
        job.live(1, 1).await.unwrap();
        assert!(matches!(job.progress(0), Some(Progress::Through(_))), "{consumer}: {:?}", job.progress(0));
        load.send(&stream, 1).await.unwrap();
        // And goes on; and once more, when everything is done.
        for _ in 0..2 {
            job.live(load.keys * (load.sent - 6), usize::MAX).await.unwrap();
            let expected = load.expected().into_iter().map(|(key, numbers)| (key, numbers[6..].to_vec()));
            assert_eq!(job.by_key(), expected.collect(), "{consumer}");
            for closed in [0, children[0]] {
                assert_eq!(job.progress(closed), Some(Progress::End), "{consumer}");
            }
            assert!(matches!(job.progress(grandchildren[0]), Some(Progress::Through(_))), "{consumer}");
            load.send(&stream, 1).await.unwrap();
        }
    }
}

/// The shards that retention has removed, by number.
type Removed = Arc<Mutex<Vec<usize>>>;

/// Leaves shards out of listings.
fn without_removed(app: Router, removed: Removed) -> Router {
    before(app, move |call, next| {
        let removed = removed.lock().unwrap().iter().copied().map(shard_id).collect::<Vec<_>>();
        Box::pin(async move {
            if call.operation != "ListShards" {
                return call.pass(next).await;
            }
            match body_of(call.pass(next).await).await {
                Ok(mut listing) => {
                    let shards = listing["Shards"].as_array_mut().unwrap();
                    shards.retain(|shard| !removed.iter().any(|removed| shard["ShardId"] == removed.as_str()));
                    answer(&listing)
                }
                Err(refused) => refused,
            }
        })
    })
}

fn splits(shards: &[usize]) -> Vec<SplitId> {
    shards.iter().map(|shard| SplitId::from(shard_id(*shard).as_str())).collect()
}

#[tokio::test]
async fn shards_that_are_removed_before_they_are_read_stop_the_job_or_are_stepped_over() {
    let removed = Removed::default();
    let layer = Arc::clone(&removed);
    let server = Server::start(options(), move |app| without_removed(app, layer));
    // Read in part; that and its children, of which nothing was read.
    for gone in [vec![0], vec![0, 1, 2]] {
        let stream = server.create(1).await.unwrap();
        let mut load = Load { keys: 6, sent: 0 };
        load.send(&stream, 1).await.unwrap();
        let source = |lost| stream.open_with(&[("on_position_lost", lost)], &open_context()).unwrap();
        let mut jobs = ["fail", "earliest"].map(|lost| Job::new(source(lost)));
        removed.lock().unwrap().clear();
        for job in &mut jobs {
            job.live(load.total(), usize::MAX).await.unwrap();
        }
        // All are down while the stream is split twice.
        load.send(&stream, 1).await.unwrap();
        stream.split(0).await.unwrap();
        load.send(&stream, 1).await.unwrap();
        for shard in [1, 2] {
            stream.split(shard).await.unwrap();
        }
        load.send(&stream, 1).await.unwrap();
        removed.lock().unwrap().clone_from(&gone);
        // Of the removed ones nothing comes: of each key those that are left.
        let left = if gone.len() > 1 { vec![0, 3] } else { vec![0, 2, 3] };
        let [fails, goes_on] = &mut jobs;
        assert_eq!(fails.live(usize::MAX, usize::MAX).await.unwrap_err().kind(), ErrorKind::PositionLost, "{gone:?}");
        assert_eq!(fails.processed.len(), load.keys, "{gone:?}");
        assert_eq!(fails.lost, splits(&[]), "{gone:?}");
        goes_on.live(load.keys * left.len(), usize::MAX).await.unwrap();
        assert!(goes_on.by_key().values().all(|numbers| *numbers == left), "{gone:?}: {:?}", goes_on.by_key());
        // The parents of what is left are over, so that nothing waits for them.
        let parents = if gone.len() > 1 { &[1, 2][..] } else { &[0] };
        let ends = parents.iter().map(|shard| goes_on.progress(*shard)).collect::<Vec<_>>();
        assert!(ends.iter().all(|end| *end == Some(Progress::End)), "{gone:?}: {ends:?}");
        // And each of them has said once that it lost records. Whose children are gone too is not looked for any more.
        assert_eq!(goes_on.lost, splits(parents), "{gone:?}");
        // What was gone before a job first began is not lost to it.
        let mut later = Job::new(source("fail"));
        later.live(load.keys * (left.len() - 1), usize::MAX).await.unwrap();
        assert!(later.by_key().values().all(|numbers| *numbers == left[1..]), "{gone:?}: {:?}", later.by_key());
        assert_eq!(later.lost, splits(&[]), "{gone:?}");
    }
}

/// A shard is removed while it is read: reads of it are refused, and listings do not show it, unless they do. Gives what
/// stopped the job.
async fn removed_while_read(consumer: &str, lost: &str, listed: bool) -> Option<ErrorKind> {
    let (removed, unknown) = (Removed::default(), Removed::default());
    let (hidden, refused) = (Arc::clone(&removed), Arc::clone(&unknown));
    let mut options = options();
    options.subscribe_to_shard_session_ms = 500;
    let server = Server::start(options, move |app| {
        before(without_removed(app, hidden), move |call, next| {
            let unknown = refused.lock().unwrap().iter().copied().map(shard_id).collect::<Vec<_>>();
            let reads = ["GetShardIterator", "GetRecords", "SubscribeToShard"].contains(&call.operation.as_str());
            let is_unknown = reads && call.shard().is_some_and(|(_, shard)| unknown.contains(&shard));
            Box::pin(async move {
                if is_unknown {
                    return refuse(StatusCode::BAD_REQUEST, "ResourceNotFoundException");
                }
                call.pass(next).await
            })
        })
    });
    let stream = server.create(1).await.unwrap();
    let mut load = Load { keys: 6, sent: 0 };
    load.send(&stream, 1).await.unwrap();
    let options = [("consumer", consumer), ("on_position_lost", lost)];
    let mut job = Job::new(stream.open_with(&options, &open_context()).unwrap());
    let mut reader = job.subscribe().await.unwrap();
    job.read(&mut *reader, load.total(), usize::MAX).await.unwrap();
    // Of what comes then the log has nothing yet.
    job.publish();
    load.send(&stream, 1).await.unwrap();
    job.read(&mut *reader, load.total(), usize::MAX).await.unwrap();
    if !listed {
        removed.lock().unwrap().push(0);
    }
    unknown.lock().unwrap().push(0);
    // Until the subscription that goes on is over.
    tokio::time::sleep(Duration::from_secs(1)).await;
    stream.split(0).await.unwrap();
    load.send(&stream, 1).await.unwrap();
    let went_on = job.read(&mut *reader, load.total(), usize::MAX).await;
    // Who goes on is told, and of this shard alone.
    let told = if went_on.is_ok() { &[0][..] } else { &[] };
    assert_eq!(job.lost, splits(told), "{consumer}, {lost}, {listed}");
    if went_on.is_ok() {
        assert_eq!(job.by_key(), load.expected(), "{consumer}, {lost}");
        assert_eq!(job.progress(0), Some(Progress::End), "{consumer}, {lost}");
    }
    went_on.err().map(|error| error.kind())
}

#[tokio::test]
async fn a_shard_that_is_removed_while_it_is_read_stops_the_job_or_is_stepped_over() {
    let cases = [
        ("fail", false, Some(ErrorKind::PositionLost)),
        ("earliest", false, None),
        // What is listed is not removed: something else is missing.
        ("earliest", true, Some(ErrorKind::NotFound)),
    ];
    // All at once: most of the time is waited.
    let all = ["polling", "fan_out"].into_iter().flat_map(|consumer| {
        cases.map(|(lost, listed, stopped)| async move {
            assert_eq!(removed_while_read(consumer, lost, listed).await, stopped, "{consumer}, {lost}, {listed}");
        })
    });
    futures::future::join_all(all).await;
}

#[tokio::test]
async fn a_shard_that_comes_while_the_job_runs_is_found_without_being_named() {
    let server = Server::plain();
    let stream = server.create(1).await.unwrap();
    let mut load = Load { keys: 6, sent: 0 };
    load.send(&stream, 1).await.unwrap();
    let mut job = Job::new(stream.open("polling", &open_context()).unwrap());
    // Only an end makes it look again, not the time.
    job.refresh = Duration::from_secs(3600);
    let mut reader = job.subscribe().await.unwrap();
    job.read(&mut *reader, load.total(), usize::MAX).await.unwrap();
    stream.split(0).await.unwrap();
    load.send(&stream, 1).await.unwrap();
    // The emulator does not name children to who polls.
    job.read(&mut *reader, load.total(), usize::MAX).await.unwrap();
    assert_eq!(job.by_key(), load.expected());
}

#[tokio::test]
async fn the_end_of_a_shard_without_children_is_found_by_subscriptions_too() {
    let server = Server::plain();
    let stream = server.create(1).await.unwrap();
    let mut load = Load { keys: 3, sent: 0 };
    load.send(&stream, 2).await.unwrap();
    let mut job = Job::new(stream.open("fan_out", &open_context()).unwrap());
    let mut reader = job.subscribe().await.unwrap();
    job.read(&mut *reader, load.total(), usize::MAX).await.unwrap();
    // The emulator does not say whose children these shards are, and ends a subscription to their parent each time that
    // it has said that nothing is left.
    stream.resize(2).await.unwrap();
    let ended = async {
        while job.progress(0) != Some(Progress::End) {
            job.read(&mut *reader, usize::MAX, 1).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("the end is found");
    assert_eq!(job.by_key(), load.expected());
}

#[tokio::test]
async fn a_start_in_the_past_reads_all_and_what_was_decided_stays() {
    let server = Server::plain();
    let stream = server.create(1).await.unwrap();
    let mut load = Load { keys: 3, sent: 0 };
    load.send(&stream, 2).await.unwrap();
    let mut job = Job::new(stream.open("polling", &open_context()).unwrap());
    job.start = StartPosition::At(1_600_000_000_000_000);
    job.live(load.total(), 1).await.unwrap();
    // The children's turn comes in another life, which is told another start.
    stream.split(0).await.unwrap();
    load.send(&stream, 2).await.unwrap();
    job.start = StartPosition::Latest;
    job.live(load.total(), usize::MAX).await.unwrap();
    assert_eq!(job.by_key(), load.expected());
}

#[tokio::test]
async fn a_start_between_records_reads_those_that_came_from_then_on() {
    let server = Server::plain();
    let stream = server.create(2).await.unwrap();
    let mut load = Load { keys: 6, sent: 0 };
    load.send(&stream, 2).await.unwrap();
    // The emulator tells in whole seconds when a record arrived: the next ones arrive in another second.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let second = SystemClock.now() / 1_000_000 * 1_000_000;
    load.send(&stream, 2).await.unwrap();
    for consumer in ["polling", "fan_out"] {
        let mut job = Job::new(stream.open(consumer, &open_context()).unwrap());
        job.start = StartPosition::At(second);
        // An earlier record of a key would come before its later ones.
        job.live(2 * load.keys, usize::MAX).await.unwrap();
        let expected = load.expected().into_iter().map(|(key, numbers)| (key, numbers[2..].to_vec()));
        assert_eq!(job.by_key(), expected.collect(), "{consumer}");
    }
}

#[tokio::test]
async fn children_that_are_there_at_the_start_begin_at_its_time_too() {
    let server = Server::plain();
    let stream = server.create(1).await.unwrap();
    let mut load = Load { keys: 6, sent: 0 };
    load.send(&stream, 2).await.unwrap();
    stream.split(0).await.unwrap();
    // The children hold older records as well. The emulator makes them a second younger than the split, and says in whole
    // seconds when they came.
    load.send(&stream, 2).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    let second = SystemClock.now() / 1_000_000 * 1_000_000;
    load.send(&stream, 2).await.unwrap();
    for consumer in ["polling", "fan_out"] {
        let mut job = Job::new(stream.open(consumer, &open_context()).unwrap());
        job.start = StartPosition::At(second);
        // It dies when their parent is handed out. A reset leaves the same: the parent's checkpoint, and what was noted.
        job.live(1, 1).await.unwrap();
        assert_eq!((job.progress(0).is_some(), job.progress(1)), (true, None), "{consumer}");
        job.start = StartPosition::Earliest;
        job.live(2 * load.keys, usize::MAX).await.unwrap();
        let expected = load.expected().into_iter().map(|(key, numbers)| (key, numbers[4..].to_vec()));
        assert_eq!(job.by_key(), expected.collect(), "{consumer}");
    }
}

#[tokio::test]
async fn a_start_at_the_latest_comes_about_where_the_clock_is_ahead_of_the_servers() {
    let server = Server::plain();
    let stream = server.create(2).await.unwrap();
    let mut load = Load { keys: 6, sent: 0 };
    load.send(&stream, 1).await.unwrap();
    let mut job = Job::new(stream.open("polling", &open_context()).unwrap());
    job.start = StartPosition::Latest;
    // More than is looked back for the newest record.
    job.clock = Arc::new(Ahead::by(60_000_000));
    let subscribed = tokio::time::timeout(Duration::from_secs(10), job.subscribe()).await;
    let mut reader = subscribed.expect("a time is found that has been").unwrap();
    load.send(&stream, 1).await.unwrap();
    job.read(&mut *reader, load.keys, usize::MAX).await.unwrap();
    assert!(job.by_key().values().all(|numbers| *numbers == [1]), "{:?}", job.by_key());
}

#[tokio::test]
async fn a_start_in_the_future_is_waited_for() {
    let server = Server::plain();
    for consumer in ["polling", "fan_out"] {
        let stream = server.create(1).await.unwrap();
        let mut load = Load { keys: 3, sent: 0 };
        load.send(&stream, 1).await.unwrap();
        let mut job = Job::new(stream.open(consumer, &open_context()).unwrap());
        // The emulator tells in whole seconds when a record arrived.
        let second = (SystemClock.now() / 1_000_000 + 3) * 1_000_000;
        job.start = StartPosition::At(second);
        let mut reader = job.subscribe().await.unwrap();
        load.send(&stream, 1).await.unwrap();
        while SystemClock.now() < second {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        load.send(&stream, 1).await.unwrap();
        job.read(&mut *reader, load.keys, usize::MAX).await.unwrap();
        assert!(job.by_key().values().all(|numbers| *numbers == [2]), "{consumer}: {:?}", job.by_key());
        // Nobody was asked to begin in the future.
        assert_eq!(reader.repeated(), 0, "{consumer}");
    }
}
