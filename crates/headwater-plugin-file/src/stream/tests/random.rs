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
