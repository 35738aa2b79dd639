//! Streams whose splits end, move between workers, lose records, or carry columns.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use headwater_core::memory::MemoryStreamSource;
use headwater_core::stream::{Checkpoints, Progress, StreamBatch};
use headwater_core::{Position, SplitId, StreamSource};

use super::super::checkpoint::{self, GroupCheckpoints, Skipped, Why};
use super::super::lane::{Delivery, Lane, Part, Piece, SplitState};
use super::records;
use super::world::*;
use crate::ingest::{JobHandle, Replayed, dead_letters, job, replay_dead_letters};
use crate::view::View;

async fn start(world: &World, stream: &MemoryStreamSource) -> JobHandle {
    let stream: Arc<dyn StreamSource> = Arc::new(stream.clone());
    job::start_with(world.project(), "events", stream, world.options.clone()).await.unwrap()
}

fn fill(stream: &MemoryStreamSource, split: &SplitId, ids: std::ops::Range<i64>) {
    let records = ids.map(|id| (None, Some(record(id, id, None, 1.0).into()), NOW));
    stream.append(split, records.collect()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_that_ends_is_committed_whole_and_its_children_follow() {
    let mut world = World::new();
    let mut online_only = view("served", "g1");
    online_only.offline = false;
    world.views.push(Arc::new(online_only));
    let (parent, child) = (SplitId::from("parent"), SplitId::from("child"));
    let stream = MemoryStreamSource::new("events").bounded(true);
    stream.add_split(parent.clone(), &[]);
    fill(&stream, &parent, 0..30);
    stream.add_split(child.clone(), std::slice::from_ref(&parent));
    fill(&stream, &child, 30..50);
    stream.close_split(&parent);
    start(&world, &stream).await.wait().await.unwrap();
    assert_eq!(world.log().await.len(), 50);
    assert_eq!(stream.committed("test.events", &parent), Some(Progress::End));
    for view in &world.views {
        let checkpoints = checkpoint::load(world.online.as_ref(), "test", view).await.unwrap();
        assert_eq!((checkpoints[&parent].ended, checkpoints[&child].ended), (true, false), "{}", view.name);
    }
    fill(&stream, &child, 50..60);
    start(&world, &stream).await.wait().await.unwrap();
    assert_eq!(world.log().await.len(), 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_joins_takes_splits_over_without_loss_or_repetition() {
    let world = World::new();
    let stream = MemoryStreamSource::new("events").bounded(false);
    let splits = ["a", "b", "c", "d"].map(SplitId::from);
    for split in &splits {
        stream.add_split(split.clone(), &[]);
        fill(&stream, split, 0..200);
    }
    let mut one = start(&world, &stream).await;
    world.until("something is stored", || async { !world.online().await.is_empty() }).await;
    let mut two = start(&world, &stream).await;
    for split in &splits {
        fill(&stream, split, 200..400);
    }
    world
        .until("both have splits", || async {
            let has = |job: &JobHandle| job.status().splits.iter().any(|split| split.offset.unwrap_or(0) > 0);
            has(&one) && has(&two)
        })
        .await;
    one.stop().await.unwrap();
    world.until("the other has all", || async { world.log().await.len() >= 1_600 }).await;
    two.stop().await.unwrap();
    let log = world.log().await;
    assert_each_once(&log);
    assert_eq!(log.len(), 1_600);
}

#[tokio::test]
async fn columns_are_cast_and_rows_that_do_not_fit_are_replayed_as_they_were() {
    let mut world = World::new();
    world.settings().record_format = None;
    let rows = RecordBatch::try_from_iter([
        ("id", Arc::new(Int32Array::from(vec![Some(1), Some(2), None])) as ArrayRef),
        ("ts", Arc::new(StringArray::from(vec!["1970-01-01T00:00:01Z", "soon", "1970-01-01"]))),
        ("created", Arc::new(StringArray::from(vec![None::<&str>; 3]))),
        ("value", Arc::new(StringArray::from(vec!["1.5", "2", "3"]))),
    ])
    .unwrap();
    let stream = MemoryStreamSource::with_schema("events", rows.schema()).bounded(true);
    let split = SplitId::from("a");
    stream.add_split(split.clone(), &[]);
    stream.append_rows(&split, &rows, NOW).unwrap();
    start(&world, &stream).await.wait().await.unwrap();
    assert_eq!(world.log().await.iter().map(|row| (row.2, row.3)).collect::<Vec<_>>(), [(1, 1_000_000)]);
    let project = world.project();
    let letters = dead_letters(&project).await.unwrap();
    let told = letters.iter().map(|listed| (listed.letter.reason.as_str(), listed.letter.record()));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            ("column `ts`: `soon` is not a time (RFC 3339)", "{id: 2, ts: soon, created: , value: 2}".to_owned()),
            ("column `id`: must not be null", "{id: , ts: 1970-01-01, created: , value: 3}".to_owned()),
        ]
    );
    let done = replay_dead_letters(&project, None).await.unwrap();
    assert_eq!(done, Replayed { brought_in: 0, failed: 2, skipped: 0 });
}

#[tokio::test]
async fn notes_are_shared_by_the_views_of_a_generation_and_are_no_checkpoints() {
    let mut world = World::new();
    world.views.push(Arc::new(view("other", "g1")));
    let checkpoints = |views: &[Arc<View>]| GroupCheckpoints::new(world.project(), views.to_vec());
    let both = checkpoints(&world.views);
    assert_eq!(both.noted("start").await.unwrap(), None);
    both.note(&[("start".into(), "first".into()), ("mark".into(), "a".into())]).await.unwrap();
    both.note(&[("start".into(), "second".into())]).await.unwrap();
    for views in [&world.views[..], &world.views[..1], &world.views[1..]] {
        let checkpoints = checkpoints(views);
        assert_eq!(checkpoints.noted("start").await.unwrap(), Some("second".into()));
        assert_eq!(checkpoints.noted("mark").await.unwrap(), Some("a".into()));
        assert!(!checkpoints.started().await.unwrap(), "a note is no checkpoint");
    }
    assert_eq!(checkpoints(&[Arc::new(view("other", "g2"))]).noted("start").await.unwrap(), None);
    for view in &world.views {
        checkpoint::forget_notes(world.online.as_ref(), "test", view).await.unwrap();
    }
    assert_eq!(both.noted("start").await.unwrap(), None);
}

#[tokio::test]
async fn a_log_that_is_switched_on_later_has_the_splits_that_have_ended_too() {
    let mut world = World::new();
    world.options.tuning.batch_records = 1;
    world.stream.script.lock().unwrap().rest_once_in = 1;
    world.stream.reshard(&["a"], &["b"]);
    for index in 0..6 {
        world.stream.event(if index < 4 { "a" } else { "b" }, index, index, 1.0);
    }
    let logged = world.views.clone();
    world.views = vec![Arc::new(View { offline: false, ..view("values", "g1") })];
    world.run().await;
    world.views = logged;
    world.run().await;
    assert_eq!(world.log().await.len(), 6);
    let checkpoints = checkpoint::load(world.online.as_ref(), "test", &world.views[0]).await.unwrap();
    assert!(checkpoints[&SplitId::from("a")].ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_source_has_lost_is_stepped_over_and_written_down() {
    let mut world = World::new();
    world.options.until_caught_up = true;
    let fill = |ids: std::ops::Range<i64>| ids.for_each(|id| world.stream.event("a", id, id, 1.0));
    fill(0..5);
    world.run().await;
    fill(5..10);
    {
        let mut script = world.stream.script.lock().unwrap();
        (script.gone, script.follow) = (10, true);
    }
    // Nothing is left that could show how far the reader is.
    tokio::time::timeout(Duration::from_secs(20), world.run()).await.expect("there is nothing to wait for");
    let skipped = Skipped { after: Position::from_u64(5), to: Position::from_u64(10), why: Why::PositionLost };
    let (view, split) = (&world.views[0], SplitId::from("a"));
    let standing = async || {
        let checkpoint = checkpoint::load(world.online.as_ref(), "test", view).await.unwrap().remove(&split).unwrap();
        (checkpoint, world.offline.ends(&view.log()).await.unwrap().remove(&split).unwrap())
    };
    let (checkpoint, end) = standing().await;
    assert_eq!((checkpoint.through, checkpoint.skipped.as_ref()), (skipped.to.clone(), Some(&skipped)));
    assert_eq!(end.through, skipped.to);
    assert!(skipped.metadata().iter().all(|(name, at)| end.metadata.get(name) == Some(at)), "{:?}", end.metadata);

    fill(10..12);
    world.run().await;
    let (checkpoint, end) = standing().await;
    assert_eq!(checkpoint.skipped, Some(skipped), "it stays known");
    assert!(!end.metadata.contains_key("skipped_after"), "another piece lacks nothing: {:?}", end.metadata);
    let read = world.log().await.iter().map(|row| row.2).collect::<Vec<_>>();
    assert_eq!(read, [0, 1, 2, 3, 4, 10, 11]);
}

#[test]
fn a_view_that_has_all_of_a_split_has_lost_nothing_when_others_have() {
    let view = Arc::new(view("values", "g1"));
    let split = SplitId::from("a");
    // What is gone of the split with what is left of it: everything, up to a position that no record has.
    let gone = StreamBatch { through: Position::new(vec![0xff]), lost: true, ..records::batch(&[]) };
    for ended in [true, false] {
        let mut lane = Lane::new("test", "events", &view).unwrap();
        let position = Position::from_u64(5);
        let mut state = SplitState::new(&view, None, None, Position::START, &position, None);
        state.ended = ended;
        lane.splits.insert(split.clone(), state);
        let delivery = Delivery { batch: &gone, tombstones: &[], now: NOW };
        lane.accept(&delivery, Part { piece: Piece::empty(&view), dead: vec![] }).unwrap();
        let state = &lane.splits[&split];
        assert_eq!((state.skipped.is_some(), &state.judged), (!ended, &gone.through));
    }
}
