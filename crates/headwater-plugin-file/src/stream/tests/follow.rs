use headwater_core::ErrorKind;

use super::*;

#[tokio::test]
async fn a_file_that_grows_is_read_on_and_an_unfinished_line_is_waited_for() {
    let folder = Folder::new();
    let path = folder.write("e.ndjson", "1\n{\"a\":2}");
    let source = followed(&path);
    assert!(!source.capabilities().bounded);
    assert_eq!(source.discover().await.unwrap()[0].end, Some(Position::from_u64(2)));
    let mut reader = source.subscribe(context()).await.unwrap();
    let mut seen = Seen::default();
    read_until(&mut reader, &mut seen, 1).await;
    assert!(tokio::time::timeout(Duration::from_millis(20), reader.next()).await.is_err(), "nothing is complete");
    folder.append("e.ndjson", "\n3\n4");
    read_until(&mut reader, &mut seen, 3).await;
    folder.append("e.ndjson", "4\n");
    read_until(&mut reader, &mut seen, 4).await;
    assert_eq!(seen.texts(), ["1", "{\"a\":2}", "3", "44"]);
    assert_eq!(seen.positions(), [2, 10, 12, 15]);
    reader.close().await.unwrap();
}

#[tokio::test]
async fn a_directory_that_fills_and_a_path_that_appears_are_picked_up() {
    let folder = Folder::new();
    let source = followed(&folder.path("d"));
    assert!(source.discover().await.unwrap().is_empty());
    let latest = ReaderContext { start: StartPosition::Latest, ..context() };
    let mut reader = source.subscribe(latest).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(20), reader.next()).await.is_err());
    let mut seen = Seen::default();
    folder.write("d/b.ndjson", "1\n");
    read_until(&mut reader, &mut seen, 1).await;
    folder.write("d/a/x.ndjson", "2\n");
    read_until(&mut reader, &mut seen, 2).await;
    folder.append("d/b.ndjson", "3\n");
    read_until(&mut reader, &mut seen, 3).await;
    assert_eq!(seen.texts(), ["1", "2", "3"]);
    assert!(seen.assigned.iter().all(|split| split.resume == Position::START), "new splits begin at their beginning");
}

async fn error_of(reader: &mut Box<dyn StreamReader>) -> Error {
    let wait = async {
        loop {
            if let Err(error) = reader.next().await {
                return error;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap()
}

#[tokio::test]
async fn a_file_that_is_truncated_or_replaced_has_lost_the_position() {
    for how in ["truncated", "rewritten", "replaced", "continued elsewhere"] {
        let folder = Folder::new();
        let path = folder.write("e.ndjson", "{\"a\":1}\n{\"a\":2}\n");
        let mut reader = followed(&path).subscribe(context()).await.unwrap();
        read_until(&mut reader, &mut Seen::default(), 2).await;
        match how {
            "truncated" => drop(folder.write("e.ndjson", "")),
            "rewritten" => drop(folder.write("e.ndjson", "{\"something\":\"else\",\"and\":\"more\"}\n")),
            "replaced" => fs::rename(folder.write("new", "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n"), &path).unwrap(),
            _ => {
                // Made first: a system may give a new file the number of one just deleted.
                let other = folder.write("other", "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n");
                fs::remove_file(&path).unwrap();
                fs::rename(other, &path).unwrap();
            }
        }
        let error = error_of(&mut reader).await;
        assert_eq!(error.kind(), ErrorKind::PositionLost, "{how}: {error}");
        assert!(reader.next().await.unwrap().is_none(), "done after a permanent error");
    }
}

#[tokio::test]
async fn a_file_that_is_deleted_is_forgotten() {
    let folder = Folder::new();
    folder.write("d/a.ndjson", "1\n");
    let mut reader = followed(&folder.path("d")).subscribe(context()).await.unwrap();
    let mut seen = Seen::default();
    read_until(&mut reader, &mut seen, 1).await;
    fs::remove_file(folder.path("d/a.ndjson")).unwrap();
    folder.write("d/b.ndjson", "2\n");
    read_until(&mut reader, &mut seen, 2).await;
    assert_eq!(seen.texts(), ["1", "2"]);
}

#[tokio::test]
async fn calls_that_are_dropped_lose_nothing() {
    let folder = Folder::new();
    for file in 0..5 {
        let lines: String = (0..100).map(|n| format!("{}\n", file * 100 + n)).collect();
        folder.write(&format!("d/{file}.ndjson"), lines);
    }
    let small = ReaderContext { batch_records: 7, ..context() };
    let mut reader = followed(&folder.path("d")).subscribe(small).await.unwrap();
    let mut seen = Seen::default();
    let mut dropped = 0;
    while seen.records.len() < 500 {
        // Polled once, then dropped: whatever it waited for must go on without it.
        let event = futures::FutureExt::now_or_never(reader.next());
        match event {
            Some(event) => seen.take(event.unwrap().unwrap()),
            None => {
                dropped += 1;
                tokio::task::yield_now().await;
            }
        }
    }
    assert!(dropped > 0);
    let expected: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    assert_eq!(seen.texts(), expected);
    assert_eq!(seen.assigned.len(), 5);
}

#[tokio::test]
async fn no_more_than_the_buffer_is_read_ahead() {
    let folder = Folder::new();
    let path = folder.write("e.ndjson", "{\"a\":\"0123456789\"}\n".repeat(100_000));
    let bounds = ReaderContext { buffer_bytes: 100_000, batch_records: usize::MAX, ..context() };
    let mut reader = bounded(&path).subscribe(bounds).await.unwrap();
    let mut total = 0;
    while let Some(event) = reader.next().await.unwrap() {
        if let StreamEvent::Batch(batch) = event {
            // One is being filled, two wait, and the file's own buffer: together the bound.
            assert!(batch.payload.bytes() + batch.positions.get_array_memory_size() <= 50_000 + 5_000);
            total += batch.payload.len();
        }
    }
    assert_eq!(total, 100_000);
}
