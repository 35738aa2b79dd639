//! What tests across crates share: processes of the command, and looking at what they left behind.

// A test in all but name: what fails here fails the test that asked.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "command")]
pub mod drivers;
pub mod outcome;
#[cfg(feature = "command")]
pub mod worker;

use std::time::{Duration, Instant};

/// The definitions of a project of this name with a stream source `events` of JSON and a view `drivers` of it: `source`
/// is the source's block from `type` on, without what every stream has, `schema` that of its records, `view` the view's
/// block without its source and its entity.
pub fn definitions(project: &str, source: &str, schema: &str, view: &str) -> String {
    let block = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let (source, view) = (block(source), block(view));
    format!(
        r"
project: {project}
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
{source}    timestamp_field: event_timestamp
    batch_source: history
    record_format:
      type: json
      schema: {schema}
stream_feature_views:
  - name: drivers
    entities: [driver]
{view}    source: events
"
    )
}

/// Waits until something is so, looking at it often.
///
/// # Panics
/// Where it is not so after `limit`.
pub fn wait_for(what: &str, limit: Duration, mut so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
