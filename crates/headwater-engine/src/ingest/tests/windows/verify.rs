//! Comparing windows with history while things go on.

use std::time::Duration;

use headwater_core::time::ManualClock;
use tokio::sync::watch;

use super::super::faults::Gate;
use super::*;
use crate::store::{Verified, VerifyOptions};

async fn verify(project: &Project) -> Verified {
    let options = VerifyOptions { sample: 100, seed: Some(1), wait: Duration::from_secs(20) };
    let serving = store::Serving::default();
    store::verify_view(project, serving.epochs(), "values", &options).await.unwrap()
}

/// A clock that goes on by a second with each look.
#[derive(Debug)]
struct Ticking(ManualClock);

impl Clock for Ticking {
    fn now(&self) -> Micros {
        self.0.advance(SECOND);
        self.0.now()
    }
}

#[tokio::test]
async fn history_is_asked_for_the_time_of_each_answer() {
    // An event in each second, so that a window of 10 s that is asked a second later gives something else. The newest
    // event of one entity lies before now, of one after it, and of one soon after.
    let last = [(1, 300), (2, 400), (3, 303)];
    let events = last
        .into_iter()
        .flat_map(|(id, last)| (last - 30..=last).map(move |second| event(Some("a"), id, second, (second % 7) as f64)));
    let events = events.collect::<Vec<_>>();
    let world = world("time of reading", windowed(0), &[]);
    fill(&world, &events);
    world.run().await;
    let mut project = Arc::into_inner(world.project()).unwrap();
    project.clock = Arc::new(Ticking(ManualClock::new(300 * SECOND)));
    let found = verify(&project).await;
    assert_eq!((found.sampled, found.matches), (3, 3), "{found:?}");
}

#[tokio::test]
async fn the_largest_difference_is_that_of_the_windows_that_differ_most() {
    let batch = [event(None, 1, 10, 8.0), event(None, 2, 20, 5.0), event(None, 3, 30, 1.0)];
    let sum = |function, window| (function == 0 && window == 2).then_some(0);
    let world = world("differs", windowed_over(0, sum, "sum"), &batch);
    fill(&world, &[event(Some("a"), 1, 40, 2.0), event(Some("a"), 2, 41, 5.0), event(Some("a"), 3, 42, 3.0)]);
    world.run().await;
    let found = verify(&world.project()).await;
    assert_eq!((found.matches, found.largest_difference), (3, 0.0), "{found:?}");
    // History is not what it was: 8 instead of 10, and 9 instead of 10.
    table("differs", &[event(None, 1, 10, 6.0), event(None, 2, 20, 4.0), batch[2].clone()]);
    let found = verify(&world.project()).await;
    assert_eq!((found.matches, found.mismatches, found.largest_difference), (1, 2, 0.2), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_logged_first_are_waited_for_online() {
    let mut world = world("logged first", windowed(0), &[]);
    let (open, gate) = watch::channel(true);
    world.online = Arc::new(Gate { inner: Arc::clone(&world.online), open: gate, broken: false });
    world.options.tuning.log_piece_bytes = 1;
    world.stream.script.lock().unwrap().follow = true;
    let logged = async |records: usize| world.log().await.len() == records;
    fill(&world, &[event(Some("a"), 1, 290, 1.0), event(Some("a"), 2, 290, 1.0)]);
    let mut job = world.start().await;
    world.until("all is logged", || logged(2)).await;
    world.until("all is served", || async { verify(&world.project()).await.matches == 2 }).await;
    open.send_replace(false);
    fill(&world, &[event(Some("a"), 1, 295, 2.0)]);
    world.until("it is logged", || logged(3)).await;
    let project = world.project();
    let opening = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        open.send_replace(true);
        open
    });
    let found = verify(&project).await;
    // On a slow machine it is open before anything is looked at.
    assert_eq!((found.matches + found.changed, found.mismatches, found.unwritten), (2, 0, 0), "{found:?}");
    let _open = opening.await.unwrap();
    assert_eq!(verify(&project).await.matches, 2);
    job.stop().await.unwrap();
}
