//! What is late stays late over restarts, wherever they go on from.

use headwater_core::Position;
use headwater_core::definitions::LateEvents;
use headwater_core::online::OnlineRow;
use headwater_core::options::Duration;

use super::world::*;
use crate::ingest::{dead_letters, load_checkpoints};
use crate::rows::checkpoints_table;

const KINDS: [LateEvents; 2] = [LateEvents::Accept, LateEvents::DeadLetter];

/// A world where an event is late that is older by more than 5 than another, and this one was read.
async fn world(late: LateEvents) -> World {
    let mut world = World::new();
    world.settings().watermark_delay_threshold = Some(Duration(5));
    world.settings().late_events = late;
    world.stream.event("a", 1, 20, 1.0);
    assert_eq!(ran(&world).await, (0, Some(15)));
    world
}

fn fill(world: &World, times: &[i64]) {
    times.iter().for_each(|ts| world.stream.event("a", 1, *ts, 1.0));
}

/// Runs a job until it is finished. Gives back how many events were late in all, and the watermark.
async fn ran(world: &World) -> (u64, Option<i64>) {
    let mut job = world.start().await;
    job.wait().await.unwrap();
    let split = job.status().splits.remove(0);
    (split.counts.late, split.watermark)
}

/// Of these events one was late: it was put aside, or logged like the others.
async fn assert_one_was_late(world: &World, late: LateEvents, times: &[i64], ts: i64) {
    let put_aside = late == LateEvents::DeadLetter;
    let logged = world.log().await.iter().map(|row| row.3).collect::<Vec<_>>();
    let expected = times.iter().copied().filter(|time| !put_aside || *time != ts).collect::<Vec<_>>();
    assert_eq!(logged, expected, "{late:?}");
    let letters = dead_letters(&world.project()).await.unwrap();
    let reasons = letters.iter().map(|listed| listed.letter.reason.as_str()).collect::<Vec<_>>();
    let expected = if put_aside { vec!["the event is older than the watermark"] } else { Vec::new() };
    assert_eq!(reasons, expected, "{late:?}");
}

/// The checkpoint of the only split.
async fn checkpoint(world: &World) -> (Position, OnlineRow) {
    let view = &world.views[0];
    let all = load_checkpoints(world.online.as_ref(), "test", view).await.unwrap();
    let (split, checkpoint) = all.into_iter().next().unwrap();
    let row = checkpoint.to_row(view, &split).unwrap();
    (checkpoint.through, row)
}

#[tokio::test]
async fn an_event_is_late_by_what_an_earlier_job_has_read() {
    for late in KINDS {
        let world = world(late).await;
        fill(&world, &[14]);
        assert_eq!(ran(&world).await, (1, Some(15)), "{late:?}");
        assert_one_was_late(&world, late, &[20, 14], 14).await;
    }
}

#[tokio::test]
async fn a_checkpoint_behind_the_log_judges_as_before() {
    for late in KINDS {
        let world = world(late).await;
        let (_, before) = checkpoint(&world).await;
        // By the last of them, with which the log ends, the one before would be late too.
        fill(&world, &[14, 18, 30]);
        assert_eq!(ran(&world).await, (1, Some(25)), "{late:?}");
        let table = checkpoints_table("test");
        world.online.delete(&table, std::slice::from_ref(&before.key)).await.unwrap();
        world.online.put(&table, vec![before]).await.unwrap();
        assert_eq!(ran(&world).await, (1, Some(25)), "{late:?}");
        assert_one_was_late(&world, late, &[20, 14, 18, 30], 14).await;
        assert_eq!(checkpoint(&world).await.0, Position::from_u64(4), "it was read again");
    }
}

#[tokio::test]
async fn a_log_behind_the_checkpoint_judges_as_before() {
    // By the newest event that the checkpoint knows, the second would be late too.
    for (times, watermark) in [(&[14, 18][..], 15), (&[14, 18, 30][..], 25)] {
        for late in KINDS {
            let mut world = world(late).await;
            let log_interval = world.options.tuning.log_interval;
            world.options.tuning.log_interval = std::time::Duration::from_secs(3_600);
            world.stream.script.lock().unwrap().follow = true;
            fill(&world, times);
            let end = Position::from_u64(1 + times.len() as u64);
            let job = world.start().await;
            world.until("all is served, and not logged", || async { checkpoint(&world).await.0 == end }).await;
            drop(job);
            assert_eq!(world.log().await.len(), 1);
            world.options.tuning.log_interval = log_interval;
            world.stream.script.lock().unwrap().follow = false;
            assert_eq!(ran(&world).await, (1, Some(watermark)), "{late:?}");
            assert_one_was_late(&world, late, &[&[20][..], times].concat(), 14).await;
        }
    }
}

#[tokio::test]
async fn a_log_without_a_checkpoint_makes_nothing_late_that_was_in_time() {
    for late in KINDS {
        let mut world = world(late).await;
        fill(&world, &[14, 18, 30]);
        assert_eq!(ran(&world).await, (1, Some(25)), "{late:?}");
        world.online = World::new().online;
        assert_eq!(ran(&world).await, (1, Some(25)), "{late:?}");
        assert_one_was_late(&world, late, &[20, 14, 18, 30], 14).await;
    }
}
