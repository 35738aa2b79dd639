//! Windows in the life of a store.

use headwater_core::definitions::AggregateFunction;

use super::*;

#[tokio::test]
async fn a_reset_forward_skips_in_windows_without_a_log_too() {
    let world = World::new("forward windows");
    let counts = FeatureView::stream("counts", "drivers").entity("driver").aggregation(Aggregation::count());
    let store = world.open(world.definitions("skipped").view(counts)).await;
    store.apply().await.unwrap();
    world.append(&[(1, DAY - 9, 0.1)]);
    ingest(&store).await;
    world.append(&[(1, DAY - 8, 0.2), (1, DAY - 7, 0.3)]);
    store.reset("drivers", StartPosition::Latest).await.unwrap();
    world.append(&[(1, DAY - 6, 0.4)]);
    ingest(&store).await;
    assert_eq!(read(&store, "counts:count", 1).await, json!([2, "PRESENT"]));
}

#[tokio::test]
async fn a_reset_forward_leaves_out_of_windows_nothing_that_the_log_has() {
    let world = World::new("forward logged");
    let counts = FeatureView::stream("counts", "drivers").entity("driver").offline(true);
    let store = world.open(world.definitions("logged").view(counts.aggregation(Aggregation::count()))).await;
    store.apply().await.unwrap();
    world.append(&[(1, DAY - 9, 0.1)]);
    ingest(&store).await;
    // A worker is killed that has published a record and not written it.
    world.append(&[(1, DAY - 8, 0.2)]);
    let log = LogId { view: "counts".into(), generation: generation(&store, "counts").await };
    let (split, from) = (SplitId::from("0"), Position::from_u64(1));
    let range = LogRange { after: from.clone(), through: Position::from_u64(2) };
    let rows = ViewRows {
        rows: rows(&[(1, DAY - 8, 0.2)]).project(&[0, 1]).unwrap(),
        origin: Origin::Stream,
        split: split.clone(),
        positions: BinaryArray::from(vec![range.through.as_bytes()]),
        ordinals: None,
    };
    let (rows, metadata) = (log_rows(&rows).unwrap(), BTreeMap::new());
    world.offline.append(&log, &split, rows, range, metadata).await.unwrap();
    world.append(&[(1, DAY - 7, 0.3)]);
    store.reset("drivers", StartPosition::Latest).await.unwrap();
    world.append(&[(1, DAY - 6, 0.4)]);
    ingest(&store).await;
    assert_eq!(read(&store, "counts:count", 1).await, json!([3, "PRESENT"]), "the third of four was skipped");
}

#[tokio::test]
async fn the_status_of_windows_says_what_serves_and_how_far_the_next_epoch_is() {
    let world = World::new("window status");
    let counts = FeatureView::stream("counts", "drivers").entity("driver").offline(true);
    let store = world.open(world.definitions("progress").view(counts.aggregation(Aggregation::count()))).await;
    store.apply().await.unwrap();
    let status = async || store.status().await.unwrap().views.into_iter().find(|view| view.view == "counts").unwrap();
    let windows = async || status().await.windows.unwrap();
    let none = WindowStatus { epoch: None, log_from: None, current: false, next: None };
    assert_eq!(windows().await, none);
    world.append(&[(1, DAY - 9, 0.1), (2, DAY - 8, 0.1)]);
    ingest(&store).await;
    store.materialize(DAY - 9, DAY - 8, Some(&["counts".to_owned()]), None).await.unwrap();
    let (online, generation) = (world.online.as_ref(), status().await.generation);
    let (serving, _) = epoch::load(online, "progress", "counts", &generation).await.unwrap().serving.unwrap();
    let now = windows().await;
    assert_eq!((now.epoch, now.log_from, now.current, now.next), (Some(serving.id.clone()), Some(DAY - 8), true, None));

    let next = Epoch { id: format!("{}-next", serving.id), log_from: Some(DAY - 7), ..serving.clone() };
    let progress = BuildProgress { done: 1, total: 3, rows: 20 };
    let other = Epoch { id: format!("{}-of", serving.id), fingerprint: "other aggregations".into(), ..serving.clone() };
    other.write(online, "progress", "counts", EpochState::CatchingUp, progress).await.unwrap();
    assert_eq!(windows().await.next, None, "nobody waits for it");
    next.write(online, "progress", "counts", EpochState::Building, progress).await.unwrap();
    let told = NextEpoch {
        epoch: next.id.clone(),
        log_from: Some(DAY - 7),
        built: false,
        done: 1,
        total: 3,
        rows: 20,
        splits_caught_up: 0,
        splits: 0,
    };
    let now = windows().await;
    assert_eq!((now.epoch.as_ref(), now.next.as_ref()), (Some(&serving.id), Some(&told)));
    assert_eq!(read(&store, "counts:count", 2).await, json!([1, "PRESENT"]), "the old one serves meanwhile");

    let split = |name: &str, caught_up| {
        (SplitId::from(name), SplitProgress { through: Position::START, newest: None, caught_up })
    };
    next.write(online, "progress", "counts", EpochState::CatchingUp, progress).await.unwrap();
    next.write_progress(online, "progress", "counts", [split("0", true), split("1", false)]).await.unwrap();
    let told = NextEpoch { built: true, splits_caught_up: 1, splits: 2, ..told };
    assert_eq!(windows().await.next, Some(told));
}

