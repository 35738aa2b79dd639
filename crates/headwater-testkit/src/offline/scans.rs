//! The log as a table.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use futures::TryStreamExt;
use headwater_core::batch::{BatchSource, KeyBounds, KeyRange, ScanRequest, TimeRange};
use headwater_core::offline::{LOG_POSITION, LOG_SPLIT};
use headwater_core::{ErrorKind, SplitId};

use super::{
    OfflineFixture, Opened, a_log, everything, expected, log_rows, position, publish, range, with_log_columns,
};
use crate::Verdict;
use crate::clause::{ensure, same};
use crate::rows::{Scanned, ids_of, name_of, scan, table_rows, time_of};

pub(super) async fn each_row_once<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let (a, b) = (SplitId::from("a"), SplitId::from("b"));
    let mut all = Vec::new();
    for (split, end) in [(&a, 5000_u64), (&b, 130)] {
        for after in (0..end).step_by(500) {
            publish(opened.store.as_ref(), split, after, end.min(after + 500)).await?;
        }
        all.extend(expected(split, end)?);
    }
    same!(everything(opened.store.as_ref()).await?, all, "rows of two splits");
    same!(everything(opened.store.as_ref()).await?, all, "rows, scanned again");
    // The columns say the same as the scan.
    let rows = all_columns(opened.store.log(&a_log()).as_ref(), &ScanRequest::default()).await?;
    let splits = cast(column(&rows, LOG_SPLIT)?, &DataType::Utf8)?;
    let of_b = splits.as_string::<i32>().iter().filter(|split| *split == Some("b")).count();
    same!(of_b, 130, "rows with `b` in the column `{LOG_SPLIT}`");
    let positions = cast(column(&rows, LOG_POSITION)?, &DataType::Binary)?;
    for (id, found) in ids_of(&rows)?.into_iter().zip(positions.as_binary::<i32>()) {
        let expected = position(u64::try_from(id)?);
        same!(found, Some(expected.as_bytes()), "the column `{LOG_POSITION}` of the row {id}");
    }
    Ok(())
}

pub(super) async fn projection<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let split = SplitId::from("a");
    publish(opened.store.as_ref(), &split, 0, 20).await?;
    publish(opened.store.as_ref(), &split, 20, 30).await?;
    let log = opened.store.log(&a_log());
    for columns in [vec!["value", "id"], vec!["id"], vec![LOG_POSITION, "id", LOG_SPLIT, "event_timestamp"]] {
        let request =
            ScanRequest { columns: Some(columns.iter().map(|c| (*c).to_owned()).collect()), ..Default::default() };
        let rows = all_columns(log.as_ref(), &request).await?;
        let schema = rows.schema();
        same!(schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), columns, "columns");
        same!(rows.num_rows(), 30, "rows with the columns {columns:?}");
        let mut rows = scan(log.as_ref(), &request).await?;
        rows.sort();
        same!(rows, expected(&split, 30)?, "rows with the columns {columns:?}");
    }
    // A condition on a column that is not read.
    let request = ScanRequest {
        columns: Some(vec!["id".into()]),
        time: Some(TimeRange { column: "event_timestamp".into(), from: Some(time_of(25)), to: None }),
        keys: None,
    };
    let ids = scan(log.as_ref(), &request).await?.into_iter().map(|row| row.id).collect::<Vec<_>>();
    ensure!((25..=30).all(|id| ids.contains(&id)), "a scan by a time that is not read lost rows: {ids:?}");
    Ok(())
}

pub(super) async fn values<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let split = SplitId::from("a");
    publish(opened.store.as_ref(), &split, 0, 100).await?;
    let opened = opened.reopen().await?;
    let found = all_columns(opened.store.log(&a_log()).as_ref(), &ScanRequest::default()).await?;
    let written = log_rows(&split, 1..=100)?;
    for field in written.schema().fields() {
        let found = column(&found, field.name())?;
        same!(found.data_type(), field.data_type(), "the type of `{}`", field.name());
        let Some(written) = written.column_by_name(field.name()) else { continue };
        ensure!(found == written, "the column `{}` came back changed", field.name());
    }
    Ok(())
}

pub(super) async fn pruning<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let split = SplitId::from("a");
    for after in (0..200).step_by(20) {
        publish(opened.store.as_ref(), &split, after, after + 20).await?;
    }
    let log = opened.store.log(&a_log());
    for (from, to) in [(55, 61), (60, 60), (1, 1), (200, 200), (0, 500), (20, 21), (201, 300), (61, 55)] {
        let times = |from: Option<i64>, to: Option<i64>| ScanRequest {
            time: Some(TimeRange { column: "event_timestamp".into(), from: from.map(time_of), to: to.map(time_of) }),
            ..Default::default()
        };
        let keys = |column: &str, values| ScanRequest {
            keys: Some(KeyRange { column: column.into(), values }),
            ..Default::default()
        };
        let wanted = [
            (times(Some(from), Some(to)), from..=to),
            (times(Some(from), None), from..=200),
            (times(None, Some(to)), 1..=to),
            (keys("id", KeyBounds::Int(from, to)), from..=to),
            (keys("name", KeyBounds::Text(name_of(from), name_of(to))), from..=to),
        ];
        for (request, ids) in wanted {
            let found = scan(log.as_ref(), &request).await?;
            for id in ids.filter(|id| (1..=200).contains(id)) {
                let times = found.iter().filter(|row| row.id == id).count();
                same!(times, 1, "how often the row {id} came for {request:?}");
            }
            // Statistics of a fragment are never narrower than its rows.
            for fragment in log.fragments(&request).await? {
                let rows = crate::rows::read(log.as_ref(), &fragment, &request).await?;
                if let Some((low, high)) = fragment.time {
                    let outside = rows.iter().find(|row| !(low..=high).contains(&time_of(row.id)));
                    same!(outside, None, "a row outside the times of its fragment");
                }
                if let Some(count) = fragment.rows {
                    same!(u64::try_from(rows.len())?, count, "the rows of a fragment that knows their number");
                }
            }
        }
    }
    Ok(())
}

