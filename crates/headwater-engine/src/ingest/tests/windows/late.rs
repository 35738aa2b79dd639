//! What is late stays late where windows are brought up from before a checkpoint.

use headwater_core::Position;
use headwater_core::definitions::LateEvents;
use headwater_core::options::Duration;

use super::builds::build;
use super::*;
use crate::ingest::{SplitStatus, dead_letters};

/// A world where events are late by more than 5 s.
fn late_world(test: &str, batch: &[Event], late: LateEvents) -> World {
    let mut world = world(test, windowed(0), batch);
    world.settings().watermark_delay_threshold = Some(Duration(5 * SECOND));
    world.settings().late_events = late;
    world
}

/// Runs a job until it is finished. Gives back what it says of its only split.
async fn ran(world: &World) -> SplitStatus {
    let mut job = world.start().await;
    job.wait().await.unwrap();
    job.status().splits.remove(0)
}

#[tokio::test]
async fn a_job_that_dies_while_windows_are_read_again_makes_no_late_event_one_in_time() {
    for late in [LateEvents::Accept, LateEvents::DeadLetter] {
        let batch = [event(None, 1, 10, 1.0)];
        let events = [60, 61, 54, 57, 55].map(|seconds| event(Some("a"), 1, seconds, seconds as f64));
        let mut world = late_world(&format!("read again {late:?}"), &batch, late);
        let unlogged = |variant| {
            let mut view = windowed(variant);
            view.offline = false;
            vec![view.into()]
        };
        let counted = |of: &[Event]| {
            let in_time = |event: &&Event| late == LateEvents::Accept || event.ts >= 56 * SECOND;
            of.iter().filter(in_time).cloned().collect::<Vec<_>>()
        };
        world.views = unlogged(0);
        world.options.tuning.batch_records = 1;
        fill(&world, &events[..4]);
        assert_eq!(ran(&world).await.counts.late, 1, "{late:?}");
        compare(&world, &batch, &counted(&events[..4]), "at first").await;

        // Killed when the newest event is read again, and the late one is not.
        world.views = unlogged(1);
        world.stream.script.lock().unwrap().stall_after = Some(2);
        let job = world.start().await;
        let through = |epochs: &Epochs| {
            let entry = epochs.all.iter().find(|entry| entry.epoch.fingerprint == "w1")?;
            entry.splits.get(&SplitId::from("a"))?.through.to_u64()
        };
        world.until("two events are read again", || async { through(&epochs(&world).await) == Some(2) }).await;
        drop(job);
        world.stream.script.lock().unwrap().stall_after = None;
        let split = ran(&world).await;
        assert_eq!((split.counts.late, split.newest_event), (1, Some(61 * SECOND)), "{late:?}");
        assert_eq!(epochs(&world).await.serving.unwrap().0.fingerprint, "w1");
        compare(&world, &batch, &counted(&events[..4]), "read again").await;

        fill(&world, &events[4..]);
        assert_eq!(ran(&world).await.counts.late, 2, "{late:?}");
        compare(&world, &batch, &counted(&events), "read on").await;
        let letters = dead_letters(&world.project()).await.unwrap().len();
        assert_eq!(letters, if late == LateEvents::DeadLetter { 2 } else { 0 });
    }
}

#[tokio::test]
async fn what_is_logged_is_not_judged_again_where_another_view_reads_it_again() {
    let batch = [event(None, 1, 10, 1.0)];
    let events = [20, 30, 60].map(|seconds| event(Some("a"), 1, seconds, seconds as f64));
    let mut world = late_world("beside another", &batch, LateEvents::DeadLetter);
    let windowed = windowed(0);
    let plain = Arc::new(View {
        name: "plain".into(),
        features: windowed.columns().to_vec(),
        windows: None,
        batch: None,
        ..windowed
    });
    world.views.push(Arc::clone(&plain));
    fill(&world, &events[..1]);
    world.run().await;
    // Jobs take no part in an epoch of other aggregations than theirs.
    let others = World { views: vec![super::windowed(1).into(), Arc::clone(&plain)], ..world.clone() };
    build(&others, 11).await;
    fill(&world, &events[1..]);
    world.run().await;

    // The stream is read from its beginning, with what lies between the epoch and the end of the windows' log.
    world.offline.remove(&plain.log()).await.unwrap();
    world.stream.resumed.lock().unwrap().clear();
    others.run().await;
    let resumed = world.stream.resumed.lock().unwrap().clone();
    assert_eq!(resumed, [(SplitId::from("a"), Position::START)], "one reader for both");
    assert_eq!(log_from(&others).await, Some(11 * SECOND));
    assert_eq!(dead_letters(&others.project()).await.unwrap().len(), 0);
    compare(&others, &batch, &events, "other aggregations").await;
    let logged = World { views: vec![plain], ..others };
    assert_eq!(logged.log().await.len(), 3);
}
