//! Reads at every step of a build, while a job goes on: of the old epoch or of the new one, whole, and never back.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use headwater_core::OnlineStore;
use headwater_core::online::{OnlineRow, Put};

use super::*;
use crate::ingest::{JobHandle, load_checkpoints};

/// Two entities, each with a split of its own.
const ENTITIES: [(i64, &str); 2] = [(1, "a"), (2, "b")];

/// How many of the 48 events are read and logged before anything is built, and how many are served by then.
const HALF: usize = 24;
const MORE: usize = 36;

/// A store that is read right before and after all that a job or a build does with it.
#[derive(Debug)]
struct Watched {
    inner: Arc<dyn OnlineStore>,
    /// The world without this store.
    plain: World,
    serving: store::Serving,
    seen: Mutex<Vec<Seen>>,
}

/// What was read at a moment.
#[derive(Debug)]
struct Seen {
    /// An epoch was there that was to take over.
    next: bool,
    /// How many events there were in the splits of the entities, and what was read of these.
    there: Vec<usize>,
    features: Vec<Vec<Value>>,
}

impl Watched {
    /// The world with such a store.
    fn world(plain: &World) -> (World, Arc<Self>) {
        let (inner, plain) = (Arc::clone(&plain.online), plain.clone());
        let watched =
            Arc::new(Self { inner, plain: plain.clone(), serving: store::Serving::default(), seen: Mutex::default() });
        (World { online: Arc::clone(&watched) as _, ..plain }, watched)
    }

    async fn look(&self) {
        let epochs = epochs(&self.plain).await;
        if epochs.serving.is_none() {
            return;
        }
        let next = epochs.all.iter().any(|entry| entry.epoch.id.as_str() > epochs.serving_id());
        let (features, _) = online(&self.plain.project(), &self.serving, &ENTITIES.map(|(id, _)| id)).await;
        let splits = self.plain.stream.splits.lock().unwrap();
        let there = ENTITIES.iter().map(|(_, split)| splits[&SplitId::from(*split)].len()).collect();
        self.seen.lock().unwrap().push(Seen { next, there, features });
    }

    async fn around<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.look().await;
        let done = call.await;
        self.look().await;
        done
    }
}

#[async_trait]
impl OnlineStore for Watched {
    async fn put(&self, table: &str, rows: Vec<OnlineRow>) -> Result<Put> {
        self.around(self.inner.put(table, rows)).await
    }

    async fn sync(&self) -> Result<()> {
        self.around(self.inner.sync()).await
    }

    async fn get(&self, table: &str, keys: &[Bytes]) -> Result<Vec<Option<OnlineRow>>> {
        self.around(self.inner.get(table, keys)).await
    }

    async fn get_prefixes(&self, table: &str, prefixes: &[Bytes]) -> Result<Vec<Vec<OnlineRow>>> {
        self.around(self.inner.get_prefixes(table, prefixes)).await
    }

    async fn delete(&self, table: &str, keys: &[Bytes]) -> Result<()> {
        self.around(self.inner.delete(table, keys)).await
    }

    async fn drop_table(&self, table: &str) -> Result<()> {
        self.around(self.inner.drop_table(table)).await
    }

    async fn tables(&self) -> Result<Vec<String>> {
        self.inner.tables().await
    }
}

/// Counts and sums of everything that there ever was; with `more`, the least of it too.
fn totals(more: bool) -> View {
    let functions = if more { 3 } else { 2 };
    let column = |function, window| (window == 2 && function < functions).then_some(1);
    windowed_over(0, column, if more { "more" } else { "totals" })
}

/// Rows of an entity, each with a digit of its own in a sum to base 4: what is missing or counts twice is seen.
fn digits(id: i64, split: Option<&'static str>, first: usize, seconds: &[i64]) -> Vec<Event> {
    let rows = (first..).zip(seconds);
    rows.map(|(digit, seconds)| Event { number: Some(1 << (2 * digit)), ..event(split, id, *seconds, 1.0) }).collect()
}

/// An epoch: where its batch rows and events meet, and how many of the features it has.
type Made = (Micros, usize);

/// What an entity's features are in the old epoch (0) and the new one (1) with so many of its events.
fn truths(view: &View, batch: &[Event], events: &[Event], id: i64, epochs: [Made; 2]) -> Vec<(usize, usize, String)> {
    let own = events.iter().filter(|event| event.id == id).cloned().collect::<Vec<_>>();
    let truth = |epoch: usize, (log_from, has): Made, count: usize| {
        let mut features = Truth::new(batch, &own[..count], Some(log_from)).features(view, id, Micros::MAX, false);
        features[has..].fill(Value::Null);
        (epoch, count, format!("{features:?}"))
    };
    let each = epochs.into_iter().enumerate();
    each.flat_map(|(epoch, made)| (0..=own.len()).map(move |count| (epoch, made, count)))
        .map(|(epoch, made, count)| truth(epoch, made, count))
        .collect()
}

