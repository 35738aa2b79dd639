//! The command with the plugin, as the README runs it.
#![allow(clippy::unwrap_used)] // A panic fails the test.

use std::path::Path;
use std::process::Command;

use custom_plugin::feed::Feeds;

/// Runs the command in `folder`; gives what it prints.
fn headwater(folder: &Path, address: &str, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_custom_plugin_app"));
    let done = command.args(args).current_dir(folder).env("FEED_ADDRESS", address).output().unwrap();
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// The newest fares of two drivers.
fn fares(folder: &Path, address: &str) -> serde_json::Value {
    let entities = r#"{"driver_id": [1001, 1002]}"#;
    let args = ["get-online-features", "--features", "driver_rides:fare", "--entities", entities];
    let answer: serde_json::Value = serde_json::from_str(&headwater(folder, address, &args)).unwrap();
    answer["results"][1]["values"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_a_feed_become_features() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let feeds = Feeds::default();
    let server = tokio::spawn(feeds.clone().serve(listener));
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    for file in ["headwater.yaml", "history.csv"] {
        std::fs::copy(here.join(file), folder.path().join(file)).unwrap();
    }
    let rides = std::fs::read_to_string(here.join("rides.ndjson")).unwrap();
    let stored = 1_769_860_800_000_000;
    for line in rides.lines() {
        feeds.add("rides", "0", stored, line);
    }

    let folder = folder.path().to_owned();
    let work = tokio::task::spawn_blocking(move || {
        assert!(headwater(&folder, &address, &["plugins"]).contains("lines"));
        headwater(&folder, &address, &["apply"]);
        headwater(&folder, &address, &["ingest", "--until-caught-up"]);
        assert_eq!(fares(&folder, &address), serde_json::json!([15.5, 8.0]));
        // A later run reads what was added, and nothing twice.
        let more = r#"{"driver_id": 1002, "event_timestamp": "2026-01-31T12:20:00Z", "fare": 4.5}"#;
        feeds.add("rides", "0", stored + 2_000_000_000, more);
        headwater(&folder, &address, &["ingest", "--until-caught-up"]);
        assert_eq!(fares(&folder, &address), serde_json::json!([15.5, 4.5]));
    });
    work.await.unwrap();
    server.abort();
}
