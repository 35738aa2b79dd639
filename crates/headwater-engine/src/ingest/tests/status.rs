use headwater_core::Position;
use headwater_core::definitions::SourceKind;
use headwater_core::options::Duration;

use super::world::*;
use crate::ingest::{JobState, jobs};

#[tokio::test]
async fn every_count_of_a_split_is_told() {
    let mut world = World::new();
    world.options.definitions = "abc".into();
    world.options.tuning.batch_records = 1;
    world.options.tuning.micro_batch_rows = 1;
    world.settings().watermark_delay_threshold = Some(Duration(5));
    world.clock.set(NOW);
    world.stream.event("a", 1, 20, 1.0);
    world.stream.event("a", 1, 15, 2.0);
    world.stream.event("a", 1, 14, 3.0);
    world.stream.add("a", "nonsense");
    world.stream.add_at("a", None::<Vec<u8>>, NOW);
    let mut job = world.start().await;
    assert_eq!(jobs(&world.project()).await.unwrap()[0].state, JobState::Running);
    job.wait().await.unwrap();
    let mine = job.status();
    let told = jobs(&world.project()).await.unwrap();
    assert_eq!(told, std::slice::from_ref(&mine));
    assert_eq!((mine.state, mine.reason.as_deref(), mine.definitions.as_str()), (JobState::Stopped, None, "abc"));
    assert_eq!((mine.started_at, mine.heartbeat), (NOW, NOW));
    let split = &mine.splits[0];
    assert_eq!((split.view.as_str(), split.generation.as_str(), split.split.as_str()), ("values", "g1", "a"));
    assert_eq!((split.offset, split.position.as_str()), (Some(5), "0000000000000005"));
    assert_eq!(split.lag.unwrap().records, Some(0));
    assert_eq!((split.watermark, split.newest_event, split.freshness), (Some(15), Some(20), Some(NOW - 20)));
    // The last record came a second ago; the lag would not tell that nothing can be read since.
    world.clock.advance(1_000_000);
    let later = jobs(&world.project()).await.unwrap().remove(0).splits.remove(0);
    assert_eq!((later.newest_arrival, later.age), (Some(NOW), Some(1_000_000)));
    world.clock.set(NOW);
    let counts = split.counts;
    assert_eq!((counts.rows, counts.late, counts.stale), (3, 1, 2));
    assert_eq!((counts.dead_lettered, counts.tombstones, counts.retries), (1, 1, 0));

    // A later job goes on counting, and takes the place of the one that is over.
    world.stream.event("a", 1, 30, 1.0);
    world.run().await;
    let told = jobs(&world.project()).await.unwrap();
    assert_eq!((told.len(), told[0].splits[0].counts.rows), (1, 4));
}

#[tokio::test]
async fn a_split_is_late_by_its_own_records_alone() {
    let mut world = World::new();
    world.settings().watermark_delay_threshold = Some(Duration(5));
    world.stream.event("a", 1, 100, 1.0);
    world.stream.event("b", 2, 3, 1.0);
    world.run().await;
    let told = jobs(&world.project()).await.unwrap().remove(0);
    let splits = told.splits.iter().map(|split| (split.split.as_str(), split.counts.late, split.watermark));
    assert_eq!(splits.collect::<Vec<_>>(), [("a", 0, Some(95)), ("b", 0, Some(-2))]);
}

#[tokio::test]
async fn a_job_that_was_killed_is_lost_after_a_while() {
    let world = World::new();
    world.stream.script.lock().unwrap().follow = true;
    world.stream.event("a", 1, 20, 1.0);
    let job = world.start().await;
    world.until("the row is served", || async { world.online().await.len() == 1 }).await;
    drop(job);
    assert_eq!(jobs(&world.project()).await.unwrap()[0].state, JobState::Running);
    world.clock.advance(31_000_000);
    let told = jobs(&world.project()).await.unwrap();
    assert_eq!(told[0].state, JobState::Lost);
    assert_eq!(told[0].reason.as_deref(), Some("it stopped without saying so"));
}

#[tokio::test]
async fn what_cannot_be_ingested_is_refused_at_once() {
    let mut world = World::new();
    let start = async |world: &World, source: &str| {
        let stream = std::sync::Arc::new(world.stream.clone());
        crate::ingest::job::start_with(world.project(), source, stream, world.options.clone())
            .await
            .map(drop)
            .unwrap_err()
            .to_string()
    };
    assert!(start(&world, "nobody").await.contains("there is no source `nobody`"));
    world.settings().record_format.as_mut().unwrap().kind = "xml".into();
    let told = start(&world, "events").await;
    assert!(
        told.contains("this build does not decode the record format `xml`: build with the cargo feature `xml`"),
        "{told}"
    );
    world.definitions.sources[0].kind = SourceKind::Batch;
    assert!(start(&world, "events").await.contains("source `events` is not a stream"));
    assert_eq!(Position::START.to_u64(), Some(0));
}
