use arrow::array::{
    BinaryArray, Date32Array, DictionaryArray, Int32Array, LargeStringArray, TimestampMillisecondArray,
    TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
};
use arrow::datatypes::Int32Type;
use headwater_core::ErrorKind;

use super::*;

const SECOND: i64 = 1_000_000;

#[tokio::test]
async fn a_fragment_is_a_row_group_and_rows_are_counted_from_one() {
    let folder = Folder::new();
    let path = folder.write("t.parquet", encode(&rows(0..25), 10));
    let source = table(&path);
    let all = scan_all(&source).await;
    assert_eq!(all.rows, rows(0..25));
    assert_eq!(all.fragments.iter().map(|f| f.rows.unwrap()).collect::<Vec<_>>(), [10, 10, 5]);
    assert_eq!(all.places, (1..=25).map(|at| ("t.parquet".to_owned(), at)).collect::<Vec<_>>());
    assert_eq!(source.identity(), path.to_str().unwrap());
    assert_eq!(source.schema().await.unwrap().fields().len(), 3);
    // Alone, and in another order.
    let last = source.read(&all.fragments[2], &ScanRequest::default()).await.unwrap();
    let last: Vec<_> = last.try_collect().await.unwrap();
    assert_eq!(last[0].rows, rows(20..25));
    assert!(matches!(last[0].positions, Positions::Consecutive(21)));
}

#[tokio::test]
async fn only_asked_columns_come_in_the_order_asked_for() {
    let folder = Folder::new();
    let source = table(&folder.write("t.parquet", encode(&rows(0..25), 10)));
    let some = scan(&source, &columns(["at", "id"])).await.unwrap();
    assert_eq!(some.rows.schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["at", "id"]);
    assert_eq!(integers(&some.rows["id"]).len(), 25);
    let none = scan(&source, &columns([])).await.unwrap();
    assert_eq!((none.places.len(), none.rows.num_columns()), (25, 0));
    let wrong = [columns(["id", "nope"]), between("nope", None, None), keys("nope", KeyBounds::Int(0, 1))];
    for request in wrong {
        let error = source.fragments(&request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("`nope`") && error.to_string().contains("`name`"), "{error}");
    }
}

/// The first ids of the row groups of ten that are left.
async fn left(source: &FileBatchSource, request: ScanRequest) -> Vec<i64> {
    let scan = scan(source, &ScanRequest { columns: Some(vec!["id".into()]), ..request }).await.unwrap();
    integers(&scan.rows["id"]).into_iter().flatten().step_by(10).collect()
}

#[tokio::test]
async fn row_groups_outside_the_asked_times_are_left_out() {
    let folder = Folder::new();
    let source = table(&folder.write("t.parquet", encode(&rows(0..40), 10)));
    let cases = [
        (None, None, vec![0, 10, 20, 30]),
        (Some(10), Some(19), vec![10]),
        (Some(9), Some(20), vec![0, 10, 20]),
        (None, Some(-1), vec![]),
        (Some(39), None, vec![30]),
        (Some(40), None, vec![]),
    ];
    for (from, to, expected) in cases {
        let request = between("at", from.map(|s| s * SECOND), to.map(|s| s * SECOND));
        assert_eq!(left(&source, request).await, expected, "{from:?}..{to:?}");
    }
    let fragments = source.fragments(&between("at", None, None)).await.unwrap();
    assert_eq!(fragments[1].time, Some((10 * SECOND, 19 * SECOND)));
    assert_eq!(source.fragments(&ScanRequest::default()).await.unwrap()[1].time, None, "no time was asked for");
}

#[tokio::test]
async fn times_are_known_whatever_their_type() {
    let (least, greatest) = (1_000_000_001_i64, 1_000_000_009_i64);
    let days = |day: i32| i64::from(day) * 86_400 * SECOND;
    let cases: Vec<(ArrayRef, Option<(i64, i64)>)> = vec![
        (Arc::new(TimestampSecondArray::from(vec![7, 3])), Some((3 * SECOND, 7 * SECOND))),
        (Arc::new(TimestampMillisecondArray::from(vec![7, -3])), Some((-3000, 7000))),
        (Arc::new(TimestampMillisecondArray::from(vec![7, 3]).with_timezone("+02:00")), Some((3000, 7000))),
        (Arc::new(TimestampMicrosecondArray::from(vec![Some(7), None])), Some((7, 7))),
        (Arc::new(TimestampNanosecondArray::from(vec![greatest, least])), Some((1_000_000, 1_000_001))),
        (Arc::new(TimestampNanosecondArray::from(vec![-1, -1])), Some((-1, 0))),
        (Arc::new(Date32Array::from(vec![-1, 11_000])), Some((days(-1), days(11_000)))),
        (Arc::new(StringArray::from(vec!["2001-01-01", "2002-01-01"])), None),
        (Arc::new(TimestampMicrosecondArray::from(vec![None, None])), None),
        (Arc::new(TimestampSecondArray::from(vec![i64::MAX, 0])), None),
    ];
    for (at, expected) in cases {
        let folder = Folder::new();
        let shown = format!("{:?}", at.data_type());
        let source = table(&folder.write("t.parquet", encode(&RecordBatch::try_from_iter([("at", at)]).unwrap(), 10)));
        assert_eq!(source.fragments(&between("at", None, None)).await.unwrap()[0].time, expected, "{shown}");
    }
}

