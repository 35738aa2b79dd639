//! Memory, spilling, clean-up and progress.

use super::*;

/// Rows of 50 drivers in no order, in fragments that all overlap, and entity rows that ask all over.
fn jumble() -> (Vec<DriverRow>, Vec<(i64, i64)>) {
    let mut state = 7_i64;
    let mut next = move |below: i64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33).rem_euclid(below)
    };
    let rows = (0..20_000).map(|n| (next(50), next(5_000), Some(next(3)), Some(n))).collect();
    (rows, (0..3_000).map(|_| (next(55), next(5_500))).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_spilled_and_joins_alike() {
    let (rows, asked) = jumble();
    let folder = tempfile::tempdir().unwrap();
    let run = async |limit, threads, no_statistics| {
        let mut odd = Odd::new(table(&[("f", &rows)]).with_fragment_rows(1_500));
        odd.no_statistics = no_statistics;
        odd.batch_rows = 400;
        let mut request = request(asks(&asked), drivers(1_000), vec![input(odd, InputKind::Batch)]);
        request.options.memory_limit = limit;
        request.options.threads = Some(threads);
        request.options.temp_dir = Some(folder.path().to_owned());
        request.options.batch_rows = Some(100);
        values(request).await
    };
    let expected = run(None, 1, false).await;
    assert!(expected.iter().flatten().count() > 2_000);
    for (limit, threads, no_statistics) in
        [(1, 1, false), (1, 3, true), (50_000, 2, true), (400_000, 1, true), (1_000_000, 2, false)]
    {
        assert_eq!(run(Some(limit), threads, no_statistics).await, expected, "{limit} {threads} {no_statistics}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spill_that_cannot_be_written_says_so() {
    let (rows, asked) = jumble();
    let mut request = request(asks(&asked), drivers(0), vec![input(table(&[("f", &rows)]), InputKind::Batch)]);
    request.options.memory_limit = Some(1);
    request.options.temp_dir = Some("/does/not/exist".into());
    let (kind, message) = failure(request).await;
    assert_eq!(kind, ErrorKind::Unavailable);
    assert!(message.contains("temporary file"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_or_a_drop_in_the_middle_leaves_nothing_behind() {
    let (rows, asked) = jumble();
    let folder = tempfile::tempdir().unwrap();
    for fail_at in [0, 5, 20] {
        let mut odd = Odd::new(table(&[("f", &rows)]).with_fragment_rows(1_000));
        odd.fail_at_read = Some(fail_at);
        let mut request = request(asks(&asked), drivers(0), vec![input(odd, InputKind::Batch)]);
        request.options.memory_limit = Some(1_000);
        request.options.temp_dir = Some(folder.path().to_owned());
        let (kind, message) = failure(request).await;
        assert_eq!(kind, ErrorKind::Corrupt);
        assert!(message.contains("the disk is tired"), "{message}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
    let mut request = request(asks(&asked), drivers(0), vec![input(table(&[("f", &rows)]), InputKind::Batch)]);
    request.options.temp_dir = Some(folder.path().to_owned());
    let mut set = join(request).await.unwrap();
    assert!(set.next().await.unwrap().is_ok());
    drop(set);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_text_is_put_out_in_several_passes() {
    let rows: Vec<DriverRow> = (0..200).map(|n| (n, 1, None, Some(n))).collect();
    let keys = driver_rows(&rows);
    let long: Vec<String> = (0..200).map(|n| format!("{n:05}").repeat(2_000)).collect();
    let text = batch(vec![
        ("driver", Arc::clone(keys.column(0))),
        ("event_timestamp", Arc::clone(keys.column(1))),
        ("created", Arc::clone(keys.column(2))),
        ("value", Arc::new(StringArray::from(long.clone()))),
    ]);
    let odd = Odd::new(MemoryBatchSource::new("t").with_fragment_rows(50));
    odd.inner.add(SplitId::from("f"), text);
    let reads = Arc::clone(&odd.reads);
    let asked: Vec<(i64, i64)> = (0..200).rev().map(|n| (n, 5)).collect();
    let notes = view("notes", &[("driver", ValueType::Int64)], 0, &[("value", ValueType::String)]);
    let mut request = request(asks(&asked), notes, vec![input(odd, InputKind::Batch)]);
    request.options.memory_limit = Some(1_000_000);
    request.options.batch_rows = Some(20);
    let batches = join(request).await.unwrap().collect().await.unwrap();
    let found: Vec<String> = batches
        .iter()
        .flat_map(|batch| batch.column_by_name("value").unwrap().as_string::<i32>().iter().flatten())
        .map(str::to_owned)
        .collect();
    assert_eq!(found, long.into_iter().rev().collect::<Vec<_>>());
    // Searching and one pass would be eight.
    assert!(reads.load(Ordering::SeqCst) > 8);
}

#[tokio::test]
async fn progress_ends_where_everything_is_done() {
    let (rows, asked) = jumble();
    let heard: Arc<Mutex<Vec<Progress>>> = Arc::default();
    let listener = Arc::clone(&heard);
    let source = table(&[("f", &rows)]).with_fragment_rows(4_000);
    let mut request = request(asks(&asked), drivers(0), vec![input(source, InputKind::Batch)]);
    request.options.progress = Some(Arc::new(move |progress| listener.lock().unwrap().push(progress)));
    values(request).await;
    let heard = heard.lock().unwrap();
    assert_eq!(
        heard.last(),
        Some(&Progress {
            fragments_total: 5,
            fragments_done: 5,
            rows_scanned: 20_000,
            rows_total: 3_000,
            rows_done: 3_000
        })
    );
    assert!(heard.windows(2).all(|pair| pair[0].rows_scanned <= pair[1].rows_scanned));
}
