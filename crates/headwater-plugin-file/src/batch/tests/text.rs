use arrow::datatypes::TimeUnit;
use headwater_core::ErrorKind;
use serde_json::json;

use super::*;

fn types(schema: &SchemaRef) -> Vec<(String, DataType)> {
    schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
}

fn utc(unit: TimeUnit) -> DataType {
    DataType::Timestamp(unit, Some("UTC".into()))
}

#[tokio::test]
async fn csv_has_a_header_and_guessed_types() {
    let folder = Folder::new();
    let csv = "id,rate,name,at,fine,day,flag,nothing\n\
               1,0.5,\"a, \"\"b\"\"\",2001-02-03T04:05:06Z,2001-02-03 04:05:06.123456789,2001-02-03,true,\n\
               2,,,2001-02-03 05:05:06.25+01:00,2001-02-03 04:05:06,2001-02-04,false,";
    let source = table(&folder.write("t.csv", csv));
    let all = scan_all(&source).await;
    let expected = [
        ("id", DataType::Int64),
        ("rate", DataType::Float64),
        ("name", DataType::Utf8),
        ("at", utc(TimeUnit::Microsecond)),
        ("fine", utc(TimeUnit::Nanosecond)),
        ("day", DataType::Date32),
        ("flag", DataType::Boolean),
        ("nothing", DataType::Utf8),
    ];
    assert_eq!(types(&all.rows.schema()), expected.map(|(name, data_type)| (name.to_owned(), data_type)));
    assert_eq!(texts(&all.rows["name"]), [Some("a, \"b\"".to_owned()), None]);
    let second = 981_173_106_000_000;
    assert_eq!(integers(&all.rows["at"]), [Some(second), Some(second + 250_000)]);
    assert_eq!(integers(&all.rows["fine"])[0], Some(second * 1000 + 123_456_789));
    assert_eq!(all.places, [("t.csv".to_owned(), 1), ("t.csv".to_owned(), 2)]);
    assert_eq!((all.fragments.len(), all.fragments[0].rows, all.fragments[0].time), (1, None, None));
    let some = scan(&source, &columns(["day", "id"])).await.unwrap();
    assert_eq!(some.rows.num_columns(), 2);
    assert_eq!(integers(&some.rows["id"]), [Some(1), Some(2)]);
}

#[tokio::test]
async fn csv_may_have_another_delimiter_and_no_rows() {
    let folder = Folder::new();
    let path = folder.write("t.csv", "\u{feff}id;name\r\n1;a\r\n2;b\r\n");
    let source = open(path.to_str().unwrap(), json!({ "delimiter": ";" })).unwrap();
    assert_eq!(integers(&scan_all(&source).await.rows["id"]), [Some(1), Some(2)]);
    let source = table(&folder.write("h.csv", "id,name\n"));
    let none = scan_all(&source).await;
    assert_eq!((none.rows.num_rows(), none.rows.num_columns()), (0, 2));
    let source = table(&folder.write("e.csv", ""));
    assert_eq!(scan_all(&source).await.rows.num_rows(), 0);
}

#[tokio::test]
async fn csv_files_with_other_columns_are_one_table() {
    let folder = Folder::new();
    folder.write("d/1.csv", "id,code,at\n1,7,2001-01-01\n");
    folder.write("d/2.csv", "at,code,rate,id\n2001-01-02T00:00:01,x,1.5,2\n");
    let source = table(&folder.path("d"));
    let all = scan_all(&source).await;
    assert_eq!(all.rows.schema(), source.schema().await.unwrap());
    assert_eq!(integers(&all.rows["id"]), [Some(1), Some(2)]);
    assert_eq!(texts(&all.rows["code"]), [Some("7".to_owned()), Some("x".to_owned())], "both can be read as text");
    assert_eq!(all.rows["rate"].null_count(), 1);
}

#[tokio::test]
async fn ndjson_has_guessed_types() {
    let folder = Folder::new();
    let path = folder.write(
        "t.ndjson",
        "{\"id\":1,\"rate\":1,\"name\":\"a\",\"at\":\"2001-02-03T04:05:06Z\"}\n\n{\"id\":2,\"rate\":0.5,\"list\":[1,2]}",
    );
    let source = table(&path);
    let all = scan_all(&source).await;
    assert_eq!(all.rows["rate"].data_type(), &DataType::Float64);
    assert_eq!(all.rows["at"].data_type(), &DataType::Utf8, "times stay text");
    assert_eq!(integers(&all.rows["id"]), [Some(1), Some(2)]);
    assert!(matches!(all.rows["list"].data_type(), DataType::List(_)));
    assert_eq!(all.places.len(), 2);
    let some = scan(&source, &columns(["name"])).await.unwrap();
    assert_eq!(texts(&some.rows["name"]), [Some("a".to_owned()), None]);
}

#[tokio::test]
async fn long_files_come_in_batches_across_fetches() {
    let folder = Folder::new();
    let (mut csv, mut json) = ("id,pad\n".to_owned(), String::new());
    let pad = "p".repeat(600);
    for id in 0..10_000 {
        csv += &format!("{id},{pad}\n");
        json += &format!("{{\"id\":{id},\"pad\":\"{pad}\"}}\n");
    }
    for (name, content) in [("t.csv", csv), ("t.jsonl", json)] {
        let source = table(&folder.write(name, content));
        let all = scan(&source, &columns(["id"])).await.unwrap();
        assert_eq!(integers(&all.rows["id"]), (0..10_000).map(Some).collect::<Vec<_>>(), "{name}");
        assert_eq!(all.places.last().unwrap().1, 10_000);
    }
}

#[tokio::test]
async fn the_part_that_is_looked_at_may_end_inside_a_quoted_field() {
    let folder = Folder::new();
    let text = "words\n".repeat(1 << 20);
    let source = table(&folder.write("t.csv", format!("text,id\n\"{text}\",1\nb,2\n")));
    let all = scan(&source, &columns(["id", "text"])).await.unwrap();
    assert_eq!(texts(&all.rows["id"]), [Some("1".to_owned()), Some("2".to_owned())]);
    assert_eq!(texts(&all.rows["text"])[0].as_deref(), Some(text.as_str()));
}

#[tokio::test]
async fn values_that_do_not_fit_are_an_error_that_names_the_file() {
    let folder = Folder::new();
    let head = format!("1,{}\n", "x".repeat(8000)).repeat((5 << 20) / 8000);
    let cases = [
        ("late.csv", format!("id,pad\n{head}word,x\n")),
        ("fields.csv", "id,name\n1\n".to_owned()),
        ("array.json", "[{\"id\":1}]\n".to_owned()),
        ("broken.ndjson", "{\"id\":1}\n{\"id\":\n".to_owned()),
        ("mixed.ndjson", "{\"id\":1}\n{\"id\":{\"a\":1}}\n".to_owned()),
    ];
    for (name, content) in cases {
        let source = table(&folder.write(name, content));
        let error = scan(&source, &ScanRequest::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{name}");
        assert!(error.to_string().contains(name), "{error}");
    }
}