#[tokio::test]
async fn windows_of_a_generation_that_no_longer_serves_are_dropped() {
    let world = World::new("window generations");
    let counts = FeatureView::stream("counts", "drivers").entity("driver").offline(true);
    let store = world.open(world.definitions("dropped").view(counts.aggregation(Aggregation::count()))).await;
    store.apply().await.unwrap();
    world.append(&[(1, DAY - 9, 0.1)]);
    ingest(&store).await;
    let generation = async || generation(&store, "counts").await;
    let left = async |generation: &str| {
        let tables = world.online.tables().await.unwrap();
        let epochs = epoch::load(world.online.as_ref(), "dropped", "counts", generation).await.unwrap();
        (tables.iter().filter(|table| table.contains(generation)).count(), epochs.all.len())
    };
    let old = generation().await;
    world.clock.advance(1);
    store.reset("drivers", StartPosition::Earliest).await.unwrap();
    store.compact().await.unwrap();
    assert_eq!(left(&old).await, (1, 1), "it serves");
    ingest(&store).await;
    store.compact().await.unwrap();
    assert_eq!(left(&old).await, (0, 0));
    assert_eq!(left(&generation().await).await, (1, 1));
    world.clock.advance(2_000_000);
    assert_eq!(read(&store, "counts:count", 1).await, json!([1, "PRESENT"]));
}

#[tokio::test]
async fn results_beyond_their_type_are_counted_online_and_in_training_sets() {
    let world = World::new("window overflows");
    let sum = Aggregation::new(AggregateFunction::Sum, "rate").name("total");
    let totals = FeatureView::stream("totals", "drivers").entity("driver").feature("total", ValueType::Float32);
    let store = world.open(world.definitions("overflows").view(totals.offline(true).aggregation(sum))).await;
    store.apply().await.unwrap();
    world.append(&[(1, DAY - 9, 1e300), (2, DAY - 8, 0.5)]);
    ingest(&store).await;
    assert_eq!(read(&store, "totals:total", 1).await, json!([null, "NULL_VALUE"]));
    let asked = batch(vec![
        ("driver_id", Arc::new(Int64Array::from(vec![1, 2, 1])) as ArrayRef),
        ("event_timestamp", times(&[Some(DAY), Some(DAY), Some(DAY - 1)])),
    ]);
    let entities = EntityRows::new(asked.schema(), vec![asked]).unwrap();
    let features = Features::names(["totals:total"]);
    store.get_historical_features(entities, features, false, HistoryOptions::default()).await.unwrap();
    let counted = store.window_reads()["totals"];
    assert_eq!((counted.entities, counted.overflows, counted.training_overflows), (1, 1, 2));
}
