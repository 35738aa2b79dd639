use std::collections::BTreeMap;

use headwater_core::ErrorKind;
use headwater_core::options::Options;
use headwater_core::plugin::SourceContext;
use headwater_core::time::SystemClock;
use serde_json::{Value, json};

use super::*;

fn open(path: &Path, options: Value) -> Result<FileProducer> {
    let mut all: BTreeMap<String, Value> = serde_json::from_value(options).unwrap();
    all.insert("path".into(), path.to_str().unwrap().into());
    let config = Config { name: "source `s`".into(), options: all, base_dir: ".".into() };
    let source = SourceContext { record_format: Some("json".into()), ..SourceContext::default() };
    let context = OpenContext { project: "p".into(), clock: Arc::new(SystemClock), source: Some(source) };
    FileProducer::open(&FileStreamConfig::from_config(&config)?, &config, &context)
}

fn records(values: &[&str]) -> Vec<ProducerRecord> {
    let record = |value: &&str| ProducerRecord { key: "k".into(), value: value.as_bytes().to_vec().into() };
    values.iter().map(record).collect()
}

#[tokio::test]
async fn records_are_appended_as_lines_to_a_file_or_in_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("dir.d")).unwrap();
    for (path, file) in
        [("a/b/e.ndjson", "a/b/e.ndjson"), ("new", "new/events.ndjson"), ("dir.d", "dir.d/events.ndjson")]
    {
        let producer = open(&folder.path().join(path), json!({ "follow": true })).unwrap();
        producer.send(records(&["{\"a\":1}", "{\"a\":2}"])).await.unwrap();
        producer.send(Vec::new()).await.unwrap();
        producer.send(records(&["{\"a\":3}"])).await.unwrap();
        let text = fs::read_to_string(folder.path().join(file)).unwrap();
        assert_eq!(text, "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n");
    }
}

#[tokio::test]
async fn a_line_that_another_writer_left_unfinished_stays_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("e.ndjson");
    fs::write(&path, "{\"a\":").unwrap();
    open(&path, json!({})).unwrap().send(records(&["{\"b\":1}"])).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"a\":\n{\"b\":1}\n");
}

#[tokio::test]
async fn what_is_no_line_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("e.ndjson");
    let producer = open(&path, json!({})).unwrap();
    for bad in ["{\n}", "", "  "] {
        let error = producer.send(records(&["{}", bad])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    assert!(!path.exists());
    assert_eq!(open(&folder.path().join("t.parquet"), json!({})).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(open(Path::new("s3://b/e"), json!({})).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_at_once_mix_whole_lines_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("e.ndjson");
    let sends: Vec<_> = (0..8)
        .map(|writer| {
            let producer = open(&path, json!({})).unwrap();
            tokio::spawn(async move {
                for _ in 0..5 {
                    let line = format!("{{\"w\":{writer},\"pad\":\"{}\"}}", "x".repeat(500));
                    producer.send(records(&[line.as_str(); 20])).await.unwrap();
                }
            })
        })
        .collect();
    for send in sends {
        send.await.unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count(), 800);
}
