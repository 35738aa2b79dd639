//! The project that is measured.

use headwater::FeatureStore;
use headwater::store::{format_time, parse_time};
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
    for Window { name, function, minutes, slide } in ten_windows() {
        view += &format!(
            "\n  - {{ column: conv_rate, function: {function}, time_window: {minutes}m, slide_interval: {slide}m, \
             name: {name} }}"
        );
    }
    definitions(&name(), source, SCHEMA, &view)
}

/// A feature of [`windows`].
pub(crate) struct Window {
    pub(crate) name: String,
    pub(crate) function: &'static str,
    /// Its length.
    pub(crate) minutes: i64,
    /// Its step, in minutes.
    pub(crate) slide: i64,
}

/// The features of [`windows`].
pub(crate) fn ten_windows() -> impl Iterator<Item = Window> {
    let windows = [("1h", 60, 5), ("24h", 24 * 60, 120)].into_iter();
    windows.flat_map(|(name, minutes, slide)| {
        let functions = ["sum", "count", "mean", "min", "max"];
        functions.map(|function| Window { name: format!("{function}_{name}"), function, minutes, slide })
    })
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
        let (event, created) = (format_time(self.event), format_time(self.created));
        format!(
            "{{\"driver_id\":{id},\"event_timestamp\":\"{event}\",\"conv_rate\":{conv},\"acc_rate\":{acc},\
             \"avg_daily_trips\":{trips},\"created\":\"{created}\"}}"
        )
    }

    /// Of what [`json`](Self::json) gave.
    pub(crate) fn read(json: &[u8]) -> Self {
        let json = std::str::from_utf8(json).unwrap();
        let number = |name| field(json, name).parse().unwrap();
        Self {
            id: field(json, "driver_id").parse().unwrap(),
            event: parse_time(field(json, "event_timestamp")).unwrap(),
            created: parse_time(field(json, "created")).unwrap(),
            conv: number("conv_rate"),
            acc: number("acc_rate"),
            trips: field(json, "avg_daily_trips").parse().unwrap(),
        }
    }
}

/// A field of what [`Driver::json`] gave, without taking the rest apart.
pub(crate) fn field<'a>(json: &'a str, name: &str) -> &'a str {
    let (_, rest) = json.split_once(name).unwrap();
    rest.trim_start_matches("\":").split([',', '}']).next().unwrap().trim_matches('"')
}