pub(super) async fn fragments_in_order<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    for after in (0..120).step_by(10) {
        for split in ["b", "a", "c"] {
            publish(opened.store.as_ref(), &SplitId::from(split), after, after + 10).await?;
        }
    }
    let rows = scan(opened.store.log(&a_log()).as_ref(), &ScanRequest::default()).await?;
    ensure!(rows.is_sorted(), "fragments, read one after another, are out of order of split and position");
    same!(rows.len(), 360, "rows");
    Ok(())
}

pub(super) async fn rows_of_one_record<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let split = SplitId::from("a");
    let positions = [1, 1, 1, 2, 4, 4].map(position);
    let rows = with_log_columns(&table_rows(0..6)?, &split, &positions)?;
    opened.store.append(&a_log(), &split, rows, range(0, 4), BTreeMap::new()).await?;
    let all = positions.into_iter().zip(0..).map(|(position, id)| Scanned { split: split.clone(), position, id });
    let all = all.collect::<Vec<_>>();
    same!(everything(opened.store.as_ref()).await?, all, "several rows of one record");
    opened.store.compact(&a_log()).await?;
    same!(everything(opened.store.as_ref()).await?, all, "several rows of one record, compacted");
    Ok(())
}

pub(super) async fn added_columns<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let split = SplitId::from("a");
    publish(opened.store.as_ref(), &split, 0, 5).await?;
    let narrow = log_rows(&split, 6..=9)?;
    let mut fields = narrow.schema().fields().to_vec();
    fields.push(Arc::new(Field::new("added", DataType::Int64, true)));
    let mut columns = narrow.columns().to_vec();
    columns.push(Arc::new(Int64Array::from(vec![6, 7, 8, 9])) as ArrayRef);
    let wide = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    opened.store.append(&a_log(), &split, wide, range(5, 9), BTreeMap::new()).await?;

    for compacted in [false, true] {
        if compacted {
            opened.store.compact(&a_log()).await?;
        }
        let log = opened.store.log(&a_log());
        ensure!(log.schema().await?.index_of("added").is_ok(), "the schema lacks a column that was added");
        let request = ScanRequest { columns: Some(vec!["added".into(), "id".into()]), ..Default::default() };
        let rows = all_columns(log.as_ref(), &request).await?;
        let added = column(&rows, "added")?.as_primitive::<Int64Type>();
        for (id, added) in ids_of(&rows)?.into_iter().zip(added) {
            same!(added, (id > 5).then_some(id), "`added` of the row {id}, compacted: {compacted}");
        }
        same!(rows.num_rows(), 9, "rows, compacted: {compacted}");
    }
    Ok(())
}

pub(super) async fn missing<F: OfflineFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::fresh(fixture).await?;
    let log = opened.store.log(&a_log());
    same!(log.schema().await.map_err(|error| error.kind()).err(), Some(ErrorKind::NotFound), "the schema of no log");
    same!(log.fragments(&ScanRequest::default()).await?, Vec::new(), "the fragments of no log");
    // A view of what is published when a scan lists its fragments, not when the table was opened.
    publish(opened.store.as_ref(), &SplitId::from("a"), 0, 3).await?;
    same!(scan(log.as_ref(), &ScanRequest::default()).await?.len(), 3, "rows published after the log was opened");
    ensure!(log.schema().await?.index_of("value").is_ok(), "the schema of a log lacks a column");
    Ok(())
}

async fn all_columns(source: &dyn BatchSource, request: &ScanRequest) -> Verdict<RecordBatch> {
    let mut batches = Vec::new();
    for fragment in source.fragments(request).await? {
        batches.extend(source.read(&fragment, request).await?.try_collect::<Vec<_>>().await?);
    }
    ensure!(!batches.is_empty(), "a scan gave nothing");
    let schema = batches[0].rows.schema();
    Ok(concat_batches(&schema, batches.iter().map(|batch| &batch.rows))?)
}

fn column<'a>(rows: &'a RecordBatch, name: &str) -> Verdict<&'a ArrayRef> {
    rows.column_by_name(name).ok_or_else(|| crate::Stop::Failed(format!("the column `{name}` is missing")))
}
