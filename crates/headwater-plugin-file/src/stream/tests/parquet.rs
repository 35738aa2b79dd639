use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::file::properties::WriterProperties;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use headwater_core::ErrorKind;
use serde_json::json;

use super::*;

pub(super) fn rows(numbers: std::ops::Range<i64>) -> RecordBatch {
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers.clone()));
    let text: ArrayRef = Arc::new(StringArray::from_iter_values(numbers.map(|n| format!("row {n}"))));
    RecordBatch::try_from_iter([("n", n), ("text", text)]).unwrap()
}

pub(super) fn encode(batch: &RecordBatch, group_rows: usize) -> Vec<u8> {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

fn source(path: &Path, follow: bool) -> FileStreamSource {
    open(path, json!({ "format": "parquet", "follow": follow, "poll_interval": "1ms" })).unwrap()
}

#[derive(Debug, Default)]
struct Table {
    numbers: Vec<i64>,
    positions: Vec<u64>,
    ended: Vec<String>,
    batches: Vec<StreamBatch>,
    assigned: Vec<AssignedSplit>,
}

impl Table {
    fn take(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Assigned(splits) => self.assigned.extend(splits),
            StreamEvent::Batch(batch) => {
                let Payload::Rows(rows) = &batch.payload else { panic!("no rows") };
                self.numbers.extend(rows["n"].as_primitive::<Int64Type>().values());
                let at = batch.positions.iter().map(|at| Position::new(at.unwrap().to_vec()).to_u64().unwrap());
                self.positions.extend(at);
                assert_eq!(batch.through.to_u64(), self.positions.last().copied());
                self.batches.push(batch);
            }
            StreamEvent::SplitEnded(split) => self.ended.push(split.to_string()),
            StreamEvent::Revoked { .. } => panic!(),
        }
    }
}

async fn table(source: &FileStreamSource, context: ReaderContext) -> Result<Table, Error> {
    let mut reader = source.subscribe(context).await?;
    let mut table = Table::default();
    while let Some(event) = reader.next().await? {
        table.take(event);
    }
    Ok(table)
}

#[tokio::test]
async fn a_row_is_a_record_and_its_number_its_position() {
    let folder = Folder::new();
    let path = folder.write("t.parquet", encode(&rows(0..25), 10));
    let source = source(&path, false);
    assert!(!source.capabilities().encoded);
    let schema = source.schema().await.unwrap().unwrap();
    assert_eq!(schema.field_with_name("text").unwrap().data_type(), &DataType::Utf8);
    let all = table(&source, ReaderContext { batch_records: 4, ..context() }).await.unwrap();
    assert_eq!(all.numbers, (0..25).collect::<Vec<_>>());
    assert_eq!(all.positions, (1..=25).collect::<Vec<_>>());
    assert!(all.ended.is_empty(), "a single file may be replaced by a longer one");
    assert!(all.batches.iter().all(|batch| batch.payload.len() <= 4));
    assert_eq!(all.batches.last().unwrap().lag.unwrap().records, Some(0));
    for from in [0, 1, 9, 10, 11, 20, 24, 25] {
        let rest = table(&source, resumed([("t.parquet", through(from))])).await.unwrap();
        assert_eq!(rest.positions, (from + 1..=25).collect::<Vec<_>>());
        assert_eq!(rest.numbers.first().copied(), (from < 25).then_some(i64::try_from(from).unwrap()));
    }
    let error = table(&source, resumed([("t.parquet", through(26))])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PositionLost);
}

