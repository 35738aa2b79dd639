//! Windows for training sets alone: `online: false`.

use super::builds::build;
use super::*;
use crate::store::{Between, materialize_views};

fn for_training(variant: usize) -> Vec<Arc<View>> {
    vec![View { online: false, ..windowed(variant) }.into()]
}

/// Compares training sets with what the events themselves give. Nothing waits to take over.
async fn compare_sets(world: &World, batch: &[Event], events: &[Event], what: &str) {
    let view = &world.views[0];
    let epochs = epochs(world).await;
    let serving = &epochs.serving.as_ref().unwrap().0;
    assert_eq!(Some(&serving.id), epochs.all.last().map(|entry| &entry.epoch.id), "{what}: another waits");
    assert_eq!(serving.fingerprint, view.windows.as_ref().unwrap().fingerprint, "{what}");
    let truth = Truth::new(batch, events, serving.log_from);
    let asked = (0..4).flat_map(|id| [20, 45, 60, 120].map(|t| (id, t * SECOND))).collect::<Vec<_>>();
    for ((id, t), set) in asked.iter().zip(offline(&world.project(), &asked, false).await) {
        assert_agree(view, &set, &truth.features(view, *id, *t, false), || format!("{what}: {id} at {t}"));
    }
}

fn given() -> ([Event; 3], [Event; 3]) {
    let batch = [event(None, 1, 10, 1.0), event(None, 1, 50, 2.0), event(None, 2, 30, 3.0)];
    let events = [event(Some("a"), 1, 35, 4.0), event(Some("a"), 1, 51, 5.0), event(Some("b"), 3, 60, 6.0)];
    (batch, events)
}

#[tokio::test]
async fn training_sets_go_by_the_end_of_a_materialize_at_once() {
    let (batch, events) = given();
    let mut world = world("training", windowed(0), &batch);
    world.views = for_training(0);
    fill(&world, &events);
    world.run().await;
    assert_eq!(log_from(&world).await, Some(50 * SECOND + 1));
    compare_sets(&world, &batch, &events, "ingested").await;

    world.stream.script.lock().unwrap().follow = true;
    let mut job = world.start().await;
    // All views that there are, then this one by its name: every night with a later end, beside a job and without.
    let name = ["values".to_owned()];
    for (night, end) in [35, 40, 45, 55].into_iter().enumerate() {
        if night == 2 {
            job.stop().await.unwrap();
        }
        // No batch row is read, so it does not matter how far back it reaches.
        let (names, between) = ((night > 0).then_some(&name[..]), Between::Between(end * SECOND - 1, end * SECOND));
        let done = materialize_views(&world.project(), between, names, None).await.unwrap();
        assert_eq!((done.len(), done[0].end, &done[0].note), (1, end * SECOND, &None));
        assert_eq!(log_from(&world).await, Some(end * SECOND));
        compare_sets(&world, &batch, &events, &format!("night {night}")).await;
        assert!(epochs(&world).await.all.len() <= 2, "what was replaced is gone but for the last");
        world.clock.advance(11 * SECOND);
    }
}

#[tokio::test]
async fn training_sets_have_other_aggregations_as_soon_as_a_job_begins() {
    let (batch, events) = given();
    let mut world = world("training others", windowed(0), &batch);
    world.options.applied = world.clock.now();
    world.views = for_training(0);
    fill(&world, &events);
    world.run().await;
    world.views = for_training(1);
    world.run().await;
    compare_sets(&world, &batch, &events, "other aggregations").await;

    // One that waits for jobs to catch up, when the view is served online no more.
    world.views = vec![windowed(1).into()];
    world.run().await;
    build(&world, 35).await;
    world.views = for_training(1);
    world.run().await;
    assert_eq!(log_from(&world).await, Some(35 * SECOND));
    compare_sets(&world, &batch, &events, "no more online").await;
    world.clock.advance(11 * SECOND);
    world.run().await;
    assert_eq!(epochs(&world).await.all.len(), 1);
}

#[tokio::test]
async fn windows_that_were_for_training_alone_are_built_to_be_served() {
    let (batch, events) = given();
    for offline in [true, false] {
        let mut world = world(&format!("training served {offline}"), windowed(0), &batch);
        world.options.applied = world.clock.now();
        world.views = for_training(0);
        fill(&world, &events[..2]);
        world.run().await;
        world.views = vec![View { offline, ..windowed(0) }.into()];
        fill(&world, &events[2..]);
        world.run().await;
        compare(&world, &batch, &events, &format!("offline: {offline}")).await;
    }
}

#[tokio::test]
async fn windows_that_are_served_again_lack_nothing_of_what_came_meanwhile() {
    let (batch, events) = given();
    let mut world = world("training and back", windowed(0), &batch);
    world.options.applied = world.clock.now();
    fill(&world, &events[..1]);
    world.run().await;
    world.views = for_training(0);
    fill(&world, &events[1..2]);
    // Nobody comes by this split again.
    world.stream.reshard(&["a"], &["b"]);
    world.run().await;
    compare_sets(&world, &batch, &events[..2], "for training").await;
    world.views = vec![windowed(0).into()];
    fill(&world, &events[2..]);
    world.run().await;
    compare(&world, &batch, &events, "served again").await;
}

#[tokio::test]
async fn a_worker_of_older_definitions_takes_no_windows_out_of_service() {
    let (batch, events) = given();
    let mut world = world("training older", windowed(0), &batch);
    fill(&world, &events);
    world.run().await;
    // It was started before they were served.
    world.views = for_training(0);
    world.run().await;
    world.views = vec![windowed(0).into()];
    compare(&world, &batch, &events, "of later definitions").await;
    // And one that is of later ones itself.
    world.views = for_training(0);
    world.options.applied = world.clock.now();
    world.run().await;
    assert!(epochs(&world).await.serving.unwrap().0.without_rows);
}
