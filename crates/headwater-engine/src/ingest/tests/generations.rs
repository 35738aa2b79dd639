use std::sync::Arc;

use super::world::*;
use crate::ingest::{checkpoint, jobs};
use crate::rows::Serving;
use crate::view::View;

async fn serving(world: &World) -> Option<String> {
    let serving = Serving::read(world.online.as_ref(), "test").await.unwrap();
    serving.get("values").map(|serving| serving.generation.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_generation_is_caught_up_apart_and_then_serves() {
    let mut world = World::new();
    world.stream.script.lock().unwrap().follow = true;
    world.views.push(Arc::new(view("other", "g1")));
    for index in 0..100 {
        world.stream.event("a", index % 5, index, index as f64);
    }
    let mut job = world.start().await;
    world.until("the first generation serves", || async { serving(&world).await.as_deref() == Some("g1") }).await;
    job.stop().await.unwrap();

    world.views[0] = Arc::new(view("values", "g2"));
    world.options.applied = 1;
    world.stream.resumed.lock().unwrap().clear();
    let mut job = world.start().await;
    world.until("the new generation serves", || async { serving(&world).await.as_deref() == Some("g2") }).await;
    // It serves before its reader gives it over: what came between the two would be read by one of them first.
    world.until("one reader reads both", || async { world.stream.resumed.lock().unwrap().len() == 3 }).await;
    world.stream.event("a", 1, 1_000, 1.0);
    world
        .until("both go on", || async { job.status().splits.iter().filter(|s| s.offset == Some(101)).count() == 2 })
        .await;
    job.stop().await.unwrap();
    assert_eq!(world.log().await.len(), 101);
    let mut starts = world.stream.resumed.lock().unwrap().iter().map(|(_, p)| p.to_u64().unwrap()).collect::<Vec<_>>();
    let joined = starts.pop().unwrap();
    starts.sort_unstable();
    assert_eq!((starts, joined), (vec![0, 100], 100), "one reader for each group, then one for both");
    world.views.swap(0, 1);
    assert_eq!(world.log().await.len(), 101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_is_added_joins_the_others_though_the_stream_has_lost_a_split() {
    let mut world = World::new();
    world.stream.script.lock().unwrap().follow = true;
    world.options.tuning.log_interval = std::time::Duration::from_millis(1);
    world.stream.event("a", 1, 10, 1.0);
    world.stream.event("b", 1, 20, 1.0);
    let at = |job: &crate::ingest::JobHandle, offset| {
        let splits = job.status().splits;
        splits.iter().filter(|split| split.split == "b" && split.offset == Some(offset)).count()
    };
    let mut job = world.start().await;
    world.until("all is logged", || async { world.log().await.len() == 2 }).await;
    job.stop().await.unwrap();

    world.stream.splits.lock().unwrap().remove(&headwater_core::SplitId::from("a"));
    world.views.push(Arc::new(view("other", "g1")));
    world.stream.resumed.lock().unwrap().clear();
    let mut job = world.start().await;
    world.until("one reader reads both", || async { world.stream.resumed.lock().unwrap().len() >= 3 }).await;
    world.stream.event("b", 1, 30, 1.0);
    world.until("both go on", || async { at(&job, 2) == 2 }).await;
    job.stop().await.unwrap();
    assert_eq!(world.stream.resumed.lock().unwrap().len(), 3, "one reader for each, then one for both");
}

#[tokio::test]
async fn until_caught_up_ends_where_the_stream_ended_at_the_start() {
    let mut world = World::new();
    world.stream.script.lock().unwrap().follow = true;
    world.options.until_caught_up = true;
    for index in 0..50 {
        world.stream.event(if index < 25 { "a" } else { "b" }, index % 5, index, index as f64);
    }
    world.run().await;
    assert_eq!(world.log().await.len(), 50);
    // Nothing to do is done at once.
    world.run().await;
    let empty = World::new();
    empty.stream.script.lock().unwrap().follow = true;
    let mut job = crate::ingest::job::start_with(
        empty.project(),
        "events",
        Arc::new(empty.stream.clone()),
        world.options.clone(),
    )
    .await
    .unwrap();
    job.wait().await.unwrap();
    assert_eq!(jobs(&world.project()).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_is_added_reads_from_the_beginning() {
    let mut world = World::new();
    for index in 0..30 {
        world.stream.event("a", index % 5, index, index as f64);
    }
    world.run().await;
    // Where there is no older generation, the new one serves from the first.
    let added = view("added", "g1");
    let serving = Serving { view: added.name.clone(), generation: added.generation.clone(), applied: 0 };
    serving.write(world.online.as_ref(), "test").await.unwrap();
    world.views.insert(0, Arc::new(added));
    world.stream.script.lock().unwrap().stall_after = Some(1);
    let job = world.start().await;
    world.stream.stalled.notified().await;
    drop(job);
    world.stream.script.lock().unwrap().stall_after = None;
    world.run().await;
    assert_eq!(world.log().await.len(), 30);
    world.views.swap(0, 1);
    assert_eq!(world.log().await.len(), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_that_note_an_end_apart_are_read_together_when_they_have_caught_up() {
    let mut world = World::new();
    world.options.tuning.log_interval = std::time::Duration::from_millis(1);
    world.views.push(Arc::new(View { offline: false, ..view("other", "g1") }));
    world.stream.event("a", 1, 10, 1.0);
    world.stream.event("a", 1, 20, 1.0);
    world.stream.reshard(&["a"], &["b"]);
    world.run().await;
    // All of the split was read by both, and each says otherwise up to where.
    let (split, online) = (headwater_core::SplitId::from("a"), Arc::clone(&world.online));
    let all = checkpoint::load(online.as_ref(), "test", &world.views[1]).await.unwrap();
    let other = checkpoint::Checkpoint { through: headwater_core::Position::from_u64(1), ..all[&split].clone() };
    assert!(other.ended);
    let row = other.to_row(&world.views[1], &split).unwrap();
    let table = crate::rows::checkpoints_table("test");
    online.delete(&table, std::slice::from_ref(&row.key)).await.unwrap();
    online.put(&table, vec![row]).await.unwrap();

    world.stream.script.lock().unwrap().follow = true;
    world.stream.resumed.lock().unwrap().clear();
    let mut job = world.start().await;
    world.until("one reader reads both", || async { world.stream.resumed.lock().unwrap().len() >= 3 }).await;
    world.stream.event("b", 1, 30, 1.0);
    world
        .until("both go on", || async {
            let splits = job.status().splits;
            splits.iter().filter(|split| split.split == "b" && split.offset == Some(1)).count() == 2
        })
        .await;
    job.stop().await.unwrap();
    assert_eq!(world.stream.resumed.lock().unwrap().len(), 3, "one reader for each, then one for both");
}
