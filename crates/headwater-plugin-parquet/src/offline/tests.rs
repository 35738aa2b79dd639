use headwater_core::options::Options;
use headwater_core::{ErrorKind, Position, Registry};

use super::*;
use crate::testing::{Place, append, end, expected, files, log_id, read, rows};

fn config(path: &str) -> Config {
    Config {
        name: "offline_store".into(),
        options: [("path".to_owned(), path.into())].into(),
        base_dir: "/nowhere".into(),
    }
}

#[tokio::test]
async fn files_lie_where_the_contract_says() {
    let place = Place::folder();
    let store = place.store();
    append(&store, "0001", 1..=3).await.unwrap();
    append(&store, "0001", 4..=255).await.unwrap();
    append(&store, "dir/file.ndjson", 1..=1).await.unwrap();
    assert_eq!(
        files(&place.path()),
        [
            "driver_stats/3f9c/0001/p.parquet",
            "driver_stats/3f9c/0001/p0000000000000003.parquet",
            "driver_stats/3f9c/dir%2Ffile.ndjson/p.parquet",
        ]
    );
}

#[tokio::test]
async fn the_end_decides_who_may_append() {
    for place in [Place::folder(), Place::objects()] {
        let (store, other) = (place.store(), place.store());
        assert_eq!(end(&store, "a").await, None);
        assert_eq!(append(&store, "a", 2..=3).await.unwrap(), Append::Conflict);
        assert_eq!(append(&store, "a", 1..=3).await.unwrap(), Append::Published);
        assert_eq!(append(&other, "a", 1..=5).await.unwrap(), Append::Conflict);
        assert_eq!(append(&other, "a", 5..=5).await.unwrap(), Append::Conflict);
        assert_eq!(append(&other, "a", 4..=9).await.unwrap(), Append::Published);
        assert_eq!(end(&store, "a").await, Some((9, "9".into())));
        assert_eq!(read(&store).await.unwrap(), expected("a", 1..=9));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_that_race_publish_each_position_once() {
    for place in [Place::folder(), Place::objects()] {
        let writers = [3, 5, 7].map(|size| {
            let store = place.store();
            tokio::spawn(async move {
                let mut lost = 0;
                loop {
                    let next = end(&store, "a").await.map_or(1, |(end, _)| end + 1);
                    if next > 200 {
                        return lost;
                    }
                    if append(&store, "a", next..=next + size - 1).await.unwrap() == Append::Conflict {
                        lost += 1;
                    }
                }
            })
        });
        for writer in writers {
            writer.await.unwrap();
        }
        let store = place.store();
        let (end, _) = end(&store, "a").await.unwrap();
        assert_eq!(read(&store).await.unwrap(), expected("a", 1..=end));
        assert_eq!(place.plain().await, expected("a", 1..=end));
        assert_eq!(place.leftovers().await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn an_append_that_ends_anywhere_leaves_all_or_nothing() {
    for origin in [Place::folder(), Place::objects()] {
        append(&origin.store(), "a", 1..=3).await.unwrap();
        for steps in 0.. {
            let place = origin.copy();
            let crashed = append(&place.store().crash_after(steps), "a", 4..=9).await.is_err();
            let (before, after) = (expected("a", 1..=3), expected("a", 1..=9));
            let plain = place.plain().await;
            assert!(plain == after || (crashed && plain == before), "after {steps} steps");
            let store = place.store();
            assert_eq!(read(&store).await.unwrap(), plain);

            // A writer that starts again skips what is there.
            if plain == before {
                assert_eq!(append(&store, "a", 4..=9).await.unwrap(), Append::Published);
            } else {
                assert_eq!(append(&store, "a", 4..=9).await.unwrap(), Append::Conflict);
            }
            assert_eq!(place.plain().await, after);
            assert_eq!(place.leftovers().await, Vec::<String>::new(), "after {steps} steps");
            if !crashed {
                assert!(steps > 0);
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_a_living_writer_has_not_published_yet_is_left_alone() {
    let place = Place::folder();
    append(&place.store(), "a", 1..=3).await.unwrap();
    let path = place.path().join("driver_stats/3f9c/a/.p0000000000000003.parquet.1.tmp");
    let writing = std::fs::File::create(&path).unwrap();
    writing.try_lock().unwrap();
    append(&place.store(), "a", 4..=5).await.unwrap();
    assert!(path.exists());
    drop(writing);
    append(&place.store(), "a", 6..=7).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn logs_are_listed_and_removed() {
    for place in [Place::folder(), Place::objects()] {
        let store = place.store();
        assert!(store.logs().await.unwrap().is_empty());
        store.remove(&log_id()).await.unwrap();
        let odd = LogId { view: "./Größe 1%".into(), generation: ".g".into() };
        let range = LogRange { after: Position::START, through: Position::from_u64(2) };
        for log in [&odd, &log_id()] {
            for split in ["a", "b"] {
                let rows = rows(split, 1..=2);
                let done = store.append(log, &split.into(), rows, range.clone(), BTreeMap::new()).await.unwrap();
                assert_eq!(done, Append::Published);
            }
        }
        assert_eq!(store.logs().await.unwrap(), [odd.clone(), log_id()]);
        store.compact(&log_id()).await.unwrap();
        store.remove(&log_id()).await.unwrap();
        assert_eq!(store.logs().await.unwrap(), std::slice::from_ref(&odd));
        assert!(store.ends(&log_id()).await.unwrap().is_empty());
        let missing = store.log(&log_id());
        assert_eq!(missing.schema().await.unwrap_err().kind(), ErrorKind::NotFound);
        // It begins anew.
        assert_eq!(append(&store, "a", 1..=1).await.unwrap(), Append::Published);
        assert_eq!(read(&store).await.unwrap(), expected("a", 1..=1));
    }
}

#[tokio::test]
async fn what_cannot_be_a_piece_is_refused() {
    let place = Place::folder();
    let store = place.store();
    let range = |after, through| LogRange { after: Position::from_u64(after), through: Position::from_u64(through) };
    let no_position = rows("a", 1..=2).project(&[0, 1, 2, 3]).unwrap();
    for (split, rows, range) in [
        ("a", rows("a", 1..=2), range(2, 2)),
        ("a", rows("a", 1..=2), range(1, 2)),
        ("a", rows("a", 1..=2), range(0, 1)),
        ("", rows("a", 1..=2), range(0, 2)),
        ("a", no_position, range(0, 2)),
    ] {
        let error = store.append(&log_id(), &split.into(), rows, range, BTreeMap::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    }
    let nameless = LogId { view: String::new(), generation: "g".into() };
    assert_eq!(store.ends(&nameless).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.log(&nameless).schema().await.unwrap_err().kind(), ErrorKind::Invalid);
    assert!(!place.path().exists());
}

#[tokio::test]
async fn damage_is_an_error_that_names_the_file() {
    let place = Place::folder();
    let store = place.store();
    append(&store, "a", 1..=20).await.unwrap();
    append(&store, "a", 21..=30).await.unwrap();
    let path = place.path().join("driver_stats/3f9c/a/p.parquet");
    let whole = std::fs::read(&path).unwrap();
    let mut noticed = 0;
    let damaged = (0..whole.len()).step_by(11).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        bytes
    });
    let cut = (0..whole.len()).step_by(97).map(|length| whole[..length].to_vec());
    for bytes in damaged.chain(cut) {
        std::fs::write(&path, &bytes).unwrap();
        if let Err(error) = read(&place.store()).await {
            assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::FormatVersion), "{error:?}");
            assert!(error.to_string().contains("p.parquet"), "{error}");
            noticed += 1;
        }
    }
    assert!(noticed > whole.len() / 50, "only {noticed} damages of {} bytes were noticed", whole.len());

    // A lost piece, and a file that is none of ours.
    std::fs::remove_file(&path).unwrap();
    assert_eq!(read(&store).await.unwrap_err().kind(), ErrorKind::Corrupt);
    std::fs::write(&path, &whole).unwrap();
    std::fs::write(path.with_file_name("part-0.parquet"), &whole).unwrap();
    let error = store.ends(&log_id()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("part-0.parquet"), "{error}");
}

#[tokio::test]
async fn files_of_another_format_version_are_refused_by_name() {
    let place = Place::folder();
    let store = place.store();
    append(&store, "a", 1..=3).await.unwrap();
    let path = place.path().join("driver_stats/3f9c/a/p.parquet");
    let mut bytes = std::fs::read(&path).unwrap();
    let key = b"headwater.format";
    // In the footer's compact encoding the value follows its key, a field header and its length.
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 2;
    assert_eq!(bytes[at], b'1');
    bytes[at] = b'9';
    std::fs::write(&path, &bytes).unwrap();
    let store = place.store();
    let append = append(&store, "a", 4..=5).await.unwrap_err();
    for error in [store.ends(&log_id()).await.unwrap_err(), read(&store).await.unwrap_err(), append] {
        assert_eq!(error.kind(), ErrorKind::FormatVersion);
        assert!(error.to_string().contains("`9`"), "{error}");
    }
}

#[test]
fn options_are_checked() {
    let open = |config: &Config| ParquetOfflineStore::open(&ParquetConfig::from_config(config)?, config);
    assert!(open(&config("data/offline")).is_ok());
    assert!(open(&config("file:///data/offline")).is_ok());
    for path in ["", "ftp://host/folder"] {
        assert_eq!(open(&config(path)).unwrap_err().kind(), ErrorKind::Invalid);
    }
    let mut none = config("data");
    none.options.insert("row_group_rows".into(), 0.into());
    assert_eq!(open(&none).unwrap_err().kind(), ErrorKind::Invalid);
    let mut gzip = config("data");
    gzip.options.insert("compression".into(), "gzip".into());
    assert!(open(&gzip).unwrap_err().to_string().contains("`snappy`"));
    #[cfg(not(feature = "s3"))]
    {
        let error = open(&config("s3://bucket/offline")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("feature `s3`"), "{error}");
    }
}

#[test]
fn the_readme_lists_every_option() {
    let readme = include_str!("../../README.md");
    let rows = ParquetConfig::OPTIONS.iter().map(|option| {
        // As it is written in a definition file.
        let written = |default: &str| default.trim_start_matches("Compression::").to_lowercase();
        let default = option.default.map_or("required".to_owned(), |default| format!("`{}`", written(default)));
        format!("| `{}` | {} | {default} | {} |\n", option.name, option.kind.describe(), option.doc.trim())
    });
    let table = rows.collect::<String>();
    assert!(readme.contains(&format!("| --- | --- | --- | --- |\n{table}\n")), "the table should be\n{table}");
}

#[test]
fn the_plugin_is_registered_under_its_word() {
    let registry = Registry::global().unwrap();
    assert!(std::ptr::eq(registry.plugin("parquet").unwrap(), &raw const crate::PLUGIN));
}
