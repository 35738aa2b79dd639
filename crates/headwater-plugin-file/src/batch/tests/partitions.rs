use super::*;

#[tokio::test]
async fn folders_are_columns_of_the_type_that_all_their_values_have() {
    let folder = Folder::new();
    let null = "__HIVE_DEFAULT_PARTITION__";
    folder.write("t/year=2001/day=2001-05-06/code=01x/a.parquet", encode(&rows(0..2), 10));
    folder.write("t/year=2002/day=2002-05-06/code=a%3Ab/a.parquet", encode(&rows(2..3), 10));
    folder.write(&format!("t/year={null}/day=2003-01-01/code={null}/a.parquet"), encode(&rows(3..4), 10));
    folder.write("t/plain.parquet", encode(&rows(4..5), 10));
    let source = table(&folder.path("t"));
    let schema = source.schema().await.unwrap();
    let types: Vec<_> = schema.fields().iter().skip(3).map(|f| (f.name().as_str(), f.data_type().clone())).collect();
    assert_eq!(types, [("year", DataType::Int64), ("day", DataType::Date32), ("code", DataType::Utf8)]);
    let all = scan_all(&source).await;
    assert_eq!(all.rows.schema(), schema);
    assert_eq!(integers(&all.rows["id"]), [Some(4), Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!(integers(&all.rows["year"]), [None, Some(2001), Some(2001), Some(2002), None]);
    let codes = texts(&all.rows["code"]);
    assert_eq!(
        codes.iter().map(Option::as_deref).collect::<Vec<_>>(),
        [None, Some("01x"), Some("01x"), Some("a:b"), None]
    );
    assert_eq!(all.places[1].0, "year=2001/day=2001-05-06/code=01x/a.parquet");
    let only = scan(&source, &columns(["code"])).await.unwrap();
    assert_eq!(texts(&only.rows["code"]), codes, "no column of the files is decoded");
}

#[tokio::test]
async fn files_outside_the_asked_partitions_are_left_out() {
    let folder = Folder::new();
    for (index, day) in ["2001-01-01", "2001-01-02", "2001-01-03"].iter().enumerate() {
        let ids = i64::try_from(index).unwrap();
        folder.write(&format!("t/_day={day}/k={index}/a.csv"), format!("id\n{ids}\n"));
    }
    let source = table(&folder.path("t"));
    let day = |number: i64| 978_307_200_000_000 + (number - 1) * 86_400_000_000;
    let ids = async |request: ScanRequest| {
        let scan = scan(&source, &request).await.unwrap();
        (integers(&scan.rows["id"]).into_iter().flatten().collect::<Vec<_>>(), scan.fragments)
    };
    let (found, fragments) = ids(between("_day", Some(day(2)), Some(day(2)))).await;
    assert_eq!(found, [1]);
    assert_eq!(fragments[0].time, Some((day(2), day(2))));
    assert_eq!(ids(between("_day", Some(day(2) + 1), None)).await.0, [2]);
    assert_eq!(ids(keys("k", KeyBounds::Int(0, 1))).await.0, [0, 1]);
}

#[tokio::test]
async fn a_column_inside_the_files_goes_before_a_folder() {
    let folder = Folder::new();
    folder.write("t/id=77/a.parquet", encode(&rows(0..2), 10));
    let all = scan_all(&table(&folder.path("t"))).await;
    assert_eq!(integers(&all.rows["id"]), [Some(0), Some(1)]);
    assert_eq!(all.rows.num_columns(), 3);
}
