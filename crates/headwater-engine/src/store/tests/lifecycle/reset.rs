//! Sources are reset.

use std::sync::Arc;

use bytes::Bytes;
use headwater_core::memory::MemoryStreamSource;
use headwater_core::online::OnlineStore;
use headwater_core::stream::StartPosition;
use headwater_core::{ErrorKind, SplitId, StreamSource};
use serde_json::json;
use tokio::sync::Barrier;

use super::{ASKED, STREAMS, World, history, ingest, logged, read, rows};
use crate::ingest::IngestOptions;
use crate::rows::checkpoints_table;
use crate::store::PushTarget;
use crate::store::reset::ResetKind;
use crate::store::tests::DAY;

#[tokio::test]
async fn a_reset_forward_skips_and_says_so() {
    let world = World::new("forward");
    let store = world.open(world.definitions("forward")).await;
    store.apply().await.unwrap();
    world.append(&[(1, DAY - 9, 0.1)]);
    ingest(&store).await;
    world.append(&[(2, DAY - 8, 0.2), (1, DAY - 7, 0.3)]);
    let done = store.reset("drivers", StartPosition::Latest).await.unwrap();
    assert_eq!((done.views[0].what, done.views[0].splits), (ResetKind::Forward, 1));
    world.append(&[(3, DAY - 6, 0.4)]);
    ingest(&store).await;
    let notes = store.status().await.unwrap().views[0].notes.join("\n");
    assert!(notes.contains("split `0` was skipped by a reset, after `"), "{notes}");
    assert_eq!(read(&store, "stats:rate", 1).await, json!([0.1, "PRESENT"]));
    assert_eq!(read(&store, "stats:rate", 2).await, json!([null, "NOT_FOUND"]));
    assert_eq!(read(&store, "stats:rate", 3).await, json!([0.4, "PRESENT"]));
    assert_eq!(logged(&history(&store, &[(1, DAY), (2, DAY), (3, DAY)]).await), [0.1, 0.4]);
}

#[tokio::test]
async fn a_reset_back_reads_again_beside_what_serves() {
    let world = World::new("back");
    let store = world.open(world.definitions("back")).await;
    store.apply().await.unwrap();
    world.append(&[(1, DAY - 9, 0.1), (2, DAY - 8, 0.2)]);
    ingest(&store).await;
    // What was pushed is not in the stream: the new generation does not have it.
    store.push("drivers", &[rows(&[(1, DAY, 0.9)])], PushTarget::Online).await.unwrap();
    let old = store.status().await.unwrap().views[0].generation.clone();
    world.clock.advance(1);
    let done = store.reset("drivers", StartPosition::Earliest).await.unwrap();
    assert_eq!(done.views[0].what, ResetKind::Back);
    assert_ne!(done.views[0].generation, old);
    assert_eq!(read(&store, "stats:rate", 1).await, json!([0.9, "PRESENT"]), "the old one serves");
    ingest(&store).await;
    world.clock.advance(2_000_000);
    assert_eq!(read(&store, "stats:rate", 1).await, json!([0.1, "PRESENT"]));
    assert_eq!(history(&store, &[(1, DAY), (2, DAY)]).await, [Some(0.1), Some(0.2)]);
    // A reset to where everything is already moves nothing.
    let done = store.reset("drivers", StartPosition::Latest).await.unwrap();
    assert_eq!((done.views[0].what, done.views[0].splits), (ResetKind::Forward, 0));
}

#[tokio::test]
async fn a_reset_to_the_end_of_a_stream_that_was_made_anew_says_what_helps() {
    let mut world = World::new("anew");
    let store = world.open(world.definitions("anew")).await;
    store.apply().await.unwrap();
    world.append(&[(1, DAY - 9, 0.1), (2, DAY - 8, 0.2)]);
    ingest(&store).await;
    world = World { stream: World::new("anew").stream, ..world };
    world.append(&[(1, DAY - 7, 0.3)]);
    let store = world.open(world.definitions("anew")).await;
    let error = store.reset("drivers", StartPosition::Latest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PositionLost);
    assert!(error.to_string().contains("`reset` to `earliest` or to a time begins a new generation"), "{error}");
    assert!(error.to_string().contains("the split `0` ends at 1, before 2"), "{error}");

    world.clock.advance(1);
    let done = store.reset("drivers", StartPosition::At(DAY + 1)).await.unwrap();
    assert_eq!(done.views[0].what, ResetKind::Back);
    world.append(&[(3, DAY - 6, 0.4)]);
    ingest(&store).await;
    world.clock.advance(2_000_000);
    assert_eq!(logged(&history(&store, &[(1, DAY), (2, DAY), (3, DAY)]).await), [0.4]);
}

