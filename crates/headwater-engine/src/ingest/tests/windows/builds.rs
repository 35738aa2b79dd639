//! Builds of epochs that meet others: splits that have ended, workers and builders that die, replays, other rows.

use std::time::Duration;

use headwater_core::Position;
use headwater_core::memory::MemoryStreamSource;

use super::*;
use crate::ingest::windows::{Build, Calls, LogFrom, has_no_more};
use crate::ingest::{JobHandle, Tuning, job, load_checkpoints, replay_dead_letters};
use crate::windows::epoch::{self, Epoch, SplitProgress};

/// Builds an epoch and leaves it there, as one does that is killed then.
pub(super) async fn build(world: &World, end: i64) -> Epoch {
    let (project, view) = (world.project(), &world.views[0]);
    let calls = Calls::once(&world.online);
    let never = || async { Ok(None::<()>) };
    let wanted = Build::wanted(&project, view, world.options.tuning.build_lease);
    let lease = wanted.take(Duration::from_secs(1), never).await.unwrap().unwrap();
    let (start, cache_bytes, report) = (None, 1 << 20, None);
    let log_from = LogFrom::At(Some(end * SECOND));
    let build = Build { project: &project, view, calls: &calls, start, log_from, cache_bytes, report };
    let built = build.run(&lease).await.unwrap().epoch;
    lease.release().await.unwrap();
    built
}

#[tokio::test]
async fn other_aggregations_without_a_log_are_fed_by_splits_that_have_ended_too() {
    let batch = [event(None, 1, 10, 1.0)];
    let events = [event(Some("a"), 1, 40, 4.0), event(Some("a"), 2, 41, 1.0), event(Some("b"), 1, 51, 5.0)];
    let unlogged = |variant| {
        let mut view = windowed(variant);
        view.offline = false;
        vec![view.into()]
    };
    let mut world = world("ended again", windowed(0), &batch);
    world.views = unlogged(0);
    // Each record by itself, with time enough in between for all that is done every now and then.
    world.options.tuning.batch_records = 1;
    world.stream.script.lock().unwrap().rest_once_in = 1;
    world.stream.reshard(&["a"], &["b"]);
    fill(&world, &events);
    world.run().await;
    compare(&world, &batch, &events, "at first").await;
    world.views = unlogged(1);
    world.run().await;
    assert_eq!(epochs(&world).await.serving.unwrap().0.fingerprint, "w1");
    compare(&world, &batch, &events, "other aggregations").await;
}

#[tokio::test]
async fn a_view_that_is_given_aggregations_counts_what_it_has_read_before() {
    for offline in [true, false] {
        let batch = [event(None, 1, 10, 1.0), event(None, 2, 20, 2.0)];
        let events = [event(Some("a"), 1, 40, 4.0), event(Some("a"), 1, 51, 5.0), event(Some("a"), 3, 60, 6.0)];
        let mut world = world(&format!("given {offline}"), windowed(0), &batch);
        let mut windowed = windowed(0);
        windowed.offline = offline;
        let plain = View { features: windowed.columns().to_vec(), windows: None, batch: None, ..windowed.clone() };
        world.views = vec![plain.into()];
        fill(&world, &events[..2]);
        world.run().await;
        world.views = vec![windowed.into()];
        fill(&world, &events[2..]);
        world.run().await;
        compare(&world, &batch, &events, &format!("offline: {offline}")).await;
    }
}

#[tokio::test]
async fn an_epoch_that_is_built_without_a_job_waits_for_what_a_killed_one_has_not_logged() {
    let batch = [event(None, 1, 10, 1.0)];
    let events = [event(Some("a"), 1, 40, 4.0), event(Some("a"), 2, 41, 1.0), event(Some("a"), 1, 51, 5.0)];
    let world = served_and_not_logged("killed", &batch, &events).await;
    let before = log_from(&world).await;
    let done = materialize(&world, 0, 30 * SECOND).await.unwrap();
    assert!(done.note.unwrap().contains("serve as soon as a job has caught up"));
    assert_eq!(log_from(&world).await, before, "what was served is served on");
    world.stream.script.lock().unwrap().follow = false;
    world.run().await;
    assert_eq!(log_from(&world).await, Some(30 * SECOND));
    compare(&world, &batch, &events, "caught up").await;
}

