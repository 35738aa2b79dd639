//! Fragments and what is read from them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use futures::{StreamExt, TryStreamExt};
use headwater_core::ErrorKind;
use headwater_core::batch::{BatchSource, KeyBounds, KeyRange, ScanRequest, TimeRange};

use super::{BatchFixture, Opened};
use crate::clause::{applicable, ensure, same, skip};
use crate::rows::{Scanned, name_of, read, scan, table_rows, table_schema, time_of};
use crate::{Stop, Verdict};

/// Three splits of unequal length, their ids one after another.
fn pieces() -> Verdict<Vec<RecordBatch>> {
    Ok(vec![table_rows(0..3000)?, table_rows(3000..3010)?, table_rows(3010..8000)?])
}

const ROWS: i64 = 8000;

/// A table of three splits, or of one where there can be but one.
async fn filled<F: BatchFixture>(fixture: Arc<F>) -> Verdict<Opened<F>> {
    match Opened::with(Arc::clone(&fixture), &pieces()?).await {
        Err(Stop::Skipped(_)) => Opened::with(fixture, &[table_rows(0..ROWS)?]).await,
        opened => opened,
    }
}

fn by_time(from: Option<i64>, to: Option<i64>) -> ScanRequest {
    let time = TimeRange { column: "event_timestamp".into(), from: from.map(time_of), to: to.map(time_of) };
    ScanRequest { time: Some(time), ..ScanRequest::default() }
}

fn by_key(column: &str, values: KeyBounds) -> ScanRequest {
    ScanRequest { keys: Some(KeyRange { column: column.into(), values }), ..ScanRequest::default() }
}

fn with_columns(columns: &[&str]) -> ScanRequest {
    ScanRequest { columns: Some(columns.iter().map(|c| (*c).to_owned()).collect()), ..ScanRequest::default() }
}

pub(super) async fn nothing_there<F: BatchFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::with(fixture, &[]).await?;
    same!(opened.source.schema().await.map_err(|e| e.kind()).err(), Some(ErrorKind::NotFound), "the schema's error");
    Ok(())
}

pub(super) async fn no_pieces<F: BatchFixture>(fixture: Arc<F>) -> Verdict {
    let opened = Opened::with(fixture, &[]).await?;
    same!(opened.source.fragments(&ScanRequest::default()).await?, Vec::new(), "fragments where nothing is");
    same!(opened.source.fragments(&by_time(Some(1), None)).await?, Vec::new(), "fragments where nothing is, by time");
    Ok(())
}

pub(super) async fn schema<F: BatchFixture>(fixture: Arc<F>) -> Verdict {
    let opened = filled(fixture).await?;
    let schema = opened.source.schema().await?;
    let names = schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    let expected = table_schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    ensure!(expected.iter().all(|name| names.contains(name)), "the schema {names:?} lacks some of {expected:?}");
    Ok(())
}

pub(super) async fn identity<F: BatchFixture>(fixture: Arc<F>) -> Verdict {
    let opened = filled(Arc::clone(&fixture)).await?;
    same!(opened.another().await?.identity(), opened.source.identity(), "the identity of the table, opened again");
    let other = filled(fixture).await?;
    ensure!(other.source.identity() != opened.source.identity(), "two tables have one identity");
    Ok(())
}

pub(super) async fn each_row_once<F: BatchFixture>(fixture: Arc<F>) -> Verdict {
    let opened = filled(fixture).await?;
    same!(ids(opened.source.as_ref(), &ScanRequest::default()).await?, (0..ROWS).collect::<Vec<_>>(), "ids");
    Ok(())
}

async fn ids(source: &dyn BatchSource, request: &ScanRequest) -> Verdict<Vec<i64>> {
    let mut ids = scan(source, request).await?.into_iter().map(|row| row.id).collect::<Vec<_>>();
    ids.sort_unstable();
    Ok(ids)
}

pub(super) async fn pruning<F: BatchFixture>(fixture: Arc<F>) -> Verdict {
    let opened = filled(fixture).await?;
    for (from, to) in
        [(0, 0), (2999, 3000), (3005, 3006), (3009, 3010), (7999, 7999), (100, 6000), (9000, 9001), (5, 4)]
    {
        let wanted = [
            (by_time(Some(from), Some(to)), from..=to),
            (by_time(Some(from), None), from..=ROWS),
            (by_time(None, Some(to)), 0..=to),
            (by_key("id", KeyBounds::Int(from, to)), from..=to),
            (by_key("name", KeyBounds::Text(name_of(from), name_of(to))), from..=to),
        ];
        for (request, wanted) in wanted {
            let found = ids(opened.source.as_ref(), &request).await?;
            for id in wanted.filter(|id| (0..ROWS).contains(id)) {
                let times = found.partition_point(|f| *f <= id) - found.partition_point(|f| *f < id);
                same!(times, 1, "how often the row {id} came for {request:?}");
            }
        }
    }
    Ok(())
}

