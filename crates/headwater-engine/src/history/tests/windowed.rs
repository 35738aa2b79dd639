//! The features of windowed views, where they are simple enough to say what they are.

use headwater_core::definitions::AggregateFunction;

use super::*;
use crate::warnings;
use crate::windows::{Window, WindowFeature, Windows};

/// A view over the rows of [`driver_rows`] with these features of the column `value`, or of the rows.
pub(super) fn windowed(features: &[(&str, AggregateFunction, Option<Window>)]) -> Arc<View> {
    let all: Vec<WindowFeature> = features
        .iter()
        .map(|(name, function, window)| WindowFeature {
            field: Field::new(*name, ValueType::Int64),
            function: *function,
            column: (*function != AggregateFunction::Count).then_some(0),
            window: *window,
        })
        .collect();
    let mut view = View::clone(&drivers(0));
    view.features = all.iter().map(|feature| feature.field.clone()).collect();
    let columns = vec![Field::new("value", ValueType::Int64)];
    view.windows = Some(Arc::new(Windows { columns, features: all, fingerprint: "w".into() }));
    Arc::new(view)
}

const TEN: Option<Window> = Some(Window { length: 10, hop: 5 });

fn counts() -> Arc<View> {
    let (count, sum) = (AggregateFunction::Count, AggregateFunction::Sum);
    windowed(&[("count", count, TEN), ("sum", sum, TEN), ("ever", count, None)])
}

fn asked_for(
    view: Arc<View>,
    inputs: Vec<HistoryInput>,
    asked: &[(i64, i64)],
    log_from: Option<i64>,
) -> HistoryRequest {
    let features = view.features.iter().map(|feature| wanted(0, &feature.name)).collect();
    HistoryRequest {
        features,
        views: vec![JoinView { view: Arc::clone(&view), inputs, log_from }],
        ..request(asks(asked), view, vec![])
    }
}

async fn columns<const N: usize>(request: HistoryRequest, names: [&str; N]) -> [Vec<Option<i64>>; N] {
    let batches = join(request).await.unwrap().collect().await.unwrap();
    names.map(|name| column(&batches, name))
}

#[tokio::test]
async fn a_window_is_a_sawtooth() {
    let rows: Vec<DriverRow> = (0..40).map(|time| (1, time, None, Some(time))).collect();
    let source = || vec![input(table(&[("f", &rows)]), InputKind::Batch)];
    // At 23 from floor(13, 5) = 10 on, at 24 too, at 25 from 15.
    let asked = [(1, 23), (1, 24), (1, 25), (1, 0), (1, -1), (1, 100), (2, 23)];
    let [count, sum, ever] = columns(asked_for(counts(), source(), &asked, None), ["count", "sum", "ever"]).await;
    assert_eq!(count, [14, 15, 11, 1, 0, 0, 0].map(Some));
    assert_eq!(sum, [Some((10..=23).sum()), Some((10..=24).sum()), Some((15..=25).sum()), Some(0), None, None, None]);
    assert_eq!(ever, [24, 25, 26, 1, 0, 40, 0].map(Some));
}

#[tokio::test]
async fn batch_rows_count_before_the_meeting_and_log_rows_from_it_on() {
    let batch_rows: Vec<DriverRow> = (0..20).map(|time| (1, time, None, Some(1))).collect();
    let log_rows: Vec<DriverRow> = (0..20).map(|time| (1, time, None, Some(100))).collect();
    for (log_from, sum) in
        [(None, 20), (Some(i64::MIN), 2000), (Some(0), 2000), (Some(8), 8 + 1200), (Some(20), 20), (Some(99), 20)]
    {
        let inputs = vec![
            input(table(&[("f", &batch_rows)]).with_fragment_rows(3), InputKind::Batch),
            input(table(&[("shard", &log_rows)]).with_fragment_rows(3), InputKind::Log),
        ];
        let view = windowed(&[("sum", AggregateFunction::Sum, None)]);
        let [sums] = columns(asked_for(view, inputs, &[(1, 50)], log_from), ["sum"]).await;
        assert_eq!(sums, [Some(sum)], "{log_from:?}");
    }
}

#[tokio::test]
async fn a_row_counts_from_its_created_time_on_where_that_is_asked_for() {
    let rows = [(1, 10, Some(30), Some(1)), (1, 12, None, Some(10)), (1, 20, Some(5), Some(100))];
    let source = vec![input(table(&[("f", &rows)]), InputKind::Batch)];
    let view = windowed(&[
        ("sum", AggregateFunction::Sum, None),
        ("last", AggregateFunction::Last, None),
        ("near", AggregateFunction::Sum, TEN),
    ]);
    let mut request = asked_for(view, source, &[(1, 15), (1, 29), (1, 30)], None);
    request.options.filter_by_created_timestamp = true;
    let [sum, last, near] = columns(request, ["sum", "last", "near"]).await;
    assert_eq!(sum, [10, 110, 111].map(Some));
    assert_eq!(last, [10, 100, 100].map(Some));
    // At 29 from 15 on, at 30 from 20.
    assert_eq!(near, [10, 100, 100].map(Some));
}