#[tokio::test]
async fn a_single_file_that_was_replaced_by_a_longer_one_gives_the_rest() {
    let folder = Folder::new();
    let path = folder.write("t.parquet", encode(&rows(0..3), 10));
    table(&source(&path, false), context()).await.unwrap();
    folder.write("t.parquet", encode(&rows(0..5), 10));
    let rest = table(&source(&path, false), resumed([("t.parquet", through(3))])).await.unwrap();
    assert_eq!(rest.numbers, [3, 4]);
    let mut reader = source(&path, true).subscribe(context()).await.unwrap();
    let mut seen = Table::default();
    let read = async |reader: &mut Box<dyn StreamReader>, seen: &mut Table, count| {
        while seen.numbers.len() < count {
            seen.take(reader.next().await.unwrap().unwrap());
        }
    };
    read(&mut reader, &mut seen, 5).await;
    fs::rename(folder.write("new", encode(&rows(0..8), 10)), &path).unwrap();
    read(&mut reader, &mut seen, 8).await;
    assert_eq!(seen.numbers, (0..8).collect::<Vec<_>>());
}

#[tokio::test]
async fn files_in_a_directory_end_and_are_not_handed_out_again() {
    let folder = Folder::new();
    folder.write("d/a.parquet", encode(&rows(0..3), 10));
    folder.write("d/b.pq", encode(&rows(3..3), 10));
    let source = source(&folder.path("d"), false);
    let info = source.discover().await.unwrap();
    assert!(info.iter().all(|split| split.closed));
    assert_eq!(info[0].end, Some(Position::from_u64(3)));
    assert_eq!(info[1].end, Some(Position::START));
    let first = table(&source, context()).await.unwrap();
    assert_eq!(first.ended, ["a.parquet", "b.pq"]);
    folder.write("d/c.parquet", encode(&rows(3..5), 10));
    let ends = resumed([("a.parquet", Progress::End), ("b.pq", Progress::End)]);
    let later = table(&source, ends).await.unwrap();
    assert_eq!(later.numbers, [3, 4]);
    assert_eq!(names(&later.assigned), ["c.parquet"]);
}

#[tokio::test]
async fn columns_are_put_together_by_name() {
    let folder = Folder::new();
    folder.write("d/1.parquet", encode(&rows(0..2), 10));
    let n: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![2, 3]));
    let more: ArrayRef = Arc::new(Int64Array::from(vec![7, 8]));
    folder.write("d/2.parquet", encode(&RecordBatch::try_from_iter([("more", more), ("n", n)]).unwrap(), 10));
    let source = source(&folder.path("d"), false);
    let schema = source.schema().await.unwrap().unwrap();
    let all = table(&source, context()).await.unwrap();
    assert_eq!(all.numbers, [0, 1, 2, 3]);
    for batch in &all.batches {
        let Payload::Rows(rows) = &batch.payload else { panic!() };
        assert_eq!(rows.schema(), schema);
    }
    let Payload::Rows(second) = &all.batches[1].payload else { panic!() };
    assert_eq!(strings(&second["text"]), [None, None]);
    let n: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    folder.write("d/3.parquet", encode(&RecordBatch::try_from_iter([("n", n)]).unwrap(), 10));
    let error = table(&source, context()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("3.parquet"), "{error}");
}

#[tokio::test]
async fn a_file_without_an_end_is_corrupt_or_waited_for() {
    let folder = Folder::new();
    let whole = encode(&rows(0..3), 10);
    folder.write("d/a.parquet", &whole[..whole.len() - 6]);
    for error in [
        table(&source(&folder.path("d"), false), context()).await.unwrap_err(),
        source(&folder.path("d"), false).discover().await.unwrap_err(),
        source(&folder.path("d"), false).schema().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("a.parquet"), "{error}");
    }
    let followed = source(&folder.path("d"), true);
    assert_eq!(followed.discover().await.unwrap()[0].end, None);
    assert_eq!(followed.schema().await.unwrap_err().kind(), ErrorKind::NotFound);
    let mut reader = followed.subscribe(context()).await.unwrap();
    let mut seen = Table::default();
    seen.take(reader.next().await.unwrap().unwrap());
    assert!(tokio::time::timeout(Duration::from_millis(20), reader.next()).await.is_err());
    folder.write("d/a.parquet", &whole);
    while seen.ended.is_empty() {
        seen.take(reader.next().await.unwrap().unwrap());
    }
    assert_eq!(seen.numbers, [0, 1, 2]);
}