pub(super) async fn leaves_out<F: BatchFixture>(fixture: Arc<F>) -> Verdict {
    if !fixture.prunes() {
        skip!("the storage has no statistics");
    }
    let opened = Opened::with(fixture, &pieces()?).await?;
    for request in [by_time(Some(0), Some(10)), by_time(Some(3000), Some(3009)), by_key("id", KeyBounds::Int(0, 10))] {
        let found = ids(opened.source.as_ref(), &request).await?;
        ensure!(found.len() < 8000, "{request:?} leaves no piece out");
    }
    let none = opened.source.fragments(&by_time(Some(20_000), None)).await?;
    same!(none.len(), 0, "fragments for a time after all rows");
    Ok(())
}

pub(super) async fn statistics<F: BatchFixture>(fixture: Arc<F>) -> Verdict {
    let opened = filled(fixture).await?;
    for request in [by_time(None, None), by_time(Some(3005), Some(3020))] {
        for fragment in opened.source.fragments(&request).await? {
            let rows = read(opened.source.as_ref(), &fragment, &request).await?;
            if let Some(count) = fragment.rows {
                same!(u64::try_from(rows.len())?, count, "rows of a fragment that knows their number");
            }
            if let Some((low, high)) = fragment.time {
                let outside = rows.iter().find(|row| !(low..=high).contains(&time_of(row.id)));
                same!(outside, None, "a row outside the times of its fragment");
            }
        }
    }
    Ok(())
}

pub(super) async fn in_order<F: BatchFixture>(fixture: Arc<F>) -> Verdict {
    let opened = filled(fixture).await?;
    let rows = scan(opened.source.as_ref(), &ScanRequest::default()).await?;
    let places = rows.iter().map(|row| (&row.split, &row.position)).collect::<Vec<_>>();
    ensure!(places.is_sorted(), "fragments, read one after another, are out of order of split and position");
    ensure!(rows.is_sorted_by_key(|row| row.id), "rows, read one fragment after another, are out of order");
    Ok(())
}

pub(super) async fn columns<F: BatchFixture>(fixture: Arc<F>) -> Verdict {
    let opened = filled(fixture).await?;
    for columns in [&["value", "id"][..], &["id"], &["event_timestamp", "name", "value", "id"]] {
        let mut request = with_columns(columns);
        // A condition may name a column that is not read.
        for time in [None, by_time(Some(2990), None).time] {
            request.time = time;
            let mut found = 0;
            for fragment in opened.source.fragments(&request).await? {
                let mut stream = opened.source.read(&fragment, &request).await?;
                while let Some(batch) = stream.try_next().await? {
                    let schema = batch.rows.schema();
                    let names = schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>();
                    same!(names, columns, "columns");
                    found += batch.rows.num_rows();
                }
            }
            ensure!(found >= 5010, "only {found} rows came with the columns {columns:?}");
        }
    }
    // No column at all: rows are counted.
    let mut count = 0;
    for fragment in opened.source.fragments(&with_columns(&[])).await? {
        let batches = opened.source.read(&fragment, &with_columns(&[])).await?.try_collect::<Vec<_>>().await?;
        count += batches.iter().map(|batch| batch.rows.num_rows()).sum::<usize>();
    }
    same!(i64::try_from(count)?, ROWS, "rows without columns");
    Ok(())
}

pub(super) async fn unknown_columns<F: BatchFixture>(fixture: Arc<F>) -> Verdict {
    let opened = filled(fixture).await?;
    let request = with_columns(&["id", "no_such_column"]);
    let error = match opened.source.fragments(&request).await {
        Err(error) => error,
        // The source may find out when it reads.
        Ok(fragments) => {
            let Some(fragment) = fragments.first() else { skip!("the table has no fragments") };
            let read = opened.source.read(fragment, &request).await;
            let error = match read {
                Err(error) => Some(error),
                Ok(mut stream) => stream.next().await.and_then(Result::err),
            };
            let Some(error) = error else { return Err(Stop::Failed("a column that does not exist was read".into())) };
            error
        }
    };
    same!(error.kind(), ErrorKind::Invalid, "the kind of the error `{error}`");
    ensure!(error.to_string().contains("no_such_column"), "the error does not name the column: `{error}`");
    Ok(())
}