#[tokio::test]
async fn results_beyond_their_type_are_null_and_warned_of() {
    let rows = [(1, 10, None, Some(i64::MAX)), (1, 20, None, Some(1))];
    let source = vec![input(table(&[("f", &rows)]), InputKind::Batch)];
    let view = windowed(&[("sum", AggregateFunction::Sum, None)]);
    warnings::listen();
    let set = join(asked_for(view, source, &[(1, 15), (1, 25), (1, 30)], None)).await.unwrap();
    assert_eq!(*set.overflows(), [("drivers".to_owned(), 2)].into());
    assert_eq!(column(&set.collect().await.unwrap(), "sum"), [Some(i64::MAX), None, None]);
    let heard = warnings::heard();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].contains("2 results are beyond the types") && heard[0].contains("view=drivers"), "{heard:?}");
}

#[tokio::test]
async fn windowed_and_plain_views_are_joined_in_one_request() {
    let rows = [(1, 10, None, Some(7)), (1, 20, None, None), (2, 20, None, Some(9))];
    let source = || vec![input(table(&[("f", &rows)]), InputKind::Batch)];
    let asked = [(2, 25), (1, 25), (1, 12), (3, 25)];
    let mut request = asked_for(counts(), source(), &asked, None);
    request.views.insert(0, JoinView { view: drivers(0), inputs: source(), log_from: None });
    request.views.push(JoinView { view: counts(), inputs: source(), log_from: None });
    request.features = vec![
        RequestedFeature { output: "again".into(), ..wanted(2, "ever") },
        wanted(1, "sum"),
        wanted(0, "value"),
        wanted(1, "count"),
    ];
    let [again, sum, value, count] = columns(request, ["again", "sum", "value", "count"]).await;
    assert_eq!(again, [1, 2, 1, 0].map(Some));
    assert_eq!(sum, [Some(9), None, Some(7), None]);
    assert_eq!(value, [Some(9), None, Some(7), None]);
    assert_eq!(count, [1, 1, 1, 0].map(Some));
}

#[tokio::test]
async fn fragments_that_no_window_reaches_are_not_read() {
    // Ten fragments: driver n has a row at each time n * 100 .. n * 100 + 9.
    let rows: Vec<DriverRow> = (0..100).map(|n| (n / 10, n / 10 * 100 + n % 10, None, Some(n))).collect();
    let reads = |features: &'static [&str], asked: &'static [(i64, i64)], log_from| {
        let odd = Odd::new(table(&[("f", &rows)]).with_fragment_rows(10));
        let counter = Arc::clone(&odd.reads);
        async move {
            let mut request = asked_for(counts(), vec![input(odd, InputKind::Batch)], asked, log_from);
            request.features = features.iter().map(|feature| wanted(0, feature)).collect();
            join(request).await.unwrap().collect().await.unwrap();
            counter.load(Ordering::SeqCst)
        }
    };
    assert_eq!(reads(&["sum"], &[(4, 405)], None).await, 1);
    assert_eq!(reads(&["sum"], &[(4, 430)], None).await, 0);
    // The keys' bounds leave two fragments, and only one lies before the meeting.
    assert_eq!(reads(&["ever"], &[(4, 900), (5, 900)], None).await, 2);
    assert_eq!(reads(&["ever"], &[(4, 900), (5, 900)], Some(450)).await, 1);
}

#[tokio::test]
async fn a_column_that_a_batch_source_lacks_is_named() {
    let source = MemoryBatchSource::new("old");
    let rows = batch(vec![("driver", ints([1])), ("event_timestamp", times([5])), ("created", times([5]))]);
    source.add(SplitId::from("f"), rows);
    let (kind, message) = failure(asked_for(counts(), vec![input(source, InputKind::Batch)], &[(1, 9)], None)).await;
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(message.contains("`old`") && message.contains("`value`"), "{message}");
}

