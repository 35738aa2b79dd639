//! Batch rows of a view, as materialisation reads them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, RecordBatch};
use arrow::compute::{filter, filter_record_batch};
use arrow::datatypes::{DataType, Field as ArrowField, Schema, TimestampMicrosecondType};
use futures::TryStreamExt;
use headwater_core::batch::{BatchSource, Fragment, Positions, ScanBatch, ScanRequest, ScanStream, TimeRange};
use headwater_core::definitions::timestamp_type;
use headwater_core::{Error, ErrorKind, Micros, Origin, Position, Result};

use crate::cast::{cast, cast_batch};
use crate::project::Project;
use crate::view::{BatchInput, View, ViewRows};

/// The rows of a view's batch source in an interval, fragment by fragment.
pub(crate) struct BatchRows {
    view: Arc<View>,
    input: BatchInput,
    source: Arc<dyn BatchSource>,
    request: ScanRequest,
    fragments: Vec<Fragment>,
    reading: Option<ScanStream>,
    /// Fragments that are read.
    pub(crate) done: usize,
    /// Rows read.
    pub(crate) read: u64,
    /// Rows of the interval.
    pub(crate) rows: u64,
    /// Rows without a join key or event time, which belong to nobody.
    pub(crate) skipped: u64,
}

/// What comes next of a scan.
#[allow(clippy::large_enum_variant)] // There is one at a time, and nearly every one is rows.
pub(crate) enum Scanned {
    /// Rows.
    Rows(ViewRows),
    /// The end of a fragment.
    Fragment,
}

impl BatchRows {
    /// The rows from `start` to `end`, both inclusive; without one there is no bound. `Err` says in words why there are
    /// none: the source does not exist yet, or the view has none.
    ///
    /// # Errors
    /// `Invalid` where the source lacks columns; those of the source.
    pub(crate) async fn open(
        project: &Project,
        view: &Arc<View>,
        start: Option<Micros>,
        end: Option<Micros>,
    ) -> Result<std::result::Result<Self, String>> {
        let Some(input) = &view.batch else { return Ok(Err(format!("view `{}` has no batch source", view.name))) };
        let source = project.batch_source(&input.source)?;
        let schema = match source.schema().await {
            Ok(schema) => schema,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let identity = source.identity();
                return Ok(Err(format!("source `{}` has no rows yet: {identity} does not exist", input.source)));
            }
            Err(error) => return Err(error),
        };
        let missing: Vec<String> = view
            .schema()
            .fields()
            .iter()
            .map(|field| input.column(field.name()))
            .filter(|column| schema.field_with_name(column).is_err())
            .map(|column| format!("`{column}`"))
            .collect();
        if !missing.is_empty() {
            return Err(Error::invalid(format!(
                "source `{}` of view `{}` has no column {}",
                input.source,
                view.name,
                missing.join(", ")
            )));
        }
        let request = ScanRequest {
            columns: Some(view.schema().fields().iter().map(|f| input.column(f.name()).to_owned()).collect()),
            time: Some(TimeRange { column: input.column(&view.event_time).to_owned(), from: start, to: end }),
            keys: None,
        };
        let fragments = source.fragments(&request).await?;
        Ok(Ok(Self {
            view: Arc::clone(view),
            input: input.clone(),
            source,
            request,
            fragments,
            reading: None,
            done: 0,
            read: 0,
            rows: 0,
            skipped: 0,
        }))
    }

    /// How many fragments there are.
    pub(crate) fn total(&self) -> usize {
        self.fragments.len()
    }

    /// What comes next; `None` when all is read.
    ///
    /// # Errors
    /// `Data`, naming the row, where a value does not fit its field; those of the source.
    pub(crate) async fn next(&mut self) -> Result<Option<Scanned>> {
        let Some(fragment) = self.fragments.get(self.done) else { return Ok(None) };
        let mut reading = match self.reading.take() {
            Some(reading) => reading,
            None => self.source.read(fragment, &self.request).await?,
        };
        match reading.try_next().await? {
            Some(batch) => {
                self.reading = Some(reading);
                self.read += batch.rows.num_rows() as u64;
                let fragment = fragment.clone();
                Ok(Some(Scanned::Rows(self.wanted(&fragment, batch)?)))
            }
            None => {
                self.done += 1;
                Ok(Some(Scanned::Fragment))
            }
        }
    }

    /// The rows of a batch that lie in the interval and belong to somebody, in the view's columns.
    fn wanted(&mut self, fragment: &Fragment, batch: ScanBatch) -> Result<ViewRows> {
        let (view, input) = (&self.view, &self.input);
        let schema = view.schema();
        let positions = match batch.positions {
            Positions::Each(positions) => positions,
            Positions::Consecutive(first) => (first..)
                .take(batch.rows.num_rows())
                .map(|position| Some(position.to_be_bytes()))
                .collect::<BinaryArray>(),
        };
        let mut fields = Vec::with_capacity(schema.fields().len());
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let name = input.column(field.name());
            let column = batch.rows.column_by_name(name).ok_or_else(|| {
                Error::unexpected(format!("source `{}` left out the column `{name}` that was asked for", input.source))
            })?;
            fields.push(ArrowField::new(field.name(), column.data_type().clone(), true));
            columns.push(Arc::clone(column));
        }
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        let fault = |positions: &BinaryArray, row: usize, reason: &str| {
            let position = Position::new(positions.value(row).to_vec());
            let position = position.to_u64().map_or_else(|| position.to_string(), |number| number.to_string());
            Error::data(format!(
                "source `{}`, `{}`, row {position}: {reason}",
                input.source,
                String::from_utf8_lossy(fragment.split.as_bytes())
            ))
        };

        let time = rows.column_by_name(&view.event_time).map_or_else(
            || Err(Error::unexpected("a view's rows have its event time")),
            |column| cast(column, &timestamp_type(), None),
        )?;
        if let Some(failure) = time.failures.first() {
            return Err(fault(&positions, failure.row, &format!("column `{}`: {}", view.event_time, failure.reason)));
        }
        let times = time.array.as_primitive::<TimestampMicrosecondType>();
        let keys: Vec<&ArrayRef> = view.keys.iter().filter_map(|key| rows.column_by_name(&key.name)).collect();
        let (start, end) = self.request.time.as_ref().map_or((None, None), |range| (range.from, range.to));
        let mut skipped = 0;
        let wanted: BooleanArray = (0..rows.num_rows())
            .map(|row| {
                if times.is_null(row) || keys.iter().any(|key| key.is_null(row)) {
                    skipped += 1;
                    return Some(false);
                }
                let time = times.value(row);
                Some(start.is_none_or(|start| time >= start) && end.is_none_or(|end| time <= end))
            })
            .collect();
        let rows = filter_record_batch(&rows, &wanted)?;
        let positions = filter(&positions, &wanted)?.as_binary::<i32>().clone();
        let (columns, failures) = cast_batch(&rows, &schema, None)?;
        if let Some(failure) = failures.first() {
            return Err(fault(&positions, failure.row, &failure.reason));
        }
        self.skipped += skipped;
        self.rows += rows.num_rows() as u64;
        Ok(ViewRows {
            rows: RecordBatch::try_new(schema, columns)?,
            origin: Origin::Batch,
            split: fragment.split.clone(),
            positions,
            ordinals: None,
        })
    }
}