pub(super) async fn values<F: BatchFixture>(fixture: Arc<F>) -> Verdict {
    let opened = filled(fixture).await?;
    let mut batches = Vec::new();
    for fragment in opened.source.fragments(&ScanRequest::default()).await? {
        batches.extend(opened.source.read(&fragment, &ScanRequest::default()).await?.try_collect::<Vec<_>>().await?);
    }
    ensure!(!batches.is_empty(), "a scan gave nothing");
    for batch in &batches {
        let expected = table_rows(crate::rows::ids_of(&batch.rows)?)?;
        for field in expected.schema().fields() {
            let found = batch.rows.column_by_name(field.name());
            let Some(found) = found else { return Err(Stop::Failed(format!("no column `{}`", field.name()))) };
            let found = cast(found, field.data_type())?;
            let stored = expected.column_by_name(field.name());
            ensure!(stored == Some(&found), "the column `{}` differs from what was stored", field.name());
        }
    }
    Ok(())
}

pub(super) async fn positions_ascend<F: BatchFixture>(fixture: Arc<F>) -> Verdict {
    let opened = filled(fixture).await?;
    for fragment in opened.source.fragments(&ScanRequest::default()).await? {
        let rows = read(opened.source.as_ref(), &fragment, &ScanRequest::default()).await?;
        let ascend = rows.windows(2).all(|pair| matches!(pair, [one, two] if one.position < two.position));
        ensure!(ascend, "positions do not ascend in {fragment:?}");
    }
    let mut places = scan(opened.source.as_ref(), &ScanRequest::default()).await?;
    let all = places.len();
    places.sort();
    places.dedup_by(|one, two| one.split == two.split && one.position == two.position);
    same!(places.len(), all, "distinct positions");
    Ok(())
}

pub(super) async fn positions_stable<F: BatchFixture>(fixture: Arc<F>) -> Verdict {
    let opened = filled(fixture).await?;
    let all = scan(opened.source.as_ref(), &ScanRequest::default()).await?;
    let known = |row: &Scanned| all.iter().any(|known| known == row);
    for request in [with_columns(&["id"]), by_time(Some(3003), Some(3004)), by_key("id", KeyBounds::Int(7000, 7001))] {
        let rows = scan(opened.another().await?.as_ref(), &request).await?;
        let wanted = rows.iter().filter(|row| [3003, 3004, 7000, 7001].contains(&row.id));
        for row in wanted {
            ensure!(known(row), "{row:?} stood elsewhere in another scan");
        }
    }
    same!(scan(opened.another().await?.as_ref(), &ScanRequest::default()).await?, all, "rows, opened again");
    // What is added moves nothing.
    match applicable(opened.fixture.add(&opened.table, &table_rows(8000..8100)?).await) {
        Err(Stop::Skipped(_)) => return Ok(()),
        added => added?,
    }
    let grown = scan(opened.another().await?.as_ref(), &ScanRequest::default()).await?;
    let moved = all.iter().filter(|row| row.id < ROWS - 1).find(|row| !grown.contains(row));
    same!(moved, None, "a row that moved when a split was added");
    Ok(())
}

pub(super) async fn any_order<F: BatchFixture>(fixture: Arc<F>) -> Verdict {
    let opened = filled(fixture).await?;
    let mut fragments = opened.source.fragments(&ScanRequest::default()).await?;
    fragments.reverse();
    // Twice each, all at once.
    fragments.extend(fragments.clone());
    let mut tasks = Vec::new();
    for fragment in fragments {
        let source = Arc::clone(&opened.source);
        tasks.push(tokio::spawn(async move { read(source.as_ref(), &fragment, &ScanRequest::default()).await }));
    }
    let mut ids = Vec::new();
    for task in tasks {
        ids.extend(task.await??.into_iter().map(|row| row.id));
    }
    ids.sort_unstable();
    let once = self::ids(opened.source.as_ref(), &ScanRequest::default()).await?;
    same!(ids, once.into_iter().flat_map(|id| [id, id]).collect::<Vec<_>>(), "ids, every fragment read twice");
    Ok(())
}

pub(super) async fn dropped<F: BatchFixture>(fixture: Arc<F>) -> Verdict {
    let opened = filled(fixture).await?;
    let before = ids(opened.another().await?.as_ref(), &ScanRequest::default()).await?;
    for fragment in opened.source.fragments(&ScanRequest::default()).await? {
        for batches in 0..3 {
            let mut stream = opened.source.read(&fragment, &ScanRequest::default()).await?;
            for _ in 0..batches {
                stream.try_next().await?;
            }
        }
    }
    same!(ids(opened.source.as_ref(), &ScanRequest::default()).await?, before, "ids afterwards");
    Ok(())
}