/// Rows of 50 drivers in no order, in fragments that all overlap, and entity rows that ask all over.
fn jumble() -> (Vec<DriverRow>, Vec<(i64, i64)>) {
    let mut state = 7_i64;
    let mut next = move |below: i64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33).rem_euclid(below)
    };
    let rows = (0..20_000).map(|n| (next(50), next(5_000), Some(next(3)), Some(n))).collect();
    (rows, (0..9_000).map(|_| (next(55), next(5_500))).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_spilled_and_counted_alike() {
    let (rows, asked) = jumble();
    let folder = tempfile::tempdir().unwrap();
    let run = async |limit, threads| {
        let mut odd = Odd::new(table(&[("f", &rows)]).with_fragment_rows(1_500));
        odd.batch_rows = 400;
        let view = windowed(&[
            ("sum", AggregateFunction::Sum, Some(Window { length: 1_000, hop: 70 })),
            ("last", AggregateFunction::Last, Some(Window { length: 100, hop: 100 })),
            ("count", AggregateFunction::Count, None),
        ]);
        let mut request = asked_for(view, vec![input(odd, InputKind::Batch)], &asked, None);
        request.options.memory_limit = limit;
        request.options.threads = Some(threads);
        request.options.temp_dir = Some(folder.path().to_owned());
        request.options.batch_rows = Some(1_000);
        columns(request, ["sum", "last", "count"]).await
    };
    let expected = run(None, 1).await;
    assert!(expected[0].iter().flatten().count() > 7_000);
    for (limit, threads) in [(1, 1), (1, 3), (50_000, 2), (400_000, 1), (2_000_000, 2)] {
        assert_eq!(run(Some(limit), threads).await, expected, "{limit} {threads}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn long_answers_do_not_wait_in_memory_beyond_its_limit() {
    // A list of 8 kB for each entity row, 8 MB in all, and memory for half of that.
    let (long, limit) = (1_000, 4_000_000);
    let rows: Vec<DriverRow> = (0..long).map(|time| (1, time, None, Some(time))).collect();
    let asked: Vec<(i64, i64)> = (0..1_000).map(|row| (1, long + row)).collect();
    let request = || {
        let mut view = View::clone(&windowed(&[("list", AggregateFunction::LastN { n: 1_000 }, None)]));
        let list = ValueType::Array(Box::new(ValueType::Int64));
        view.features[0].dtype = list.clone();
        Arc::make_mut(view.windows.as_mut().unwrap()).features[0].field.dtype = list;
        let source = vec![input(table(&[("f", &rows)]), InputKind::Batch)];
        let mut request = asked_for(Arc::new(view), source, &asked, None);
        (request.options.memory_limit, request.options.threads) = (Some(limit), Some(1));
        request
    };
    let mut plan = crate::history::plan::plan(request()).await.unwrap();
    crate::history::windowed::compute(&mut plan).await.unwrap();
    let pieces = plan.views[0].fragments.iter().map(|piece| piece.fragment.rows.unwrap()).collect::<Vec<_>>();
    assert!(pieces.iter().all(|rows| rows * 8_000 < limit / 8), "{pieces:?}");

    let batches = join(request()).await.unwrap().collect().await.unwrap();
    let lists = batches.iter().flat_map(|batch| batch["list"].as_list::<i32>().iter().collect::<Vec<_>>());
    let whole = lists.map(|list| list.unwrap().as_primitive::<Int64Type>().values().iter().copied().eq(0..long));
    assert!(whole.collect::<Vec<_>>() == [true; 1_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_reading_and_spilling_are_told() {
    let (rows, asked) = jumble();
    let mut odd = Odd::new(table(&[("f", &rows)]).with_fragment_rows(1_000));
    odd.fail_at_read = Some(5);
    let (kind, message) = failure(asked_for(counts(), vec![input(odd, InputKind::Batch)], &asked, None)).await;
    assert_eq!(kind, ErrorKind::Corrupt);
    assert!(message.contains("the disk is tired"), "{message}");

    let source = vec![input(table(&[("f", &rows)]), InputKind::Batch)];
    let mut request = asked_for(counts(), source, &asked, None);
    request.options.memory_limit = Some(1);
    request.options.temp_dir = Some("/does/not/exist".into());
    let (kind, message) = failure(request).await;
    assert_eq!(kind, ErrorKind::Unavailable);
    assert!(message.contains("temporary file"), "{message}");
}

#[tokio::test]
async fn progress_counts_the_fragments_of_windows_too() {
    let (rows, asked) = jumble();
    let heard: Arc<Mutex<Vec<Progress>>> = Arc::default();
    let listener = Arc::clone(&heard);
    let source = vec![input(table(&[("f", &rows)]).with_fragment_rows(4_000), InputKind::Batch)];
    let mut request = asked_for(counts(), source, &asked, None);
    request.options.progress = Some(Arc::new(move |progress| listener.lock().unwrap().push(progress)));
    join(request).await.unwrap().collect().await.unwrap();
    let done =
        Progress { fragments_total: 5, fragments_done: 5, rows_scanned: 20_000, rows_total: 9_000, rows_done: 9_000 };
    assert_eq!(heard.lock().unwrap().last(), Some(&done));
}