#[tokio::test]
async fn a_reset_back_reads_children_again_whose_parent_held_nothing() {
    let world = World::new("childless");
    let (parent, child) = (SplitId::from("0"), SplitId::from("1"));
    world.stream.add_split(child.clone(), std::slice::from_ref(&parent));
    world.stream.close_split(&parent);
    let store = world.open(world.definitions("childless")).await;
    store.apply().await.unwrap();
    world.stream.append_rows(&child, &rows(&[(1, DAY - 9, 0.1)]), DAY).unwrap();
    ingest(&store).await;
    let old = store.status().await.unwrap().views[0].generation.clone();
    world.clock.advance(1);
    let done = store.reset("drivers", StartPosition::Earliest).await.unwrap();
    assert_eq!(done.views[0].what, ResetKind::Back);
    assert_ne!(done.views[0].generation, old);
    ingest(&store).await;
    assert_eq!(history(&store, &[(1, DAY)]).await, [Some(0.1)]);
}

#[tokio::test]
async fn after_a_reset_stands_what_the_source_notes_of_beginning_there() {
    let world = World::new("noted");
    let store = world.open(world.definitions("noted")).await;
    store.apply().await.unwrap();
    world.append(&[(1, DAY - 9, 0.1)]);
    let noted = async || {
        let prefix = Bytes::from_static(&[0]);
        let rows = world.online.get_prefixes(&checkpoints_table("noted"), &[prefix]).await.unwrap();
        let mut notes = rows.into_iter().flatten().map(|row| row.value).collect::<Vec<_>>();
        notes.sort_unstable();
        notes
    };
    ingest(&store).await;
    assert_eq!(noted().await, ["Earliest"]);
    // Forward; and back, into a new generation beside the old one, whose note stands behind.
    for (to, note) in [(StartPosition::Latest, "Latest"), (StartPosition::Earliest, "Earliest")] {
        world.clock.advance(1);
        store.reset("drivers", to).await.unwrap();
        assert_eq!(noted().await[0], note);
        ingest(&store).await;
        assert_eq!(noted().await[0], note, "the next reader finds it");
    }
}

#[tokio::test]
async fn a_job_that_starts_while_a_reset_asks_the_source_is_noticed() {
    let mut world = World::new("busy");
    world.stream = world.stream.bounded(false);
    STREAMS.lock().unwrap().insert(world.name.clone(), world.stream.clone());
    let store = world.open(world.definitions("busy")).await;
    store.apply().await.unwrap();
    world.append(&[(1, DAY - 9, 0.1)]);
    let asked = Arc::new(Barrier::new(2));
    ASKED.lock().unwrap().insert(world.stream.identity(), Arc::clone(&asked));
    let started = async {
        asked.wait().await;
        let job = store.ingest("drivers", IngestOptions::default()).await.unwrap();
        asked.wait().await;
        job
    };
    let (reset, mut job) = futures::join!(store.reset("drivers", StartPosition::Latest), started);
    assert_eq!(reset.unwrap_err().kind(), ErrorKind::Conflict);
    job.stop().await.unwrap();
}

#[tokio::test]
async fn resets_that_make_no_sense_are_refused() {
    let world = World::new("refused");
    let stream = MemoryStreamSource::with_schema("refused", rows(&[]).schema());
    stream.add_split(SplitId::from("0"), &[]);
    STREAMS.lock().unwrap().insert("refused".into(), stream);
    let store = world.open(world.definitions("refused")).await;
    store.apply().await.unwrap();
    let error = store.reset("history", StartPosition::Latest).await.unwrap_err();
    assert_eq!(error.to_string(), "source `history` is no stream: there is nothing to reset");
    let error = store.reset("driver", StartPosition::Latest).await.unwrap_err();
    assert!(error.to_string().contains("did you mean `drivers`?"), "{error}");
    let mut job = store.ingest("drivers", IngestOptions::default()).await.unwrap();
    let error = store.reset("drivers", StartPosition::Latest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("is running: stop it first"), "{error}");
    job.stop().await.unwrap();
    store.reset("drivers", StartPosition::Latest).await.unwrap();
}
