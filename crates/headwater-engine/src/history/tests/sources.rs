//! What sources may look like, and what is not read of them.

use super::*;

#[tokio::test]
async fn a_table_that_does_not_exist_has_no_rows() {
    let inputs = vec![input(MemoryBatchSource::new("nothing"), InputKind::Batch)];
    assert_eq!(values(request(asks(&[(1, 1)]), drivers(0), inputs)).await, [None]);
}

#[tokio::test]
async fn columns_are_found_under_their_name_in_the_table() {
    let rows = batch(vec![("id", ints([1])), ("at", times([1])), ("created", times([1])), ("v", ints([7]))]);
    let source = MemoryBatchSource::new("t");
    source.add(SplitId::from("f"), rows);
    let mut renamed = input(source, InputKind::Batch);
    renamed.columns = [("driver", "id"), ("event_timestamp", "at"), ("value", "v")]
        .map(|(view, table)| (view.to_owned(), table.to_owned()))
        .into();
    assert_eq!(values(request(asks(&[(1, 1)]), drivers(0), vec![renamed])).await, [Some(7)]);
}

#[tokio::test]
async fn a_log_may_lack_newer_features_and_a_batch_source_may_not() {
    let old = || {
        let source = MemoryBatchSource::new("old");
        let rows = batch(vec![("driver", ints([1])), ("event_timestamp", times([5])), ("created", times([5]))]);
        source.add(SplitId::from("f"), rows);
        source
    };
    // The older row with a value loses against the newer one without: rows are taken whole.
    let batch_rows = || input(table(&[("f", &[(1, 3, None, Some(7))])]), InputKind::Batch);
    let both = vec![batch_rows(), input(old(), InputKind::Log)];
    assert_eq!(values(request(asks(&[(1, 4), (1, 5)]), drivers(0), both)).await, [Some(7), None]);
    let (kind, message) = failure(request(asks(&[(1, 4)]), drivers(0), vec![input(old(), InputKind::Batch)])).await;
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(message.contains("`old`") && message.contains("`value`"), "{message}");
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_named_with_file_row_and_value() {
    let text = |columns: Vec<(&'static str, ArrayRef)>| {
        let source = MemoryBatchSource::new("drivers.csv");
        source.add(SplitId::from("f"), batch(columns));
        request(asks(&[(1, 9)]), drivers(0), vec![input(source, InputKind::Batch)])
    };
    let strings = |values: [&str; 2]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    for (key, time, value, bad) in [
        (["1", "x1"], times([1, 2]), strings(["1", "2"]), "`x1`"),
        (["1", "1"], strings(["1970-01-01", "tomorrow"]), strings(["1", "2"]), "`tomorrow`"),
        (["1", "1"], times([1, 2]), strings(["1", "two"]), "`two`"),
    ] {
        let columns = vec![
            ("driver", strings(key)),
            ("event_timestamp", time),
            ("created", times([None, None])),
            ("value", value),
        ];
        let (kind, message) = failure(text(columns)).await;
        assert_eq!(kind, ErrorKind::Data);
        assert!(["`drivers.csv`", "row 2", bad].iter().all(|part| message.contains(part)), "{message}");
    }
}

#[tokio::test]
async fn rows_without_key_or_time_answer_nobody() {
    let rows = batch(vec![
        ("driver", ints([None, Some(1), Some(1)])),
        ("event_timestamp", times([Some(2), None, Some(1)])),
        ("created", times([None, None, None])),
        ("value", ints([1, 2, 3])),
    ]);
    let source = MemoryBatchSource::new("t");
    source.add(SplitId::from("f"), rows);
    assert_eq!(values(request(asks(&[(1, 9)]), drivers(0), vec![input(source, InputKind::Batch)])).await, [Some(3)]);
}

#[tokio::test]
async fn fragments_outside_of_the_asked_times_and_keys_are_not_read() {
    // Ten fragments: driver n has a row at each time n * 100 .. n * 100 + 9.
    let rows: Vec<DriverRow> = (0..100).map(|n| (n / 10, n / 10 * 100 + n % 10, None, Some(n))).collect();
    let reads = |asked: &'static [(i64, i64)], ttl| {
        let odd = Odd::new(table(&[("f", &rows)]).with_fragment_rows(10));
        let counter = Arc::clone(&odd.reads);
        async move {
            values(request(asks(asked), drivers(ttl), vec![input(odd, InputKind::Batch)])).await;
            counter.load(Ordering::SeqCst)
        }
    };
    // One fragment, once for its times and once for its features.
    assert_eq!(reads(&[(4, 405)], 0).await, 2);
    assert_eq!(reads(&[(4, 399)], 0).await, 0);
    assert_eq!(reads(&[(4, 409), (5, 900)], 0).await, 4);
    assert_eq!(reads(&[(4, 1000)], 100).await, 0);
    assert_eq!(reads(&[(77, 1000)], 0).await, 0);
}

#[tokio::test]
async fn statistics_that_lie_are_an_error_and_never_a_wrong_answer() {
    let mut odd = Odd::new(table(&[("f", &[(1, 5, None, Some(7))])]));
    odd.lie = Some(6);
    let (kind, message) = failure(request(asks(&[(1, 9)]), drivers(0), vec![input(odd, InputKind::Batch)])).await;
    assert_eq!(kind, ErrorKind::Data);
    assert!(message.contains("statistics"), "{message}");
}

#[tokio::test]
async fn a_table_that_changes_meanwhile_is_a_conflict() {
    let mut odd = Odd::new(table(&[("f", &[(1, 5, None, Some(7)), (1, 6, None, Some(8))])]));
    odd.shrinks = true;
    let (kind, _) = failure(request(asks(&[(1, 5)]), drivers(0), vec![input(odd, InputKind::Batch)])).await;
    assert_eq!(kind, ErrorKind::Conflict);
}
