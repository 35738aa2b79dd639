use headwater_core::ErrorKind;
use serde_json::json;

use super::*;
use crate::stream::pass::{Limits, Outcome, Task};

#[tokio::test]
async fn a_file_is_one_split_and_a_line_one_record() {
    let folder = Folder::new();
    let path = folder.write("e.ndjson", "{\"a\":1}\n{\"a\":22}\n");
    let seen = read_all(&bounded(&path), context()).await.unwrap();
    assert_eq!(names(&seen.assigned), ["e.ndjson"]);
    assert_eq!(seen.assigned[0].resume, Position::START);
    assert_eq!(seen.texts(), ["{\"a\":1}", "{\"a\":22}"]);
    assert_eq!(seen.positions(), [8, 17]);
    assert!(seen.ended.is_empty(), "more may be appended");
    assert!(seen.batches.last().unwrap().lag.unwrap().is_zero());
}

#[tokio::test]
async fn a_directory_is_read_in_the_order_of_relative_paths() {
    let folder = Folder::new();
    for name in ["d/b/2.jsonl", "d/a.json", "d/b/1.ndjson", "d/c.NDJSON"] {
        folder.write(name, format!("{{\"n\":\"{name}\"}}\n"));
    }
    for hidden in ["d/.x.ndjson", "d/_x.ndjson", "d/x.ndjson.tmp", "d/x.csv", "d/.h/x.ndjson", "d/_t/x.ndjson", "d/x"] {
        folder.write(hidden, "{}\n");
    }
    let source = bounded(&folder.path("d"));
    let seen = read_all(&source, context()).await.unwrap();
    assert_eq!(names(&seen.assigned), ["a.json", "b/1.ndjson", "b/2.jsonl", "c.NDJSON"]);
    let files: Vec<&str> = seen.records.iter().map(|(split, ..)| split.as_str()).collect();
    assert_eq!(files, ["a.json", "b%2F1.ndjson", "b%2F2.jsonl", "c.NDJSON"]);
    let discovered: Vec<_> = source.discover().await.unwrap().into_iter().map(|info| info.split).collect();
    assert_eq!(discovered, seen.assigned.iter().map(|split| split.split.clone()).collect::<Vec<_>>());
}

#[tokio::test]
async fn carriage_returns_are_no_part_of_a_line_and_blank_lines_are_stepped_over() {
    let folder = Folder::new();
    let path = folder.write("e.ndjson", "\n{\"a\":1}\r\n\r\n  \n{\"a\":2}\n\n\n");
    let source = bounded(&path);
    let seen = read_all(&source, context()).await.unwrap();
    assert_eq!(seen.texts(), ["{\"a\":1}", "{\"a\":2}"]);
    assert_eq!(seen.positions(), [9, 23]);
    assert_eq!(seen.batches.last().unwrap().through, Position::from_u64(25), "behind the blank lines");
    assert_eq!(source.discover().await.unwrap()[0].end, Some(Position::from_u64(25)));
    // Only blank lines follow: there is no record, but the position moves.
    let seen = read_all(&source, resumed([("e.ndjson", through(23))])).await.unwrap();
    assert!(seen.records.is_empty());
    assert_eq!(seen.batches.last().unwrap().through, Position::from_u64(25));
    // Resuming between the carriage return and the newline.
    let seen = read_all(&source, resumed([("e.ndjson", through(9))])).await.unwrap();
    assert_eq!(seen.texts(), ["{\"a\":2}"]);
}

#[tokio::test]
async fn a_later_run_reads_what_was_added() {
    let folder = Folder::new();
    folder.write("d/a.ndjson", "1\n2\n");
    let source = bounded(&folder.path("d"));
    let first = read_all(&source, context()).await.unwrap();
    assert_eq!(first.texts(), ["1", "2"]);
    let again = read_all(&source, first.resume()).await.unwrap();
    assert_eq!(again.assigned[0].resume, Position::from_u64(4));
    assert!(again.batches.is_empty());
    folder.append("d/a.ndjson", "3\n");
    folder.write("d/b.ndjson", "4\n");
    let later = read_all(&source, first.resume()).await.unwrap();
    assert_eq!(later.texts(), ["3", "4"]);
}

