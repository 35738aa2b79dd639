//! From a topic to both stores.

use std::collections::BTreeMap;
use std::path::Path;

use headwater::FeatureStore;
use headwater::arrow::array::AsArray;
use headwater::arrow::datatypes::{Float64Type, Int64Type};
use headwater::ingest::IngestOptions;
use headwater::store::{EntityColumns, Features};
use headwater_tests::outcome::rows_in_log;

use crate::Options;
use crate::measure::{Stretch, peak_mb};
use crate::project::{Driver, kafka, newest, project};
use crate::source::consume;

#[allow(clippy::cast_precision_loss)]
pub(crate) async fn run(options: &Options) {
    let topic = options.text("topic");
    let (folder, store) = project(&newest(&kafka(topic), true, true)).await;
    let stretch = Stretch::begin();
    let rows = ingest(&store).await;
    let cost = stretch.end();
    let line = format!(
        "{{\"what\":\"throughput\",\"records\":{rows},\"wall_s\":{:.2},\"rec_s\":{:.0},\"cpu_s\":{:.2},\"rec_per_cpu_s\":{:.0},\"peak_rss_mb\":{:.0}}}",
        cost.wall,
        rows as f64 / cost.wall,
        cost.cpu,
        rows as f64 / cost.cpu,
        peak_mb()
    );
    check(topic, rows, &store, folder.path()).await;
    println!("{line}");
}

/// Reads everything that is there; gives the number of rows.
pub(crate) async fn ingest(store: &FeatureStore) -> usize {
    let options = IngestOptions { until_caught_up: true, ..IngestOptions::default() };
    let mut job = store.ingest("events", options).await.unwrap();
    job.wait().await.unwrap();
    usize::try_from(job.status().splits.iter().map(|split| split.counts.rows).sum::<u64>()).unwrap()
}

/// Checks that the log holds a row for each record of a topic, and the online store the newest of each driver.
async fn check(topic: &str, rows: usize, store: &FeatureStore, folder: &Path) {
    let mut drivers: BTreeMap<i64, Driver> = BTreeMap::new();
    let (records, _) = consume(topic, |record| {
        let driver = Driver::read(record);
        let newest = drivers.entry(i64::try_from(driver.id).unwrap()).or_insert(driver);
        // Of two of the same times the later in the topic.
        if (driver.event, driver.created) >= (newest.event, newest.created) {
            *newest = driver;
        }
    });
    assert!(records > 0, "topic {topic} is empty");
    let logged = rows_in_log(folder, "drivers");
    assert_eq!((rows, logged), (records, records), "not all records were ingested, or are in the log");

    let asked = EntityColumns::default().column("driver_id", drivers.keys().copied());
    let answer = store.get_online_features(Features::names(["drivers"]), asked, false).await.unwrap();
    let column = |name| &answer.column(name).unwrap().values;
    let [conv, acc] = ["conv_rate", "acc_rate"].map(|name| column(name).as_primitive::<Float64Type>());
    let trips = column("avg_daily_trips").as_primitive::<Int64Type>();
    let served = conv.iter().zip(acc).zip(trips);
    for ((id, driver), ((conv, acc), trips)) in drivers.iter().zip(served) {
        let newest = (Some(driver.conv), Some(driver.acc), i64::try_from(driver.trips).ok());
        assert_eq!((conv, acc, trips), newest, "served of driver {id}, and what its newest record holds");
    }
}
