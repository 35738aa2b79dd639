//! Random appends, restarts and dropped calls: every line comes once, in order.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// Append this many lines to a file, the last one perhaps without its end.
    Append { file: usize, lines: usize, cut: bool },
    /// Read this many events, dropping every call that is not ready at once this many times before.
    Read { events: usize, drops: usize },
    /// Drop the reader and start another where the last one had come to.
    Restart { keep: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0_usize..3, 0_usize..30, any::<bool>()).prop_map(|(file, lines, cut)| Step::Append { file, lines, cut }),
        (1_usize..6, 0_usize..4).prop_map(|(events, drops)| Step::Read { events, drops }),
        any::<bool>().prop_map(|keep| Step::Restart { keep }),
    ];
    prop::collection::vec(step, 1..40)
}

/// A writer that may stop in the midst of a line.
#[derive(Debug, Default)]
struct Writer {
    lines: usize,
    pending: String,
}

impl Writer {
    fn append(&mut self, folder: &Folder, file: usize, lines: usize, cut: bool) {
        let mut text = std::mem::take(&mut self.pending);
        for _ in 0..lines {
            let ending = ["\n", "\r\n", "\n\n", "\n  \n"][self.lines % 4];
            text +=
                &format!("{{\"f\":{file},\"n\":{},\"pad\":\"{}\"}}{ending}", self.lines, "é".repeat(self.lines % 17));
            self.lines += 1;
        }
        if cut {
            let mut at = text.len() / 2;
            while !text.is_char_boundary(at) {
                at += 1;
            }
            self.pending = text.split_off(at);
        }
        folder.append(&format!("d/{file}.ndjson"), text);
    }
}

async fn play(steps: Vec<Step>, follow: bool) {
    let folder = Folder::new();
    fs::create_dir(folder.path("d")).unwrap();
    let source = if follow { followed(&folder.path("d")) } else { bounded(&folder.path("d")) };
    let mut writers: [Writer; 3] = Default::default();
    let mut seen = Seen::default();
    let small = |seen: &Seen| ReaderContext { batch_records: 5, buffer_bytes: 2000, ..seen.resume() };
    let mut reader = source.subscribe(small(&seen)).await.unwrap();
    for step in steps {
        match step {
            Step::Append { file, lines, cut } => writers[file].append(&folder, file, lines, cut),
            Step::Read { events, drops } => {
                for _ in 0..events {
                    for _ in 0..drops {
                        match futures::FutureExt::now_or_never(reader.next()) {
                            Some(Ok(Some(event))) => seen.take(event),
                            Some(other) => assert!(other.unwrap().is_none()),
                            None => tokio::task::yield_now().await,
                        }
                    }
                    match tokio::time::timeout(Duration::from_millis(3), reader.next()).await {
                        Ok(event) => match event.unwrap() {
                            Some(event) => seen.take(event),
                            None => break,
                        },
                        Err(_) => break,
                    }
                }
            }
            Step::Restart { keep } => {
                if keep {
                    reader.close().await.unwrap();
                }
                reader = source.subscribe(small(&seen)).await.unwrap();
            }
        }
    }
    for (file, writer) in writers.iter_mut().enumerate() {
        writer.append(&folder, file, 0, false);
    }
    let rest = read_all(&bounded(&folder.path("d")), small(&seen)).await.unwrap();
    seen.records.extend(rest.records);
    for (file, writer) in writers.iter().enumerate() {
        let got: Vec<_> = seen.records.iter().filter(|(split, ..)| *split == format!("{file}.ndjson")).collect();
        let numbers: Vec<usize> = got
            .iter()
            .map(|(_, _, text)| serde_json::from_str::<serde_json::Value>(text).unwrap()["n"].as_u64().unwrap())
            .map(|n| usize::try_from(n).unwrap())
            .collect();
        assert_eq!(numbers, (0..writer.lines).collect::<Vec<_>>());
        assert!(got.is_sorted_by(|a, b| a.1 < b.1), "positions ascend");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_line_comes_once_and_in_order(steps in steps(), follow in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(play(steps, follow));
    }
}

/// The rows of a directory's Parquet files as the stream and as the table give them: split, position, number.
async fn both_ways(files: &[(i64, usize)], batch_records: usize, stops: &[usize]) {
    let folder = Folder::new();
    fs::create_dir(folder.path("d")).unwrap();
    let mut expected = Vec::new();
    let mut next = 0;
    for (index, (count, group_rows)) in files.iter().enumerate() {
        let name = format!("{index:02}.parquet");
        folder.write(
            &format!("d/{name}"),
            super::parquet::encode(&super::parquet::rows(next..next + count), *group_rows),
        );
        expected.extend((0..*count).map(|row| (name.clone(), u64::try_from(row + 1).unwrap(), next + row)));
        next += count;
    }
    let path = folder.path("d");

    let source = open(&path, serde_json::json!({ "format": "parquet" })).unwrap();
    let mut streamed = Vec::new();
    let mut progress = BTreeMap::new();
    // Each reader is dropped after some events, and the next one resumes behind what was taken.
    for stop in stops.iter().copied().chain([usize::MAX]) {
        let checkpoints = Arc::new(FixedCheckpoints { splits: progress.clone(), ..FixedCheckpoints::default() });
        let mut reader = source.subscribe(ReaderContext { checkpoints, batch_records, ..context() }).await.unwrap();
        for _ in 0..stop {
            let Some(event) = reader.next().await.unwrap() else { break };
            match event {
                StreamEvent::Batch(batch) => {
                    let Payload::Rows(rows) = &batch.payload else { panic!("no rows") };
                    let numbers = rows["n"].as_primitive::<arrow::datatypes::Int64Type>().values();
                    for (number, at) in numbers.iter().zip(batch.positions.iter()) {
                        let at = Position::new(at.unwrap().to_vec()).to_u64().unwrap();
                        streamed.push((batch.split.to_string(), at, *number));
                    }
                    progress.insert(batch.split, Progress::Through(batch.through));
                }
                StreamEvent::SplitEnded(split) => drop(progress.insert(split, Progress::End)),
                StreamEvent::Assigned(_) | StreamEvent::Revoked { .. } => {}
            }
        }
    }
    assert_eq!(streamed, expected);

    use futures::TryStreamExt;
    use headwater_core::BatchSource;
    use headwater_core::batch::{Positions, ScanRequest};
    let options = [("path".to_owned(), serde_json::Value::from(path.to_str().unwrap()))].into();
    let config = Config { name: "t".into(), options, base_dir: ".".into() };
    let table = crate::FileBatchSource::open(&crate::FileBatchConfig::from_config(&config).unwrap(), &config).unwrap();
    let mut scanned = Vec::new();
    let request = ScanRequest { columns: Some(vec!["n".into()]), ..ScanRequest::default() };
    for fragment in table.fragments(&request).await.unwrap() {
        let batches: Vec<_> = table.read(&fragment, &request).await.unwrap().try_collect().await.unwrap();
        for batch in batches {
            let Positions::Consecutive(first) = batch.positions else { panic!("rows are counted") };
            let numbers = batch.rows["n"].as_primitive::<arrow::datatypes::Int64Type>().values();
            scanned.extend(numbers.iter().zip(first..).map(|(number, at)| (fragment.split.to_string(), at, *number)));
        }
    }
    assert_eq!(scanned, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn parquet_rows_come_once_with_the_same_place_in_stream_and_table(
        files in prop::collection::vec((0_i64..60, 1_usize..40), 1..5),
        batch_records in 1_usize..50,
        stops in prop::collection::vec(1_usize..8, 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(both_ways(&files, batch_records, &stops));
    }
}
