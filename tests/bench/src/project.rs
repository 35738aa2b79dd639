//! The project that is measured.

use headwater::FeatureStore;
use headwater_tests::definitions;
use headwater_tests::outcome::open;

/// What the records hold.
const SCHEMA: &str = "driver_id bigint, event_timestamp timestamp, conv_rate double, acc_rate double, \
                      avg_daily_trips bigint, created timestamp";

/// A view of the newest values of a source, kept online, in the log, in both or in neither.
pub(crate) fn newest(source: &str, online: bool, offline: bool) -> String {
    let view = format!(
        "schema:\n  - {{ name: conv_rate, dtype: float64 }}\n  - {{ name: acc_rate, dtype: float64 }}\n  \
         - {{ name: avg_daily_trips, dtype: int64 }}\nonline: {online}\noffline: {offline}"
    );
    definitions(&name(), source, SCHEMA, &view)
}

/// A view of ten windows of a source: sum, count, mean, min and max over 1 h (in steps of 5 m) and over 24 h (of 2 h).
pub(crate) fn windows(source: &str) -> String {
    let mut view = "online: true\noffline: false\naggregations:".to_owned();
    for (function, window, slide) in ten_windows() {
        view += &format!(
            "\n  - {{ column: conv_rate, function: {function}, time_window: {window}, slide_interval: {slide}, \
             name: {function}_{window} }}"
        );
    }
    definitions(&name(), source, SCHEMA, &view)
}

/// Function, window and step of each feature of [`windows`].
pub(crate) fn ten_windows() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let windows = [("1h", "5m"), ("24h", "2h")].into_iter();
    windows.flat_map(|(window, slide)| ["sum", "count", "mean", "min", "max"].map(|function| (function, window, slide)))
}

/// A name of this run's own: Kafka remembers a group by it.
fn name() -> String {
    format!("bench{}", std::process::id())
}

/// A topic as a source.
pub(crate) fn kafka(topic: &str) -> String {
    let servers = crate::servers();
    format!("type: kafka\nbootstrap_servers: {servers}\ntopic: {topic}")
}

/// A project in a folder of its own, applied.
pub(crate) async fn project(definitions: &str) -> (tempfile::TempDir, FeatureStore) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("headwater.yaml"), definitions).unwrap();
    let store = open(folder.path()).await;
    store.apply().await.unwrap();
    (folder, store)
}

/// A record.
#[derive(Clone, Copy)]
pub(crate) struct Driver {
    pub(crate) id: usize,
    pub(crate) event: i64,
    pub(crate) created: i64,
    pub(crate) conv: f64,
    pub(crate) acc: f64,
    pub(crate) trips: usize,
}

impl Driver {
    pub(crate) fn json(&self) -> String {
        let Self { id, conv, acc, trips, .. } = self;
        let (event, created) = (headwater::store::format_time(self.event), headwater::store::format_time(self.created));
        format!(
            "{{\"driver_id\":{id},\"event_timestamp\":\"{event}\",\"conv_rate\":{conv},\"acc_rate\":{acc},\
             \"avg_daily_trips\":{trips},\"created\":\"{created}\"}}"
        )
    }
}