/// Each read is of one epoch, with the first so many events, of which none is lost again and none comes before it is
/// there; in the end it is of the new epoch with all of them.
fn assert_whole(watched: &Watched, batch: &[Event], events: &[Event], epochs: [Made; 2]) {
    let all = watched.seen.lock().unwrap();
    for (at, (id, _)) in ENTITIES.iter().enumerate() {
        let truths = truths(&watched.plain.views[0], batch, events, *id, epochs);
        let mut last = (0, 0);
        for seen in all.iter() {
            let text = format!("{:?}", seen.features[at]);
            let is = |(epoch, count, truth): &&(usize, usize, String)| {
                *epoch >= last.0 && *count >= last.1 && *truth == text
            };
            let Some((epoch, count, _)) = truths.iter().find(is) else {
                panic!("{id} is {text} after epoch and count were {last:?}, of {truths:#?}")
            };
            assert!(*count <= seen.there[at], "{id} has {count} of {} events", seen.there[at]);
            last = (*epoch, *count);
        }
        assert_eq!(last, (1, events.iter().filter(|event| event.id == *id).count()), "{id} in the end");
    }
    let meanwhile = all.iter().filter(|seen| seen.next).count();
    assert!(meanwhile > 20, "only {meanwhile} reads while an epoch was to take over");
}

/// A world where a job has read and logged the first half of the events. The next one logs nothing unless it has to.
async fn begun(test: &str, batch: &[Event], events: &[Event]) -> World {
    let mut world = world(test, totals(false), batch);
    (world.options.tuning.batch_records, world.options.tuning.window_cache_bytes) = (1, 0);
    world.stream.script.lock().unwrap().follow = true;
    fill(&world, &events[..HALF]);
    let mut job = world.start().await;
    all_read(&world, HALF).await;
    job.stop().await.unwrap();
    world.options.tuning.log_interval = Duration::from_secs(3_600);
    world
}

/// A job that has served some more, which the log does not have: a build lacks them until jobs bring it up.
async fn started(world: &World, events: &[Event]) -> JobHandle {
    let job = world.start().await;
    fill(world, &events[HALF..MORE]);
    all_read(world, MORE).await;
    job
}

/// Brings the rest of the events, one after the other or all at once.
async fn bring_the_rest(world: &World, events: &[Event], one_by_one: bool) {
    for (at, event) in events.iter().enumerate().skip(MORE) {
        fill(world, std::slice::from_ref(event));
        if one_by_one {
            all_read(world, at + 1).await;
        }
    }
}

async fn all_read(world: &World, events: usize) {
    let read = || async {
        let view = &world.views[0];
        let checkpoints = load_checkpoints(world.online.as_ref(), "test", view).await.unwrap();
        checkpoints.values().filter_map(|checkpoint| checkpoint.through.to_u64()).sum::<u64>() == events as u64
    };
    world.until("all is read", read).await;
}

fn given() -> (Vec<Event>, Vec<Event>) {
    // The last batch row of each counts in the first epoch alone, and the first two events in the second.
    let batch = [digits(1, None, 28, &[10, 50]), digits(2, None, 28, &[20, 49])].concat();
    let seconds = (0..24).map(|at| if at < 2 { 40 } else { 60 + at % 5 }).collect::<Vec<_>>();
    let of = |(id, split): (i64, &'static str)| digits(id, Some(split), 0, &seconds);
    let [one, two] = ENTITIES.map(of);
    (batch, one.into_iter().zip(two).flat_map(|(one, two)| [one, two]).collect())
}

#[tokio::test(start_paused = true)]
async fn while_an_epoch_is_built_and_takes_over_every_read_is_of_one_epoch_and_loses_nothing() {
    for one_by_one in [true, false] {
        let (batch, events) = given();
        let (world, watched) = Watched::world(&begun(&format!("read all along {one_by_one}"), &batch, &events).await);
        let mut job = started(&world, &events).await;
        let builder = world.clone();
        let building = tokio::spawn(async move { materialize(&builder, 0, 40 * SECOND).await });
        bring_the_rest(&world, &events, one_by_one).await;
        assert_eq!(building.await.unwrap().unwrap().note, None);
        all_read(&world, events.len()).await;
        job.stop().await.unwrap();
        assert_whole(&watched, &batch, &events, [(50 * SECOND + 1, 3), (40 * SECOND, 3)]);
    }
}

#[tokio::test(start_paused = true)]
async fn while_other_aggregations_are_built_every_read_is_of_one_epoch_and_loses_nothing() {
    for one_by_one in [true, false] {
        let (batch, events) = given();
        let mut plain = begun(&format!("others all along {one_by_one}"), &batch, &events).await;
        // Killed: what it has not logged is read again.
        drop(started(&plain, &events).await);
        plain.clock.advance(31 * SECOND);
        plain.views = vec![totals(true).into()];
        let (world, watched) = Watched::world(&plain);
        let mut job = world.start().await;
        bring_the_rest(&world, &events, one_by_one).await;
        let more = || async { epochs(&plain).await.serving.unwrap().0.fingerprint == "more" };
        plain.until("the new ones serve", more).await;
        all_read(&world, events.len()).await;
        job.stop().await.unwrap();
        assert_whole(&watched, &batch, &events, [(50 * SECOND + 1, 3), (50 * SECOND + 1, 4)]);
    }
}
