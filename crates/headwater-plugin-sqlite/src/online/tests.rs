use std::path::Path;

use headwater_core::options::Options;
use headwater_core::time::ManualClock;
use headwater_core::{ErrorKind, Registry};
use tempfile::TempDir;

use super::*;

fn store_at(path: &Path, clock: Arc<dyn Clock>) -> SqliteOnlineStore {
    let config = Config {
        name: "online_store".into(),
        options: [("path".to_owned(), path.to_str().unwrap().into())].into(),
        base_dir: "/".into(),
    };
    SqliteOnlineStore::open(&SqliteConfig::from_config(&config).unwrap(), &config, clock).unwrap()
}

fn store(path: &Path) -> SqliteOnlineStore {
    store_at(path, Arc::new(ManualClock::new(0)))
}

fn row(key: impl AsRef<[u8]>, version: u64, value: &str) -> OnlineRow {
    OnlineRow {
        key: Bytes::copy_from_slice(key.as_ref()),
        version: Bytes::copy_from_slice(&version.to_be_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        expiry: None,
    }
}

fn file(folder: &TempDir) -> std::path::PathBuf {
    folder.path().join("deep/down/online.db")
}

#[tokio::test]
async fn rows_of_one_key_in_one_put_count_as_if_they_were_put_one_by_one() {
    let folder = TempDir::new().unwrap();
    let store = store(&file(&folder));
    store.put("t", vec![row("a", 5, "stored")]).await.unwrap();
    let put = store
        .put(
            "t",
            vec![row("a", 4, "old"), row("a", 5, "tie"), row("a", 7, "new"), row("a", 6, "between"), row("b", 1, "")],
        )
        .await
        .unwrap();
    assert_eq!(put, Put { written: 3, stale: 2 });
    assert_eq!(store.get("t", &["a".into()]).await.unwrap(), [Some(row("a", 7, "new"))]);
    let put = store.put("t", vec![row("a", 1, ""), row("a", 2, "")]).await.unwrap();
    assert_eq!(put, Put { written: 0, stale: 2 });
}

#[tokio::test]
async fn many_keys_are_read_in_their_order() {
    let folder = TempDir::new().unwrap();
    let store = store(&file(&folder));
    let rows = (0..50_000_u32).map(|n| row(n.to_be_bytes(), 1, "x")).collect::<Vec<_>>();
    store.put("t", rows.clone()).await.unwrap();
    let keys = rows.iter().rev().map(|row| row.key.clone()).chain(["none".into()]).collect::<Vec<_>>();
    let read = store.get("t", &keys).await.unwrap();
    assert!(read.last().unwrap().is_none());
    assert!(read.iter().zip(&keys).take(50_000).all(|(row, key)| row.as_ref().unwrap().key == key));
    assert_eq!(store.get_prefixes("t", &[Bytes::new()]).await.unwrap(), [rows]);
}

#[tokio::test]
async fn names_that_differ_in_case_alone_are_different_tables() {
    let folder = TempDir::new().unwrap();
    let store = store(&file(&folder));
    store.put("p/View/1", vec![row("a", 1, "upper")]).await.unwrap();
    store.put("p/view/1", vec![row("a", 1, "lower")]).await.unwrap();
    assert_eq!(store.get("p/View/1", &["a".into()]).await.unwrap(), [Some(row("a", 1, "upper"))]);
    assert_eq!(store.tables().await.unwrap(), ["p/View/1", "p/view/1"]);
}

#[tokio::test]
async fn reading_creates_nothing() {
    let folder = TempDir::new().unwrap();
    let store = store(&file(&folder));
    assert_eq!(store.get("t", &["a".into()]).await.unwrap(), [None]);
    assert_eq!(store.get_prefixes("t", &["a".into()]).await.unwrap(), [vec![]]);
    assert!(store.tables().await.unwrap().is_empty());
    store.delete("t", &["a".into()]).await.unwrap();
    store.drop_table("t").await.unwrap();
    store.sync().await.unwrap();
    assert!(folder.path().read_dir().unwrap().next().is_none());
}

#[tokio::test]
async fn what_was_put_is_there_after_reopening() {
    let folder = TempDir::new().unwrap();
    {
        let store = store(&file(&folder));
        store.put("t", vec![row("a", 1, "x")]).await.unwrap();
        store.sync().await.unwrap();
        store.put("t", vec![row("b", 1, "y")]).await.unwrap();
    }
    let rows = store(&file(&folder)).get_prefixes("t", &[Bytes::new()]).await.unwrap();
    assert_eq!(rows, [vec![row("a", 1, "x"), row("b", 1, "y")]]);
}

#[tokio::test]
async fn expired_rows_go_with_a_later_sync_and_no_others() {
    let folder = TempDir::new().unwrap();
    let clock = Arc::new(ManualClock::new(0));
    let store = store_at(&file(&folder), Arc::clone(&clock) as Arc<dyn Clock>);
    let expiring = |table: u8| {
        (0..3_000_u32)
            .map(|n| OnlineRow { expiry: (n % 3 > 0).then(|| i64::from(n % 3) * 100), ..row(n.to_be_bytes(), 1, "x") })
            .map(move |row| OnlineRow { version: vec![table].into(), ..row })
            .collect::<Vec<_>>()
    };
    for (table, name) in [(1, "a"), (2, "b"), (3, "B")] {
        store.put(name, expiring(table)).await.unwrap();
    }
    let all = [Bytes::new()];
    for (now, left) in [(99, 3_000), (100, 2_000), (199, 2_000), (200, 1_000), (i64::MAX, 1_000)] {
        clock.set(now);
        // Two calls per table and one on the way around.
        for _ in 0..7 {
            store.sync().await.unwrap();
        }
        for name in ["a", "b", "B"] {
            assert_eq!(store.get_prefixes(name, &all).await.unwrap()[0].len(), left, "{name} at {now}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_that_share_a_file_end_with_the_greatest_versions() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder);
    // Each opens the file for itself, as processes do, and all of them create it at once.
    let writers = (0..4_u64).map(|writer| {
        let store = store(&path);
        tokio::spawn(async move {
            let mut total = Put::default();
            for round in 0..25 {
                let version = round * 4 + writer;
                let rows = (0..20_u32).map(|key| row(key.to_be_bytes(), version, &version.to_string())).collect();
                let put = store.put("t", rows).await.unwrap();
                total = Put { written: total.written + put.written, stale: total.stale + put.stale };
                store.sync().await.unwrap();
            }
            total
        })
    });
    let mut total = 0;
    for writer in writers.collect::<Vec<_>>() {
        let put = writer.await.unwrap();
        total += put.written + put.stale;
    }
    assert_eq!(total, 4 * 25 * 20);
    let rows = store(&path).get_prefixes("t", &[Bytes::new()]).await.unwrap();
    let expected = (0..20_u32).map(|key| row(key.to_be_bytes(), 99, "99")).collect::<Vec<_>>();
    assert_eq!(rows, [expected]);
}

#[tokio::test]
async fn damaged_files_are_errors() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder);
    {
        let store = store(&path);
        let rows = (0..2_000_u32).map(|n| row(n.to_be_bytes(), 1, "a value that fills some pages")).collect();
        store.put("t", rows).await.unwrap();
        store.sync().await.unwrap();
    }
    let whole = std::fs::read(&path).unwrap();
    let mut corrupt = 0;
    for from in (0..whole.len()).step_by(1_024) {
        let mut bytes = whole.clone();
        bytes[from..].iter_mut().take(1_024).for_each(|byte| *byte = 0xa5);
        std::fs::write(&path, &bytes).unwrap();
        let store = store(&path);
        match store.get_prefixes("t", &[Bytes::new()]).await {
            Ok(_) => {}
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid), "{error:?}");
                assert!(error.to_string().contains("online.db"), "{error}");
                corrupt += 1;
            }
        }
        // Writes must not panic either; where they land on sound pages they may pass.
        let _ = store.put("t", vec![row("a", 2, "x")]).await;
    }
    assert!(corrupt > 10, "only {corrupt} damages were noticed");
    std::fs::write(&path, "this is no database, whatever its name says").unwrap();
    let error = store(&path).get("t", &["a".into()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = store(&path).get_prefixes("t", &[Bytes::new()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn files_of_other_versions_and_other_applications_are_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder);
    store(&path).put("t", vec![row("a", 1, "x")]).await.unwrap();
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
    for error in [
        store(&path).get("t", &["a".into()]).await.unwrap_err(),
        store(&path).put("t", vec![row("a", 1, "x")]).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::FormatVersion);
        assert!(error.to_string().contains("`7`"), "{error}");
    }

    let other = folder.path().join("other.db");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let error = store(&other).put("t", vec![row("a", 1, "x")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let error = store(folder.path()).put("t", vec![row("a", 1, "x")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn the_store_works_without_a_runtime() {
    let folder = TempDir::new().unwrap();
    let store = store(&file(&folder));
    futures_block_on(async {
        store.put("t", vec![row("a", 1, "x")]).await.unwrap();
        store.sync().await.unwrap();
        assert_eq!(store.get("t", &["a".into()]).await.unwrap(), [Some(row("a", 1, "x"))]);
    });
}

/// Polls a future that never waits.
fn futures_block_on(future: impl Future<Output = ()>) {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(std::pin::pin!(future).poll(&mut context).is_ready());
}

#[test]
fn the_readme_lists_every_option() {
    let readme = include_str!("../../README.md");
    let rows = SqliteConfig::OPTIONS.iter().map(|option| {
        let default = option.default.map_or("required".to_owned(), |default| format!("`{default}`"));
        format!("| `{}` | {} | {default} | {} |\n", option.name, option.kind.describe(), option.doc.trim())
    });
    let table = rows.collect::<String>();
    assert!(readme.contains(&format!("| --- | --- | --- | --- |\n{table}\n")), "the table should be\n{table}");
}

#[test]
fn the_plugin_is_registered_under_its_word() {
    let registry = Registry::global().unwrap();
    assert!(std::ptr::eq(registry.plugin("sqlite").unwrap(), &raw const crate::PLUGIN));
}