/// The earliest and the latest event time in a table; `None` where there are none. Statistics are believed.
///
/// # Errors
/// `Data` where a value is no time; those of the source.
pub(crate) async fn time_bounds(source: &dyn BatchSource, column: &str) -> Result<Option<(Micros, Micros)>> {
    let schema = match source.schema().await {
        Ok(schema) => schema,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // Statistics are only asked of columns whose order is that of the values.
    let ordered = schema
        .field_with_name(column)
        .is_ok_and(|field| matches!(field.data_type(), DataType::Timestamp(..) | DataType::Date32 | DataType::Date64));
    let request = ScanRequest {
        columns: Some(vec![column.to_owned()]),
        time: ordered.then(|| TimeRange { column: column.to_owned(), from: None, to: None }),
        keys: None,
    };
    let mut bounds: Option<(Micros, Micros)> = None;
    let mut widen = |(low, high): (Micros, Micros)| {
        bounds = Some(bounds.map_or((low, high), |(least, most)| (least.min(low), most.max(high))));
    };
    for fragment in source.fragments(&request).await? {
        if let Some(known) = fragment.time {
            widen(known);
            continue;
        }
        let mut batches = source.read(&fragment, &request).await?;
        while let Some(batch) = batches.try_next().await? {
            let Some(column) = batch.rows.columns().first() else { continue };
            let times = cast(column, &timestamp_type(), None)?;
            if let Some(failure) = times.failures.first() {
                return Err(Error::data(format!("{}: {}", source.identity(), failure.reason)));
            }
            let times = times.array.as_primitive::<TimestampMicrosecondType>();
            if let (Some(low), Some(high)) = (arrow::compute::min(times), arrow::compute::max(times)) {
                widen((low, high));
            }
        }
    }
    Ok(bounds)
}

impl View {
    /// The earliest and the latest event time of its batch rows; `None` where there are none.
    ///
    /// # Errors
    /// As [`time_bounds`].
    pub(crate) async fn batch_bounds(&self, project: &Project) -> Result<Option<(Micros, Micros)>> {
        let Some(input) = &self.batch else { return Ok(None) };
        let source = project.batch_source(&input.source)?;
        time_bounds(source.as_ref(), input.column(&self.event_time)).await
    }
}
