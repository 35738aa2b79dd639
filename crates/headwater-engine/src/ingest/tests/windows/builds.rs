//! Builds of epochs that meet others: splits that have ended, workers and builders that die, replays, other rows.

use super::*;

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
