//! The project that is measured.

use headwater::FeatureStore;
use headwater_tests::outcome::open;

/// The view, what is kept of it, and where its stream comes from.
pub(crate) fn definitions(source: &str, online: bool, offline: bool) -> String {
    format!(
        r#"
project: bench{id}
registry: data/registry.json
online_store: {{ type: sqlite, path: data/online.db }}
offline_store: {{ type: parquet, path: data/offline }}
entities:
  - {{ name: driver, join_keys: [driver_id], value_type: int64 }}
sources:
  - name: history
    type: file
    path: history.parquet
    timestamp_field: event_timestamp
    created_timestamp_column: created
  - name: events
{source}
    timestamp_field: event_timestamp
    batch_source: history
    record_format:
      type: json
      schema: driver_id bigint, event_timestamp timestamp, conv_rate double, acc_rate double, avg_daily_trips bigint, created timestamp
stream_feature_views:
  - name: drivers
    entities: [driver]
    schema:
      - {{ name: conv_rate, dtype: float64 }}
      - {{ name: acc_rate, dtype: float64 }}
      - {{ name: avg_daily_trips, dtype: int64 }}
    online: {online}
    offline: {offline}
    source: events
"#,
        id = std::process::id()
    )
}

/// A topic as a source.
pub(crate) fn kafka(topic: &str) -> String {
    let servers = crate::servers();
    format!("    type: kafka\n    bootstrap_servers: {servers}\n    topic: {topic}")
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
