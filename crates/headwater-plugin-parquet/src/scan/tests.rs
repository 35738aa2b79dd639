use std::collections::BTreeMap;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use headwater_core::batch::TimeRange;
use headwater_core::offline::{LogRange, OfflineStore};

use super::*;
use crate::testing::{Place, append, decode, drivers, expected, log_id, rows, scan};

/// The numbers of the positions that a request gives.
async fn numbers(source: &dyn BatchSource, request: &ScanRequest) -> Vec<u64> {
    let mut numbers = Vec::new();
    for batch in scan(source, request).await.unwrap() {
        let Positions::Each(positions) = batch.positions else { panic!("positions of a log are given for each row") };
        assert_eq!(positions.len(), batch.rows.num_rows());
        numbers.extend(positions.iter().map(|bytes| u64::from_be_bytes(bytes.unwrap().try_into().unwrap())));
    }
    numbers
}

#[tokio::test]
async fn only_row_groups_that_may_hold_wanted_rows_are_read() {
    let place = Place::folder();
    let store = place.store();
    append(&store, "a", 1..=10).await.unwrap();
    append(&store, "a", 11..=20).await.unwrap();
    let source = store.log(&log_id());

    let time = |from: Option<i64>, to: Option<i64>| ScanRequest {
        time: Some(TimeRange {
            column: "event_timestamp".into(),
            from: from.map(|seconds| seconds * 1_000_000),
            to: to.map(|seconds| seconds * 1_000_000),
        }),
        ..ScanRequest::default()
    };
    // Row groups hold four rows: 1-4, 5-8, 9-10, 11-14, 15-18, 19-20.
    assert_eq!(numbers(&*source, &time(None, Some(5))).await, (1..=8).collect::<Vec<_>>());
    assert_eq!(numbers(&*source, &time(Some(8), Some(11))).await, (5..=14).collect::<Vec<_>>());
    assert_eq!(numbers(&*source, &time(Some(19), None)).await, [19, 20]);
    assert_eq!(numbers(&*source, &time(Some(21), None)).await, [0; 0]);
    let fragments = source.fragments(&time(Some(8), Some(11))).await.unwrap();
    assert_eq!(fragments[0].time, Some((5_000_000, 8_000_000)));
    assert_eq!(fragments.iter().map(|fragment| fragment.rows.unwrap()).sum::<u64>(), 10);
    assert!(fragments.iter().all(|fragment| fragment.split == SplitId::from("a")));

    let key = |column: &str, values: KeyBounds| ScanRequest {
        keys: Some(KeyRange { column: column.into(), values }),
        ..ScanRequest::default()
    };
    // Drivers are 1 2 3 4 | 5 6 0 1 | 2 3 | 4 5 6 0 | 1 2 3 4 | 5 6.
    let none = key("driver_id", KeyBounds::Int(7, 9));
    assert_eq!(numbers(&*source, &none).await, [0; 0]);
    let zero = key("driver_id", KeyBounds::Int(0, 0));
    assert_eq!(numbers(&*source, &zero).await, [5, 6, 7, 8, 11, 12, 13, 14]);
    let text = key("_split", KeyBounds::Text("b".into(), "c".into()));
    assert_eq!(numbers(&*source, &text).await, [0; 0]);
    let text = key("_split", KeyBounds::Text("A".into(), "a".into()));
    assert_eq!(numbers(&*source, &text).await.len(), 20);
}

#[tokio::test]
async fn columns_come_as_they_are_asked_for() {
    let place = Place::folder();
    let store = place.store();
    append(&store, "a", 1..=3).await.unwrap();
    let source = store.log(&log_id());
    let request = |columns: &[&str]| ScanRequest {
        columns: Some(columns.iter().map(|column| (*column).to_owned()).collect()),
        ..ScanRequest::default()
    };
    let batches = scan(&*source, &request(&["rate", "driver_id"])).await.unwrap();
    let names: Vec<_> = batches[0].rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["rate", "driver_id"]);
    assert_eq!(drivers(&batches[0].rows), [1, 2, 3]);
    // No column at all: rows are counted, and have their positions.
    assert_eq!(numbers(&*source, &request(&[])).await, [1, 2, 3]);
    let error = source.fragments(&request(&["rate", "speed"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("`speed`"), "{error}");
}

#[tokio::test]
async fn columns_that_were_added_later_are_null_in_older_rows() {
    let place = Place::folder();
    let store = place.store();
    append(&store, "a", 1..=2).await.unwrap();
    let old = rows("a", 3..=4);
    let mut columns: Vec<(String, ArrayRef, bool)> = old
        .schema()
        .fields()
        .iter()
        .zip(old.columns())
        .map(|(field, column)| (field.name().clone(), Arc::clone(column), field.is_nullable()))
        .collect();
    columns.push(("name".into(), Arc::new(StringArray::from(vec!["c", "d"])), false));
    columns.push(("age".into(), Arc::new(Int64Array::from(vec![Some(3), None])), true));
    let new = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let range = LogRange { after: Position::from_u64(2), through: Position::from_u64(4) };
    store.append(&log_id(), &"a".into(), new, range, BTreeMap::new()).await.unwrap();

    for compacted in [false, true] {
        let source = place.store().log(&log_id());
        let schema = source.schema().await.unwrap();
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["driver_id", "event_timestamp", "rate", "_split", "_position", "name", "age"]);
        assert!(schema.field_with_name("name").unwrap().is_nullable());
        assert!(!schema.field_with_name("driver_id").unwrap().is_nullable());
        let batches = scan(&*source, &ScanRequest::default()).await.unwrap();
        let all = arrow::compute::concat_batches(&schema, batches.iter().map(|batch| &batch.rows)).unwrap();
        assert_eq!(decode(&all), expected("a", 1..=4), "compacted: {compacted}");
        let names: Vec<_> = all.column_by_name("name").unwrap().as_string::<i32>().iter().collect();
        assert_eq!(names, [None, None, Some("c"), Some("d")]);
        // Columns that a file lacks altogether.
        let request = ScanRequest { columns: Some(vec!["age".into()]), ..ScanRequest::default() };
        assert_eq!(numbers(&*place.store().log(&log_id()), &request).await, [1, 2, 3, 4]);
        store.compact(&log_id()).await.unwrap();
    }
}

#[tokio::test]
async fn a_fragment_of_another_log_is_refused() {
    let place = Place::folder();
    let store = place.store();
    append(&store, "a", 1..=2).await.unwrap();
    let source = store.log(&log_id());
    let request = ScanRequest::default();
    let fragment = source.fragments(&request).await.unwrap().remove(0);
    let strange = Fragment { token: Bytes::from_static(b"17"), ..fragment.clone() };
    assert_eq!(source.read(&strange, &request).await.err().unwrap().kind(), ErrorKind::Invalid);
    let elsewhere = Fragment { split: "b".into(), ..fragment };
    assert_eq!(source.read(&elsewhere, &request).await.err().unwrap().kind(), ErrorKind::NotFound);
}
