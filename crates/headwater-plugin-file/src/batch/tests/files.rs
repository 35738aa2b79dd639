use headwater_core::ErrorKind;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::json;

use super::super::location::Location;
use super::*;

#[tokio::test]
async fn a_path_without_files_has_no_rows() {
    let folder = Folder::new();
    fs::create_dir(folder.path("empty")).unwrap();
    folder.write("hidden/.a.parquet", "");
    folder.write("hidden/_SUCCESS", "");
    for name in ["missing.parquet", "empty", "hidden"] {
        let source = table(&folder.path(name));
        let error = source.schema().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{name}");
        assert!(error.to_string().contains(name), "{error}");
        assert!(source.fragments(&columns(["x"])).await.unwrap().is_empty());
    }
    // It is looked for each time.
    let source = table(&folder.path("missing.parquet"));
    assert!(source.fragments(&ScanRequest::default()).await.unwrap().is_empty());
    folder.write("missing.parquet", encode(&rows(0..3), 10));
    assert_eq!(scan_all(&source).await.places.len(), 3);
}

#[tokio::test]
async fn marked_and_unfinished_files_are_passed_over() {
    let folder = Folder::new();
    folder.write("d/b.parquet", encode(&rows(2..3), 10));
    folder.write("d/a/x.parquet", encode(&rows(0..2), 10));
    for name in ["d/_c.parquet", "d/.d.parquet", "d/e.parquet.tmp", "d/.b.parquet.crc", "d/_t/f.parquet", "d/README.md"]
    {
        folder.write(name, "no table");
    }
    let all = scan_all(&table(&folder.path("d"))).await;
    let places: Vec<_> = all.places.iter().map(|(split, at)| (split.as_str(), *at)).collect();
    assert_eq!(places, [("a/x.parquet", 1), ("a/x.parquet", 2), ("b.parquet", 1)], "in order of the paths");
}

#[tokio::test]
async fn the_format_is_told_by_name_or_option() {
    let folder = Folder::new();
    let path = folder.write("rows.data", "id,name\n1,a\n");
    let error = table(&path).schema().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("set `format`"), "{error}");
    let told = open(path.to_str().unwrap(), json!({ "format": "csv" })).unwrap();
    assert_eq!(scan_all(&told).await.places.len(), 1);
    folder.write("d/a.csv", "id\n1\n");
    folder.write("d/b.json", "{\"id\":2}\n");
    let error = table(&folder.path("d")).schema().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("a.csv") && error.to_string().contains("b.json"), "{error}");
    let told = open(folder.path("d").to_str().unwrap(), json!({ "format": "ndjson" })).unwrap();
    assert_eq!(integers(&scan_all(&told).await.rows["id"]), [Some(2)]);
}

#[tokio::test]
async fn urls_and_unusual_names_lead_to_files() {
    let folder = Folder::new();
    let path = folder.write("a b%20ü#[1]/t=1 %.parquet", encode(&rows(0..3), 10));
    assert_eq!(scan_all(&table(&path)).await.places.len(), 3);
    assert_eq!(scan_all(&table(path.parent().unwrap())).await.places[0].0, "t=1 %.parquet");
    let url = format!("file://{}", path.display());
    assert_eq!(scan_all(&open(&url, json!({})).unwrap()).await.places.len(), 3);
    let indirect = folder.path("a b%20ü#[1]").join("../a b%20ü#[1]/t=1 %.parquet");
    assert_eq!(scan_all(&table(&indirect)).await.places.len(), 3);
    let kind = |path: &str, options| open(path, options).unwrap_err().kind();
    assert_eq!(kind("ftp://host/t.parquet", json!({})), ErrorKind::Unsupported);
    assert_eq!(kind("", json!({})), ErrorKind::Invalid);
    assert_eq!(kind("t.csv", json!({ "delimiter": "ab" })), ErrorKind::Invalid);
    assert_eq!(kind("t.csv", json!({ "delimiter": "" })), ErrorKind::Invalid);
}

#[cfg(not(feature = "s3"))]
#[test]
fn an_s3_url_names_the_feature_that_it_needs() {
    let error = open("s3://bucket/table", json!({})).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("feature `s3`"), "{error}");
}

#[cfg(feature = "s3")]
#[test]
fn an_s3_url_opens_without_asking_anybody() {
    assert_eq!(open("s3://bucket/table/", json!({})).unwrap().identity(), "s3://bucket/table/");
}

/// A table in an object store, which here is memory.
fn remote(store: &Arc<dyn ObjectStore>, prefix: &str) -> FileBatchSource {
    let location = Location::Remote { store: Arc::clone(store), prefix: prefix.into(), root: "memory://".to_owned() };
    FileBatchSource { location, ..open("s", json!({})).unwrap() }
}

#[tokio::test]
async fn an_object_store_is_read_like_a_directory() {
    let store: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
    for (path, bytes) in [
        ("t/day=2001-01-01/a.parquet", encode(&rows(0..25), 10)),
        ("t/day=2001-01-02/a.parquet", encode(&rows(25..30), 10)),
        ("t/_SUCCESS", Vec::new()),
        ("tx/b.parquet", encode(&rows(0..1), 10)),
        ("csv/c.csv", b"id\n1\n2\n".to_vec()),
    ] {
        store.put(&path.into(), bytes.into()).await.unwrap();
    }
    let all = scan_all(&remote(&store, "t")).await;
    assert_eq!(integers(&all.rows["id"]), (0..30).map(Some).collect::<Vec<_>>());
    assert_eq!(all.places[25], ("day=2001-01-02/a.parquet".to_owned(), 1));
    assert_eq!(all.rows["day"].data_type(), &DataType::Date32);
    let one = scan_all(&remote(&store, "t/day=2001-01-02/a.parquet")).await;
    assert_eq!(one.places[0], ("a.parquet".to_owned(), 1));
    assert_eq!(integers(&scan_all(&remote(&store, "csv")).await.rows["id"]), [Some(1), Some(2)]);
    assert!(remote(&store, "missing").fragments(&ScanRequest::default()).await.unwrap().is_empty());
    let error = remote(&store, "").schema().await.unwrap_err();
    assert!(error.to_string().contains("memory://csv/c.csv"), "the whole store holds two formats: {error}");
}