#[tokio::test(start_paused = true)]
async fn an_epoch_does_not_serve_before_a_job_has_read_again_what_was_served() {
    let batch = [event(None, 1, 10, 1.0)];
    let events = [event(Some("a"), 1, 40, 4.0), event(Some("a"), 2, 41, 1.0), event(Some("a"), 1, 51, 5.0)];
    let world = served_and_not_logged("served again", &batch, &events).await;
    let before = log_from(&world).await;
    materialize(&world, 0, 30 * SECOND).await.unwrap();

    // The broker is slow: nothing is read again yet.
    world.stream.script.lock().unwrap().stall_after = Some(0);
    let job = world.start().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(log_from(&world).await, before, "what was served is served on");
    die_and_run_on(&world, job).await;
    assert_eq!(log_from(&world).await, Some(30 * SECOND));
    compare(&world, &batch, &events, "caught up").await;
}

#[tokio::test(start_paused = true)]
async fn an_epoch_does_not_serve_before_a_job_has_read_again_what_no_checkpoint_speaks_of() {
    let batch = [event(None, 1, 10, 1.0)];
    let events = [event(Some("a"), 1, 40, 4.0), event(Some("a"), 2, 41, 1.0), event(Some("a"), 1, 51, 5.0)];
    let mut world = world("not saved", windowed(0), &batch);
    fill(&world, &events);
    serve_and_save_nothing(&mut world, 3).await;
    let before = log_from(&world).await;
    let done = materialize(&world, 0, 30 * SECOND).await.unwrap();
    assert!(done.note.unwrap().contains("serve as soon as a job has caught up"));
    assert_eq!(log_from(&world).await, before, "what was served is served on");

    // The broker is slow: two of three are read again so far, and the log and the checkpoints say so.
    world.options.tuning.batch_records = 1;
    world.stream.script.lock().unwrap().stall_after = Some(2);
    let job = world.start().await;
    world.until("two are read again", || have_read(&world, 2)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(log_from(&world).await, before, "what was served is served on");
    die_and_run_on(&world, job).await;
    assert_eq!(log_from(&world).await, Some(30 * SECOND));
    compare(&world, &batch, &events, "caught up").await;
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_has_caught_up_does_not_serve_before_it_has_what_others_have_written_since() {
    let batch = [event(None, 1, 10, 1.0)];
    let events = [event(Some("a"), 1, 40, 4.0), event(Some("a"), 2, 41, 1.0), event(Some("a"), 1, 51, 5.0)];
    let mut world = world("others", windowed(0), &batch);
    fill(&world, &events[..1]);
    world.run().await;
    // A worker has brought it up, and was killed before it could let it serve.
    world.views = vec![windowed(1).into()];
    let epoch = build(&world, 11).await;
    let done = SplitProgress { through: Position::from_u64(1), newest: None, caught_up: true };
    epoch.write_progress(world.online.as_ref(), "test", "values", [("a".into(), done)]).await.unwrap();
    // One of the old definitions does not know of it.
    world.views = vec![windowed(0).into()];
    fill(&world, &events[1..]);
    serve_and_save_nothing(&mut world, 3).await;

    let serving = async |world: &World| epochs(world).await.serving.unwrap().0.fingerprint;
    world.views = vec![windowed(1).into()];
    world.stream.script.lock().unwrap().stall_after = Some(0);
    let job = world.start().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(serving(&world).await, "w0", "what was served is served on");
    die_and_run_on(&world, job).await;
    assert_eq!(serving(&world).await, "w1");
    compare(&world, &batch, &events, "caught up").await;
}

#[tokio::test(start_paused = true)]
async fn an_epoch_serves_though_the_stream_has_lost_what_no_checkpoint_speaks_of() {
    let batch = [event(None, 1, 10, 1.0)];
    let events = [event(Some("a"), 1, 40, 4.0), event(Some("a"), 2, 41, 1.0)];
    let mut world = world("cut off", windowed(0), &batch);
    fill(&world, &events[..1]);
    world.run().await;
    fill(&world, &events[1..]);
    serve_and_save_nothing(&mut world, 2).await;
    assert!(materialize(&world, 0, 40 * SECOND).await.unwrap().note.unwrap().contains("serve as soon as a job"));
    // As a file that was cut off: it ends at the checkpoint, and nothing more comes.
    world.stream.splits.lock().unwrap().get_mut(&SplitId::from("a")).unwrap().truncate(1);
    world.options.until_caught_up = true;
    tokio::time::timeout(Duration::from_secs(20), world.run()).await.expect("the job finishes");
    assert_eq!(log_from(&world).await, Some(40 * SECOND));
    compare(&world, &batch, &events[..1], "without it").await;
}

#[tokio::test]
async fn an_epoch_serves_when_a_bounded_job_has_read_again_all_but_what_is_lost() {
    let batch = [event(None, 1, 10, 1.0)];
    let events = [event(Some("a"), 1, 40, 4.0), event(Some("a"), 2, 41, 1.0), event(Some("b"), 1, 51, 5.0)];
    let mut world = world("bounded", windowed(0), &batch);
    fill(&world, &events);
    serve_and_save_nothing(&mut world, 2).await;
    materialize(&world, 0, 30 * SECOND).await.unwrap();
    world.stream.splits.lock().unwrap().remove(&SplitId::from("b"));
    world.options.tuning.batch_records = 1;
    {
        let mut script = world.stream.script.lock().unwrap();
        // Time enough to look when the other split is not read again yet.
        (script.follow, script.rest_once_in) = (false, 1);
    }
    world.run().await;
    assert_eq!(log_from(&world).await, Some(30 * SECOND));
    compare(&world, &batch, &events[..2], "without it").await;
}

#[tokio::test(start_paused = true)]
async fn an_epoch_serves_though_the_stream_has_lost_what_was_served_and_not_logged() {
    let batch = [event(None, 1, 10, 1.0)];
    let events = [event(Some("a"), 1, 40, 4.0), event(Some("a"), 2, 41, 1.0), event(Some("a"), 1, 51, 5.0)];
    let mut world = served_and_not_logged("lost behind", &batch, &events).await;
    materialize(&world, 0, 30 * SECOND).await.unwrap();
    // As a shard that was silent until retention had removed all that it held: its end lies before the checkpoint.
    world.stream.splits.lock().unwrap().get_mut(&SplitId::from("a")).unwrap().truncate(1);
    world.stream.script.lock().unwrap().gone = 1;
    world.options.until_caught_up = true;
    tokio::time::timeout(Duration::from_secs(20), world.run()).await.expect("the job finishes");
    assert_eq!(log_from(&world).await, Some(30 * SECOND));
    compare(&world, &batch, &[], "without them").await;
}

#[tokio::test(start_paused = true)]
async fn an_epoch_serves_though_the_stream_has_lost_a_split_that_was_read() {
    let batch = [event(None, 1, 10, 1.0)];
    let events = [event(Some("a"), 1, 40, 4.0), event(Some("a"), 2, 41, 1.0), event(Some("b"), 1, 51, 5.0)];
    let mut world = world("lost", windowed(0), &batch);
    world.stream.script.lock().unwrap().follow = true;
    world.options.until_caught_up = true;
    fill(&world, &events);
    world.run().await;
    // As a file that was rotated away: it never ended.
    world.stream.splits.lock().unwrap().remove(&SplitId::from("a"));
    world.views = vec![windowed(1).into()];
    tokio::time::timeout(Duration::from_secs(20), world.run()).await.expect("the job finishes");
    assert_eq!(epochs(&world).await.serving.unwrap().0.fingerprint, "w1");
    compare(&world, &batch, &events, "other aggregations").await;
    // What is merely silent is waited for.
    let stream = MemoryStreamSource::new("events").bounded(false);
    stream.add_split("a".into(), &[]);
    stream.add_split("b".into(), &[]);
    assert!(!has_no_more(&stream, &[("a".into(), None), ("c".into(), None)].into()).await);
    assert!(has_no_more(&stream, &[("c".into(), None)].into()).await);
    assert!(has_no_more(&stream, &[("a".into(), Some(Position::START))].into()).await, "it has none");
    stream.append(&"a".into(), vec![(None, Some("{}".into()), NOW)]).unwrap();
    assert!(!has_no_more(&stream, &[("a".into(), Some(Position::START))].into()).await);
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_is_built_without_a_job_does_not_wait_for_what_is_lost() {
    let batch = [event(None, 1, 10, 1.0)];
    let world = served_and_not_logged("lost unlogged", &batch, &[event(Some("a"), 1, 40, 4.0)]).await;
    world.stream.splits.lock().unwrap().clear();
    let done = materialize(&world, 0, 30 * SECOND).await.unwrap();
    assert_eq!((done.note, log_from(&world).await), (None, Some(30 * SECOND)));
    compare(&world, &batch, &[], "without it").await;
}

#[tokio::test]
async fn a_build_that_dies_takes_nothing_from_one_that_is_about_to_serve() {
    let batch = [event(None, 1, 10, 1.0)];
    let events = [event(Some("a"), 1, 40, 4.0), event(Some("b"), 1, 51, 5.0)];
    let world = world("dies", windowed(0), &batch);
    fill(&world, &events);
    world.run().await;
    // All of history is in this one, and whoever was to let it serve was killed.
    let ready = build(&world, 20).await;
    // A later one removes what is left of others, and dies.
    let later = build(&world, 30).await;
    later.remove(world.online.as_ref(), "test", "values").await.unwrap();
    assert!(epochs(&world).await.entry(&ready.id).is_some());
    world.run().await;
    assert_eq!(log_from(&world).await, Some(20 * SECOND));
    compare(&world, &batch, &events, "the first of them").await;

    // Of several that wait the latest alone does.
    let (one, two) = (build(&world, 21).await, build(&world, 22).await);
    let three = build(&world, 23).await;
    let all = epochs(&world).await.all.into_iter().map(|entry| entry.epoch.id).filter(|id| *id >= ready.id);
    assert_eq!(all.collect::<Vec<_>>(), [ready.id.clone(), two.id, three.id], "without {}", one.id);
    world.run().await;
    assert_eq!(log_from(&world).await, Some(23 * SECOND));
    compare(&world, &batch, &events, "the latest").await;
}

#[tokio::test]
async fn a_dead_letter_that_is_replayed_counts_once_whatever_is_built_then() {
    let batch = [event(None, 1, 10, 1.0)];
    let events = [event(Some("a"), 1, 40, 4.0), event(Some("a"), 1, 41, 13.0), event(Some("a"), 1, 51, 5.0)];
    let mut world = world("replayed", windowed(0), &batch);
    let transformed = |variant, fails| transformed_by(windowed(variant), Arc::new(any::Uneven { fails }));
    world.views = vec![transformed(0, Some(13.0)).into()];
    fill(&world, &events);
    world.run().await;
    compare(&world, &batch, &[events[0].clone(), events[2].clone()], "without it").await;
    world.views = vec![transformed(0, None).into()];
    for brought_in in [1, 0] {
        let done = replay_dead_letters(&world.project(), None).await.unwrap();
        assert_eq!(done.brought_in, brought_in);
        let as_replayed = Event { split: Some("replay"), ..events[1].clone() };
        let all = [events[0].clone(), as_replayed, events[2].clone()];
        compare(&world, &batch, &all, "replayed").await;
        materialize(&world, 0, 41 * SECOND).await.unwrap();
        compare(&world, &batch, &all, "built again").await;
        world.views = vec![transformed(1, None).into()];
        world.run().await;
        compare(&world, &batch, &all, "other aggregations").await;
    }
}

#[tokio::test]
async fn an_end_may_be_the_start_or_come_twice_or_lie_ahead() {
    let batch = [event(None, 1, 10, 1.0), event(None, 1, 50, 2.0)];
    let events = [event(Some("a"), 1, 10, 3.0), event(Some("a"), 1, 49, 4.0), event(Some("a"), 2, 310, 5.0)];
    let world = world("ends", windowed(0), &batch);
    fill(&world, &events);
    world.run().await;
    // No batch row lies in it, and none before it.
    for _ in 0..2 {
        let done = materialize(&world, 10 * SECOND, 10 * SECOND).await.unwrap();
        assert_eq!((done.rows, done.note), (0, None));
        assert_eq!(log_from(&world).await, Some(10 * SECOND));
        compare(&world, &batch, &events, "an empty interval").await;
    }
    // A row at the end counts from the stream alone.
    for end in [50, 51, 50] {
        materialize(&world, 0, end * SECOND).await.unwrap();
        assert_eq!(log_from(&world).await, Some(end * SECOND));
        compare(&world, &batch, &events, "moved").await;
    }
    // It is 300 now: what is later may still come, and came.
    let done = materialize(&world, 0, 400 * SECOND).await.unwrap();
    assert_eq!((done.end, log_from(&world).await), (300 * SECOND, Some(300 * SECOND)));
    compare(&world, &batch, &events, "ahead").await;
}

#[tokio::test]
async fn an_epoch_serves_though_nothing_new_comes() {
    let batch = [event(None, 1, 10, 1.0), event(None, 2, 20, 1.0)];
    let events = [event(Some("a"), 1, 40, 4.0), event(Some("b"), 1, 51, 5.0)];
    let world = world("quiet", windowed(0), &batch);
    fill(&world, &events);
    world.run().await;
    build(&world, 15).await;
    world.run().await;
    assert_eq!(log_from(&world).await, Some(15 * SECOND));
    compare(&world, &batch, &events, "nothing new").await;
}

#[tokio::test]
async fn other_aggregations_are_built_without_reading_the_stream_again() {
    let batch = [event(None, 1, 10, 1.0), event(None, 2, 20, 1.0)];
    let events = [event(Some("a"), 1, 40, 4.0), event(Some("b"), 1, 51, 5.0)];
    let mut world = world("not again", windowed(0), &batch);
    fill(&world, &events);
    world.run().await;
    world.views = vec![windowed(1).into()];
    let before = *world.stream.delivered.lock().unwrap();
    world.run().await;
    assert_eq!(*world.stream.delivered.lock().unwrap(), before);
    compare(&world, &batch, &events, "from the log").await;
}

#[tokio::test]
async fn an_end_alone_takes_the_batch_rows_that_the_windows_need() {
    let batch = [event(None, 1, 10, 1.0), event(None, 1, 85, 2.0), event(None, 2, 130, 1.0)];
    let events = [event(Some("a"), 1, 135, 3.0), event(Some("a"), 1, 150, 4.0), event(Some("b"), 2, 160, 5.0)];
    // Of the longest window 60 s, from a multiple of its 7 s on; of a lifetime everything.
    for (variant, start, rows) in [(2, Some(77 * SECOND), 2), (0, None, 3)] {
        let world = world(&format!("end {variant}"), windowed(variant), &batch);
        fill(&world, &events);
        world.run().await;
        let (project, view, tuning) = (world.project(), Arc::clone(&world.views[0]), world.options.tuning);
        let plan = store::plan_windows(&project, &view, &store::Between::Until(140 * SECOND)).await.unwrap();
        let done = store::materialize_windows(&project, &view, plan, None, &tuning).await.unwrap();
        assert_eq!((done.start, done.end, done.rows), (start, 140 * SECOND, rows));
        assert_eq!(log_from(&world).await, Some(140 * SECOND));
        compare(&world, &batch, &events, "an end alone").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_split_that_comes_beside_a_new_epoch_costs_the_others_nothing() {
    let batch = [event(None, 1, 10, 1.0)];
    let events = [event(Some("a"), 1, 40, 4.0), event(Some("a"), 2, 41, 1.0), event(Some("b"), 1, 51, 5.0)];
    let mut world = world("beside", windowed(0), &batch);
    world.options.tuning = Tuning::default();
    world.stream.script.lock().unwrap().follow = true;
    fill(&world, &events[..2]);
    let mut job = world.start().await;
    world
        .until("it has read the first split", || async {
            job.status().splits.iter().any(|split| split.counts.rows == 2)
        })
        .await;
    // Between two looks at the epochs.
    build(&world, 20).await;
    fill(&world, &events[2..]);
    world.until("it serves", || async { log_from(&world).await == Some(20 * SECOND) }).await;
    job.stop().await.unwrap();
    compare(&world, &batch, &events, "both splits").await;
}

/// Starts a job on a stream whose splits are shared.
async fn share(world: &World, stream: &MemoryStreamSource) -> JobHandle {
    job::start_with(world.project(), "events", Arc::new(stream.clone()), world.options.clone()).await.unwrap()
}

/// A world whose job was killed when all these events of one split were served, and none was logged.
async fn served_and_not_logged(name: &str, batch: &[Event], events: &[Event]) -> World {
    let mut world = world(name, windowed(0), batch);
    world.options.tuning.log_interval = Duration::from_secs(3_600);
    world.stream.script.lock().unwrap().follow = true;
    fill(&world, events);
    let job = world.start().await;
    world.until("all is served, and not logged", || have_read(&world, events.len() as u64)).await;
    die(job).await;
    world.clock.advance(31 * SECOND);
    assert_eq!(world.log().await.len(), 0);
    world
}

/// Runs a job until so many events of one split are served, and kills it before a checkpoint speaks of any.
async fn serve_and_save_nothing(world: &mut World, events: u64) {
    let tuning = world.options.tuning;
    world.options.tuning.sync_interval = Duration::from_secs(3_600);
    world.stream.script.lock().unwrap().follow = true;
    let job = world.start().await;
    let served = || async {
        let Some((serving, _)) = epochs(world).await.serving else { return false };
        let written = epoch::written(world.online.as_ref(), "test", "values", &serving).await.unwrap();
        written.get(&SplitId::from("a")).and_then(Position::to_u64) == Some(events)
    };
    world.until("all is served", served).await;
    die(job).await;
    world.clock.advance(31 * SECOND);
    assert!(!have_read(world, events).await, "a checkpoint speaks of it");
    world.options.tuning = tuning;
}

/// Kills a job. Its tasks are told to end, and do so when it is their turn.
async fn die(job: JobHandle) {
    drop(job);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Kills a job on a stream that stalls, and runs another to the end of what there is, without stalls.
async fn die_and_run_on(world: &World, job: JobHandle) {
    die(job).await;
    world.clock.advance(31 * SECOND);
    {
        let mut script = world.stream.script.lock().unwrap();
        (script.stall_after, script.follow) = (None, false);
    }
    world.run().await;
}

/// Whether the log, or the checkpoints of a view without one, have so many records.
async fn have_read(world: &World, records: u64) -> bool {
    let view = &world.views[0];
    let checkpoints = load_checkpoints(world.online.as_ref(), "test", view).await.unwrap();
    checkpoints.values().map(|checkpoint| checkpoint.through.to_u64().unwrap_or(0)).sum::<u64>() >= records
}

#[tokio::test(start_paused = true)]
async fn windows_follow_splits_that_move_between_workers() {
    for offline in [true, false] {
        let batch = [event(None, 1, 10, 1.0), event(None, 2, 20, 1.0)];
        let mut world = world(&format!("move {offline}"), windowed(0), &batch);
        let set = |world: &mut World, variant| {
            let mut view = windowed(variant);
            view.offline = offline;
            world.views = vec![view.into()];
        };
        set(&mut world, 0);
        let stream = MemoryStreamSource::new("events").bounded(false);
        let splits = ["a", "b", "c", "d"];
        splits.iter().for_each(|split| stream.add_split((*split).into(), &[]));
        let mut events = Vec::new();
        let mut add = |count: i64| {
            for at in 0..count {
                let number = events.len() as i64;
                let split = splits[events.len() % 4];
                let event = event(Some(split), at % 3, 40 + number / 2, number as f64);
                stream.append(&split.into(), vec![(None, Some(event.record().into()), NOW)]).unwrap();
                events.push(event);
            }
            events.len() as u64
        };
        add(20);
        let mut one = share(&world, &stream).await;
        world.until("all is read", || have_read(&world, 20)).await;
        let mut two = share(&world, &stream).await;
        let count = add(40);
        if offline {
            assert_eq!(materialize(&world, 0, 15 * SECOND).await.unwrap().note, None);
        }
        world.until("all is read by both", || have_read(&world, count)).await;

        // One after the other goes on with other aggregations.
        let older = world.clone();
        set(&mut world, 1);
        two.stop().await.unwrap();
        let count = add(12);
        let mut two = share(&world, &stream).await;
        older.until("all is read by the old and the new", || have_read(&older, count)).await;
        one.stop().await.unwrap();
        let count = add(12);
        let mut one = share(&world, &stream).await;
        world
            .until("the new ones serve", || async { epochs(&world).await.serving.unwrap().0.fingerprint == "w1" })
            .await;
        world.until("all is read by the new ones", || have_read(&world, count)).await;
        one.stop().await.unwrap();
        two.stop().await.unwrap();
        compare(&world, &batch, &events, &format!("offline: {offline}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_while_an_epoch_takes_over_costs_nothing() {
    for moment in (0..300).step_by(10) {
        let batch = [event(None, 1, 10, 1.0)];
        let mut world = world(&format!("dies at {moment}"), windowed(0), &batch);
        world.options.tuning.batch_records = 3;
        let stream = MemoryStreamSource::new("events").bounded(false);
        let splits = ["a", "b", "c"];
        splits.iter().for_each(|split| stream.add_split((*split).into(), &[]));
        let mut events = Vec::new();
        let mut add = |count: i64| {
            for at in 0..count {
                let split = splits[events.len() % 3];
                let event = event(Some(split), at % 4, 40 + at, at as f64);
                stream.append(&split.into(), vec![(None, Some(event.record().into()), NOW)]).unwrap();
                events.push(event);
            }
        };
        add(30);
        let mut one = share(&world, &stream).await;
        let two = share(&world, &stream).await;
        world.until("both have read", || have_read(&world, 30)).await;
        let plain = world.clone();
        let building = tokio::spawn(async move { materialize(&plain, 0, 35 * SECOND).await });
        add(30);
        for _ in 0..moment {
            tokio::task::yield_now().await;
        }
        drop(two);
        world.until("the other has read all", || have_read(&world, 60)).await;
        // It may go on for as long as the one that died seems to run.
        world.until("it serves", || async { log_from(&world).await == Some(35 * SECOND) }).await;
        building.await.unwrap().unwrap();
        one.stop().await.unwrap();
        compare(&world, &batch, &events, &format!("died at {moment}")).await;
    }
}