#[tokio::test]
async fn a_closed_object_without_newline_is_delivered_at_the_position_it_will_have() {
    for ending in ["\n", "\r\n"] {
        let folder = Folder::new();
        let path = folder.write("e.ndjson", "{\"a\":1}\n{\"a\":2}");
        let source = bounded(&path);
        assert_eq!(source.discover().await.unwrap()[0].end, Some(Position::from_u64(16)));
        let first = read_all(&source, context()).await.unwrap();
        assert_eq!(first.texts(), ["{\"a\":1}", "{\"a\":2}"]);
        assert_eq!(first.positions(), [8, 16]);
        assert!(first.batches.last().unwrap().lag.unwrap().is_zero());
        assert!(read_all(&source, first.resume()).await.unwrap().records.is_empty());
        folder.append("e.ndjson", format!("{ending}{{\"a\":3}}\n"));
        assert_eq!(read_all(&source, first.resume()).await.unwrap().texts(), ["{\"a\":3}"]);
        let whole = read_all(&source, context()).await.unwrap();
        assert_eq!(whole.positions()[..2], [8, 16]);
    }
}

#[tokio::test]
async fn a_line_that_may_go_on_is_left_for_a_later_run() {
    for tail in ["{\"a\":2", "12", "tru", "{\"a\":\"}", "[1]"] {
        let folder = Folder::new();
        let path = folder.write("e.ndjson", format!("{{\"a\":1}}\n{tail}"));
        let source = bounded(&path);
        let first = read_all(&source, context()).await.unwrap();
        assert_eq!(first.texts(), ["{\"a\":1}"], "{tail}");
        assert_eq!(source.discover().await.unwrap()[0].end, Some(Position::from_u64(8)));
        assert!(first.batches.last().unwrap().lag.unwrap().is_zero());
        folder.append("e.ndjson", "}\n");
        assert_eq!(read_all(&source, first.resume()).await.unwrap().texts(), [format!("{tail}}}")]);
    }
}

