//! Prints how fast the store writes and reads: `cargo run --release -p headwater-plugin-sqlite --example sqlite_speed`.

use std::time::Instant;

use bytes::Bytes;
use headwater_core::Result;
use headwater_core::online::{OnlineRow, OnlineStore};
use headwater_core::options::{Config, Options};
use headwater_core::time::SystemClock;
use headwater_plugin_sqlite::{SqliteConfig, SqliteOnlineStore};

const KEYS: u64 = 100_000;
const ROWS_PER_PUT: u64 = 10_000;
const PUTS: u64 = 100;
const READS: u64 = 200_000;

#[tokio::main]
async fn main() -> Result<()> {
    let folder =
        tempfile::tempdir().map_err(|error| headwater_core::Error::unexpected("no folder").with_source(error))?;
    let config = Config {
        name: "online_store".into(),
        options: [("path".to_owned(), "speed.db".into())].into(),
        base_dir: folder.path().to_owned(),
    };
    let store =
        SqliteOnlineStore::open(&SqliteConfig::from_config(&config)?, &config, std::sync::Arc::new(SystemClock))?;

    // As the engine writes: a key of some 20 bytes, a version of some 40, a packed row of some 60.
    let row = |n: u64| OnlineRow {
        key: key(n),
        version: [&n.to_be_bytes()[..], &[0; 32]].concat().into(),
        value: vec![7; 60].into(),
        expiry: Some(i64::MAX),
    };
    let passes = [("into an empty table", false), ("each newer", false), ("each newer, a sync after every put", true)];
    for (pass, (what, with_sync)) in (0..).zip(passes) {
        let first = pass * PUTS * ROWS_PER_PUT;
        let batches =
            (0..PUTS).map(|put| (0..ROWS_PER_PUT).map(|n| row(first + put * ROWS_PER_PUT + n)).collect::<Vec<_>>());
        let batches = batches.collect::<Vec<_>>();
        let start = Instant::now();
        for rows in batches {
            store.put("project/view/generation", rows).await?;
            if with_sync {
                store.sync().await?;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        println!("{what}: {:.0} guarded upserts/s over {KEYS} keys, {ROWS_PER_PUT} a put", 1e6 / seconds);
    }

    let start = Instant::now();
    for n in 0..READS {
        store.get("project/view/generation", &[key(n * 7)]).await?;
    }
    println!("point read: {:.2} us", start.elapsed().as_secs_f64() * 1e6 / 2e5);
    let start = Instant::now();
    for n in 0..READS / 100 {
        let keys = (0..100).map(|k| key(n * 700 + k * 7)).collect::<Vec<_>>();
        store.get("project/view/generation", &keys).await?;
    }
    println!("read of 100 keys: {:.2} us a key", start.elapsed().as_secs_f64() * 1e6 / 2e5);
    Ok(())
}

/// One of [`KEYS`] keys, scattered as hashed entities are.
fn key(n: u64) -> Bytes {
    let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    [&b"driver_id\0"[..], &(n % KEYS).to_be_bytes()].concat().into()
}