#[tokio::test]
async fn row_groups_outside_the_asked_keys_are_left_out() {
    let folder = Folder::new();
    let source = table(&folder.write("t.parquet", encode(&rows(0..40), 10)));
    assert_eq!(left(&source, keys("id", KeyBounds::Int(12, 25))).await, [10, 20]);
    assert_eq!(left(&source, keys("id", KeyBounds::Int(-5, -1))).await, [0; 0]);
    assert_eq!(left(&source, keys("name", KeyBounds::Text("n0029x".into(), "z".into()))).await, [30]);
    assert_eq!(left(&source, keys("name", KeyBounds::Text("a".into(), "n0009".into()))).await, [0]);
    assert_eq!(
        left(&source, keys("name", KeyBounds::Int(0, 1))).await.len(),
        4,
        "bounds of another type prune nothing"
    );
    let plain = table(&folder.write("p.parquet", encode_without_statistics(&rows(0..40), 10)));
    assert_eq!(left(&plain, keys("id", KeyBounds::Int(12, 25))).await.len(), 4, "nothing is known");
    assert_eq!(left(&plain, between("at", Some(0), Some(0))).await.len(), 4);
}

#[tokio::test]
async fn keys_of_unusual_types_prune_rightly() {
    let folder = Folder::new();
    let key: ArrayRef = Arc::new(UInt64Array::from(vec![5, u64::MAX]));
    let source = table(&folder.write("u.parquet", encode(&RecordBatch::try_from_iter([("k", key)]).unwrap(), 10)));
    assert_eq!(source.fragments(&keys("k", KeyBounds::Int(100, 200))).await.unwrap().len(), 1);
    let key: ArrayRef = Arc::new(["b", "c"].into_iter().collect::<DictionaryArray<Int32Type>>());
    let source = table(&folder.write("d.parquet", encode(&RecordBatch::try_from_iter([("k", key)]).unwrap(), 10)));
    assert_eq!(source.fragments(&keys("k", KeyBounds::Text("a".into(), "b".into()))).await.unwrap().len(), 1);
    assert!(matches!(source.schema().await.unwrap().field(0).data_type(), DataType::Dictionary(..)));
    // Statistics of long texts are cut off: the greatest is then rounded up.
    let long: ArrayRef = Arc::new(StringArray::from(vec!["m".repeat(500)]));
    let source = table(&folder.write("l.parquet", encode(&RecordBatch::try_from_iter([("k", long)]).unwrap(), 10)));
    let bounds = KeyBounds::Text("m".repeat(400), "n".into());
    assert_eq!(source.fragments(&keys("k", bounds)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_scan_reads_what_it_listed_and_says_when_a_file_changed() {
    let folder = Folder::new();
    folder.write("d/a.parquet", encode(&rows(0..10), 10));
    let source = table(&folder.path("d"));
    let fragments = source.fragments(&ScanRequest::default()).await.unwrap();
    // Five later listings, each with another file: the first is forgotten, and found again by name.
    for more in 0..5 {
        folder.write(&format!("d/0{more}.parquet"), encode(&rows(10..12), 10));
        assert_eq!(scan_all(&source).await.places.len(), 12 + 2 * more);
    }
    let request = ScanRequest::default();
    let batches: Vec<_> = source.read(&fragments[0], &request).await.unwrap().try_collect().await.unwrap();
    assert_eq!(batches[0].rows, rows(0..10));
    folder.write("d/a.parquet", encode(&rows(0..20), 10));
    let Err(error) = source.read(&fragments[0], &request).await else { panic!("the file has changed") };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_retryable());
    fs::remove_file(folder.path("d/a.parquet")).unwrap();
    let Err(error) = source.read(&fragments[0], &request).await else { panic!("the file is gone") };
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let foreign = Fragment { token: bytes::Bytes::from_static(b"?"), ..fragments[0].clone() };
    let Err(error) = source.read(&foreign, &request).await else { panic!("no fragment of ours") };
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_damaged_file_is_corrupt_and_named() {
    let folder = Folder::new();
    let whole = encode(&rows(0..1000), 1000);
    let mut flipped = whole.clone();
    flipped[4..400].fill(0xa5);
    let damaged: [(&str, &[u8]); 4] = [
        ("empty", b""),
        ("short", b"PAR1"),
        ("cut", &whole[..whole.len() / 2]),
        ("text", b"hello, world, this is text"),
    ];
    for (name, bytes) in damaged {
        let source = table(&folder.write(&format!("{name}.parquet"), bytes));
        for error in [source.schema().await.unwrap_err(), source.fragments(&ScanRequest::default()).await.unwrap_err()]
        {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}");
            assert!(error.to_string().contains(&format!("{name}.parquet")), "{error}");
        }
    }
    let source = table(&folder.write("flipped.parquet", flipped));
    let error = scan(&source, &ScanRequest::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("flipped.parquet"), "{error}");
}

#[tokio::test]
async fn fragments_are_read_at_once_on_several_threads() {
    let folder = Folder::new();
    let source = Arc::new(table(&folder.write("t.parquet", encode(&rows(0..4000), 500))));
    let fragments = source.fragments(&ScanRequest::default()).await.unwrap();
    let tasks: Vec<_> = fragments
        .into_iter()
        .map(|fragment| {
            let source = Arc::clone(&source);
            tokio::spawn(async move {
                let stream = source.read(&fragment, &columns(["id"])).await.unwrap();
                let batches: Vec<_> = stream.try_collect().await.unwrap();
                batches.iter().flat_map(|batch| integers(&batch.rows["id"])).flatten().collect::<Vec<_>>()
            })
        })
        .collect();
    let mut ids = Vec::new();
    for task in tasks {
        ids.extend(task.await.unwrap());
    }
    assert_eq!(ids, (0..4000).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_directory_of_an_offline_store_is_a_table() {
    let folder = Folder::new();
    let piece = |ids: std::ops::Range<i64>| {
        let split: ArrayRef = Arc::new(StringArray::from(vec!["a%2Fb"; ids.clone().count()]));
        let at: ArrayRef = Arc::new(BinaryArray::from_iter_values(ids.clone().map(i64::to_be_bytes)));
        let mut columns = vec![("id".to_owned(), rows(ids).column(0).clone())];
        columns.extend([("_split".to_owned(), split), ("_position".to_owned(), at)]);
        RecordBatch::try_from_iter(columns).unwrap()
    };
    folder.write("v/g/a%2Fb/00.parquet", encode(&piece(0..3), 10));
    folder.write("v/g/a%2Fb/03.parquet", encode(&piece(3..3), 10));
    folder.write("v/g/push-1/00.parquet", encode(&piece(3..5), 10));
    folder.write("v/g/a%2Fb/.writing", "half a file");
    let all = scan_all(&table(&folder.path("v"))).await;
    assert_eq!(integers(&all.rows["id"]).len(), 5);
    assert_eq!(texts(&all.rows["_split"])[0].as_deref(), Some("a%2Fb"));
    assert_eq!(all.places[0].0, "g/a%2Fb/00.parquet");
}

#[tokio::test]
async fn files_with_other_columns_and_types_are_one_table() {
    let folder = Folder::new();
    folder.write("d/1.parquet", encode(&rows(0..2), 10));
    let id: ArrayRef = Arc::new(Int32Array::from(vec![2, 3]));
    let name: ArrayRef = Arc::new(LargeStringArray::from(vec!["x", "y"]));
    let at: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![5_000, 6_000]));
    let extra: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let second = RecordBatch::try_from_iter([("extra", extra), ("at", at), ("name", name), ("id", id)]).unwrap();
    folder.write("d/2.parquet", encode(&second, 10));
    let source = table(&folder.path("d"));
    let all = scan_all(&source).await;
    assert_eq!(all.rows.schema(), source.schema().await.unwrap());
    assert_eq!(integers(&all.rows["id"]), [Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!(texts(&all.rows["name"])[2].as_deref(), Some("x"));
    assert_eq!(all.rows["at"].data_type(), rows(0..1)["at"].data_type());
    assert_eq!(integers(&all.rows["at"]), [Some(0), Some(SECOND), Some(5 * SECOND), Some(6 * SECOND)]);
    assert_eq!(integers(&all.rows["extra"]), [None, None, Some(1), Some(2)]);
    let only = scan(&source, &columns(["extra"])).await.unwrap();
    assert_eq!(integers(&only.rows["extra"]), [None, None, Some(1), Some(2)]);

    let id: ArrayRef = Arc::new(StringArray::from(vec!["seven"]));
    folder.write("d/3.parquet", encode(&RecordBatch::try_from_iter([("id", id)]).unwrap(), 10));
    let error = source.schema().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    for part in ["`id`", "1.parquet", "3.parquet", "Int64", "Utf8"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}