#[tokio::test]
async fn a_file_that_does_not_continue_what_was_read_has_lost_the_position() {
    let folder = Folder::new();
    let path = folder.write("e.ndjson", "{\"a\":1}\n");
    for (position, why) in [(4, "no line that ends"), (10, "shorter"), (100, "shorter")] {
        let error = read_all(&bounded(&path), resumed([("e.ndjson", through(position))])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PositionLost, "{position}");
        assert!(error.to_string().contains(why) && error.to_string().contains("e.ndjson"), "{error}");
    }
    // The last line had no newline, and was continued all the same.
    folder.write("e.ndjson", "{\"a\":1}");
    let first = read_all(&bounded(&path), context()).await.unwrap();
    folder.append("e.ndjson", "{\"b\":1}\n");
    assert_eq!(read_all(&bounded(&path), first.resume()).await.unwrap_err().kind(), ErrorKind::PositionLost);
    // A position that another source would have.
    let wrong = resumed([("e.ndjson", Progress::Through(Position::new(vec![1, 2, 3])))]);
    assert_eq!(read_all(&bounded(&path), wrong).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn bytes_that_are_no_text_are_passed_on() {
    let folder = Folder::new();
    let path = folder.write("e.ndjson", b"\xff\xfe\x00\n{\"a\":1}\n");
    let seen = read_all(&bounded(&path), context()).await.unwrap();
    let Payload::Encoded(values) = &seen.batches[0].payload else { panic!() };
    assert_eq!(values.value(0), b"\xff\xfe\x00");
    assert_eq!(seen.records.len(), 2);
}

#[tokio::test]
async fn batches_keep_within_their_limits_and_a_longer_line_comes_alone() {
    let folder = Folder::new();
    let long = format!("\"{}\"", "x".repeat(100_000));
    let short: String = (0..1000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let path = folder.write("e.ndjson", format!("{short}{long}\n{short}"));
    let limits = ReaderContext { buffer_bytes: 16_000, batch_records: 70, ..context() };
    let seen = read_all(&bounded(&path), limits).await.unwrap();
    assert_eq!(seen.records.len(), 2001);
    assert_eq!(seen.records[1000].2, long);
    for batch in &seen.batches {
        assert!(batch.payload.len() <= 70);
        assert!(batch.payload.bytes() < 4000 + 2000 || batch.payload.bytes() > 100_000, "{}", batch.payload.bytes());
    }
    let lags: Vec<u64> = seen.batches.iter().map(|batch| batch.lag.unwrap().bytes.unwrap()).collect();
    assert!(lags.is_sorted_by(|a, b| a > b), "the lag shrinks");
    assert_eq!(lags.last(), Some(&0));
}

#[test]
fn a_line_beyond_all_bounds_is_cut_and_the_next_one_is_whole() {
    let folder = Folder::new();
    let path = folder.write("e.ndjson", format!("{}\n{{\"a\":1}}\n", "y".repeat(50_000)));
    let (batches, mut receiver) = tokio::sync::mpsc::channel(10);
    let limits = Limits { line: 10_000, ..Limits::new(100, 20_000) };
    let split = SplitId::from("e");
    let outcome =
        crate::stream::lines::read(&Task { split, path, from: 0, inode: None, follow: false, limits, batches });
    assert!(matches!(outcome, Ok(Outcome::Read(_))));
    let mut seen = Seen::default();
    while let Ok(batch) = receiver.try_recv() {
        seen.take(StreamEvent::Batch(batch));
    }
    assert_eq!(seen.positions(), [50_001, 50_009]);
    assert!(seen.records[0].2.len() < 20_000);
    assert_eq!(seen.records[1].2, "{\"a\":1}");
}

#[tokio::test]
async fn start_is_for_splits_that_were_never_read() {
    let folder = Folder::new();
    folder.write("d/a.ndjson", "1\n2\n");
    let source = bounded(&folder.path("d"));
    let latest = ReaderContext { start: StartPosition::Latest, ..context() };
    let seen = read_all(&source, latest.clone()).await.unwrap();
    assert!(seen.records.is_empty());
    assert_eq!(seen.assigned[0].resume, Position::from_u64(4), "resolved, so that a restart loses nothing");
    folder.append("d/a.ndjson", "3\n");
    folder.write("d/b.ndjson", "4\n");
    let latest = ReaderContext { start: StartPosition::Latest, ..seen.resume() };
    let seen = read_all(&source, latest).await.unwrap();
    assert_eq!(seen.texts(), ["3", "4"], "the new split begins at its beginning");
}

#[tokio::test]
async fn starting_at_a_time_passes_over_files_last_changed_before_it() {
    let folder = Folder::new();
    for (name, seconds) in [("a", 1000), ("b", 3000)] {
        let path = folder.write(&format!("d/{name}.ndjson"), format!("\"{name}\"\n"));
        let file = fs::File::options().append(true).open(path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }
    let at = |seconds: i64| ReaderContext { start: StartPosition::At(seconds * 1_000_000), ..context() };
    let source = bounded(&folder.path("d"));
    assert_eq!(read_all(&source, at(2000)).await.unwrap().texts(), ["\"b\""]);
    assert_eq!(read_all(&source, at(1000)).await.unwrap().texts(), ["\"a\"", "\"b\""]);
    assert!(read_all(&source, at(4000)).await.unwrap().texts().is_empty());
}

#[tokio::test]
async fn a_path_that_is_missing_or_wrong_is_named() {
    let folder = Folder::new();
    let missing = bounded(&folder.path("no.ndjson"));
    for error in [missing.discover().await.unwrap_err(), missing.subscribe(context()).await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("no.ndjson"), "{error}");
    }
    let kind = |path: &str, options| open(Path::new(path), options).unwrap_err().kind();
    assert_eq!(kind("s3://bucket/events", json!({})), ErrorKind::Unsupported);
    assert_eq!(kind("events.csv", json!({})), ErrorKind::Unsupported);
    assert_eq!(kind("", json!({})), ErrorKind::Invalid);
    assert_eq!(kind("e.ndjson", json!({ "poll_interval": "0s" })), ErrorKind::Invalid);
    assert_eq!(kind("e.ndjson", json!({ "format": "csv" })), ErrorKind::Invalid);
}

#[tokio::test]
async fn an_empty_directory_and_an_empty_file_have_no_records() {
    let folder = Folder::new();
    fs::create_dir(folder.path("d")).unwrap();
    let source = bounded(&folder.path("d"));
    assert!(read_all(&source, context()).await.unwrap().assigned.is_empty());
    folder.write("d/a.ndjson", "");
    let seen = read_all(&source, context()).await.unwrap();
    assert_eq!(seen.assigned.len(), 1);
    assert!(seen.records.is_empty());
    let info = source.discover().await.unwrap();
    assert_eq!(info[0].end, Some(Position::START));
    assert!(!info[0].closed);
}

#[tokio::test]
async fn the_identity_is_the_path_as_configured() {
    assert_eq!(bounded(Path::new("data/events.ndjson")).identity(), "data/events.ndjson");
    assert!(bounded(Path::new("data/events.ndjson")).schema().await.unwrap().is_none());
}
