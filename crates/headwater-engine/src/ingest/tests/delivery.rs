//! Any order of events, any batches, redelivery, faults and restarts end in the same store and log.

use std::collections::BTreeMap;

use headwater_testkit::{Random, seeds};

use super::super::checkpoint;
use super::faults::Flaky;
use super::world::*;

/// Events as (split, id, event time, created, value), in order of their splits.
fn events(random: &mut Random) -> Vec<(String, i64, i64, Option<i64>, f64)> {
    let count = 50 + random.below(250);
    let (splits, ids, times) = (1 + random.below(3), 1 + random.below(12), 1 + random.below(20));
    (0..count)
        .map(|value| {
            let created = match random.below(3) {
                0 => None,
                _ => Some(random.below(4) as i64),
            };
            (
                format!("part-{}", random.below(splits)),
                random.below(ids) as i64,
                random.below(times) as i64 * 1_000,
                created,
                value as f64,
            )
        })
        .collect()
}

fn fill(world: &World, events: &[(String, i64, i64, Option<i64>, f64)]) {
    for (split, id, ts, created, value) in events {
        world.stream.add(split, record(*id, *ts, *created, *value));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_delivery_ends_as_in_order_delivery_once() {
    for seed in seeds(40) {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let events = events(&mut random);

        // What should be, worked out without the engine.
        let mut positions: BTreeMap<&str, u64> = BTreeMap::new();
        let mut newest = BTreeMap::new();
        let mut expected_log: Vec<LogRow> = Vec::new();
        for (split, id, ts, created, value) in &events {
            let position = positions.entry(split).or_default();
            *position += 1;
            let version = (*ts, *created, split.clone(), *position);
            let best = newest.entry(*id).or_insert((version.clone(), value.to_bits()));
            if best.0 <= version {
                *best = (version, value.to_bits());
            }
            expected_log.push((split.clone(), *position, *id, *ts, Some(value.to_bits())));
        }
        expected_log.sort();

        let undisturbed = World::new();
        fill(&undisturbed, &events);
        undisturbed.run().await;
        assert_eq!(undisturbed.log().await, expected_log);
        let mut found = undisturbed.online().await.into_values().collect::<Vec<_>>();
        let mut wanted = newest.values().map(|(version, value)| (version.0, Some(*value))).collect::<Vec<_>>();
        found.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(found, wanted);

        let mut world = World::new();
        fill(&world, &events);
        world.options.tuning.batch_records = 1 + random.below(40);
        world.options.tuning.log_piece_bytes = 1 + random.below(4_000);
        if random.once_in(2) {
            (world.online, world.offline) = Flaky::stores(&world, seed, 5);
        }
        {
            let mut script = world.stream.script.lock().unwrap();
            script.redeliver_once_in = random.below(5);
            // Once in one would be always.
            script.fail_once_in = [0, 2, 3, 5][random.below(4)];
        }
        for restart in 0..random.below(6) {
            {
                let mut script = world.stream.script.lock().unwrap();
                script.seed = seed * 100 + restart as u64;
                script.stall_after = Some(random.below(12));
            }
            let mut job = world.start().await;
            tokio::select! {
                () = world.stream.stalled.notified() => {}
                done = job.wait() => done.unwrap(),
            }
            match random.below(3) {
                0 => job.stop().await.unwrap(),
                // A moment more or less: the writing task is somewhere in its work.
                1 => {
                    for _ in 0..random.below(200) {
                        tokio::task::yield_now().await;
                    }
                    drop(job);
                }
                _ => drop(job),
            }
        }
        world.stream.script.lock().unwrap().stall_after = None;
        world.run().await;
        assert_eq!(world.log().await, expected_log, "seed {seed}");
        assert_eq!(world.online().await, undisturbed.online().await, "seed {seed}");

        // Nothing is counted twice, and what is committed is all there is.
        let checkpoints = checkpoint::load(world.online.as_ref(), "test", &world.views[0]).await.unwrap();
        let rows: u64 = checkpoints.values().map(|checkpoint| checkpoint.counts.rows).sum();
        assert_eq!(rows, events.len() as u64, "seed {seed}");
        for (split, position) in &positions {
            let committed = world.stream.committed.lock().unwrap();
            let progress = committed.get(&(*split).into());
            let expected = headwater_core::stream::Progress::Through(headwater_core::Position::from_u64(*position));
            assert_eq!(progress, Some(&expected), "seed {seed}");
        }
    }
}

#[tokio::test]
async fn a_second_run_reads_only_what_was_added() {
    let world = World::new();
    world.stream.event("a", 1, 10, 1.0);
    world.run().await;
    world.stream.event("a", 1, 20, 2.0);
    let before = *world.stream.delivered.lock().unwrap();
    world.run().await;
    assert_eq!(*world.stream.delivered.lock().unwrap() - before, 1);
    assert_eq!(world.online().await.into_values().collect::<Vec<_>>(), [(20, Some(2.0_f64.to_bits()))]);
    assert_eq!(world.log().await.len(), 2);
}

#[tokio::test]
async fn two_workers_of_one_stream_write_each_record_once() {
    let world = World::new();
    for index in 0..500 {
        world.stream.event(if index % 2 == 0 { "a" } else { "b" }, index % 7, index, 1.0);
    }
    let (mut one, mut two) = (world.start().await, world.start().await);
    let (first, second) = tokio::join!(one.wait(), two.wait());
    first.unwrap();
    second.unwrap();
    let log = world.log().await;
    assert_each_once(&log);
    assert_eq!(log.len(), 500);
}

#[tokio::test]
async fn views_without_log_or_online_rows_are_fed_too() {
    let mut world = World::new();
    let mut log_only = view("logged", "g1");
    log_only.online = false;
    let mut online_only = view("served", "g1");
    online_only.offline = false;
    world.views = vec![log_only.into(), online_only.into()];
    world.stream.event("a", 1, 10, 1.0);
    world.run().await;
    assert_eq!((world.online().await.len(), world.log().await.len()), (0, 1));
    world.views.reverse();
    assert_eq!((world.online().await.len(), world.log().await.len()), (1, 0));
}

#[tokio::test]
async fn a_log_that_is_switched_on_later_is_filled_from_where_the_view_began() {
    let mut world = World::new();
    world.views = vec![{
        let mut view = view("values", "g1");
        view.offline = false;
        view.into()
    }];
    world.stream.event("a", 1, 10, 1.0);
    world.run().await;
    world.views = vec![view("values", "g1").into()];
    world.stream.event("a", 1, 20, 2.0);
    world.run().await;
    assert_eq!(world.log().await.len(), 2);
    let jobs = super::super::jobs(&world.project()).await.unwrap();
    assert_eq!(jobs[0].splits[0].counts.rows, 2, "no record is counted twice");
}

#[tokio::test]
async fn a_lost_online_store_is_filled_again_and_the_log_stays_as_it_is() {
    let mut world = World::new();
    for index in 0..40 {
        world.stream.event("a", index % 5, index, index as f64);
    }
    world.run().await;
    let (online, log) = (world.online().await, world.log().await);
    world.online = World::new().online;
    world.run().await;
    assert_eq!(world.online().await, online);
    assert_eq!(world.log().await, log);
}
