//! Which row groups a scan can leave out.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Date64Type, Int64Type, TimeUnit};
use arrow::datatypes::{
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use headwater_core::Micros;
use headwater_core::batch::{KeyBounds, KeyRange, ScanRequest, TimeRange};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;

use super::partitions::Constants;

const DAY: Micros = 86_400_000_000;

/// A row group that may hold wanted rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) group: usize,
    /// The number of its first row in the file, counted from 1.
    pub(super) first: u64,
    pub(super) rows: u64,
    pub(super) time: Option<(Micros, Micros)>,
}

/// The smallest and greatest values of one column, one for each row group; null where unknown.
struct Bounds {
    least: ArrayRef,
    greatest: ArrayRef,
}

/// The row groups that may hold rows that `request` wants.
pub(super) fn pieces(footer: &ArrowReaderMetadata, constants: &Constants, request: &ScanRequest) -> Vec<Piece> {
    let times = request.time.as_ref().and_then(|range| bounds(footer, &range.column));
    let keys = request.keys.as_ref().and_then(|range| Some((range, bounds(footer, &range.column)?)));
    let constant = constant_time(constants, request);
    let mut first = 1;
    let mut pieces = Vec::new();
    for (group, metadata) in footer.metadata().row_groups().iter().enumerate() {
        let rows = u64::try_from(metadata.num_rows()).unwrap_or(0);
        let time = times.as_ref().and_then(|bounds| time_bounds(bounds, group)).or(constant);
        let outside = |range: &TimeRange| time.is_some_and(|time| !overlaps(range, time));
        let excluded = request.time.as_ref().is_some_and(outside)
            || keys.as_ref().is_some_and(|(range, bounds)| keys_exclude(range, bounds, group));
        if rows > 0 && !excluded {
            pieces.push(Piece { group, first, rows, time });
        }
        first += rows;
    }
    pieces
}

/// Whether the values of a file's partitions show that it holds no wanted row.
pub(super) fn partition_excludes(constants: &Constants, request: &ScanRequest) -> bool {
    let outside = request.time.as_ref().is_some_and(|range| {
        constants.contains_key(&range.column)
            && constant_time(constants, request).is_some_and(|time| !overlaps(range, time))
    });
    let no_key = request.keys.as_ref().is_some_and(|range| {
        constants
            .get(&range.column)
            .is_some_and(|value| keys_exclude(range, &Bounds { least: value.clone(), greatest: value.clone() }, 0))
    });
    outside || no_key
}

/// The one time of all rows of a file whose partition is the time column.
pub(super) fn constant_time(constants: &Constants, request: &ScanRequest) -> Option<(Micros, Micros)> {
    let value = constants.get(&request.time.as_ref()?.column)?;
    time_bounds(&Bounds { least: value.clone(), greatest: value.clone() }, 0)
}

fn overlaps(range: &TimeRange, (least, greatest): (Micros, Micros)) -> bool {
    range.from.is_none_or(|from| greatest >= from) && range.to.is_none_or(|to| least <= to)
}

/// The statistics of a column; `None` where the file does not have it, or its statistics are of no use.
fn bounds(footer: &ArrowReaderMetadata, column: &str) -> Option<Bounds> {
    let converter = StatisticsConverter::try_new(column, footer.schema(), footer.parquet_schema()).ok()?;
    let index = converter.parquet_column_index()?;
    let groups = footer.metadata().row_groups();
    // Old writers ordered text by signed bytes in the deprecated fields.
    let signed = converter.arrow_field().data_type();
    let ordered = signed.is_signed_integer() || signed.is_temporal();
    let doubtful = |group: &parquet::file::metadata::RowGroupMetaData| {
        group
            .columns()
            .get(index)
            .and_then(|chunk| chunk.statistics())
            .is_some_and(|found| found.is_min_max_deprecated())
    };
    if !ordered && groups.iter().any(doubtful) {
        return None;
    }
    let least = converter.row_group_mins(groups).ok()?;
    let greatest = converter.row_group_maxes(groups).ok()?;
    Some(Bounds { least, greatest })
}

/// The times of a row group. Finer units are rounded outwards.
fn time_bounds(bounds: &Bounds, group: usize) -> Option<(Micros, Micros)> {
    Some((micros(&bounds.least, group, false)?, micros(&bounds.greatest, group, true)?))
}

fn micros(values: &ArrayRef, index: usize, up: bool) -> Option<Micros> {
    if index >= values.len() || values.is_null(index) {
        return None;
    }
    match values.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => {
            values.as_primitive::<TimestampSecondType>().value(index).checked_mul(1_000_000)
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            values.as_primitive::<TimestampMillisecondType>().value(index).checked_mul(1_000)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Some(values.as_primitive::<TimestampMicrosecondType>().value(index))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            let nanos = values.as_primitive::<TimestampNanosecondType>().value(index);
            let down = nanos.div_euclid(1_000);
            Some(if up && nanos.rem_euclid(1_000) > 0 { down + 1 } else { down })
        }
        DataType::Date32 => Micros::from(values.as_primitive::<Date32Type>().value(index)).checked_mul(DAY),
        DataType::Date64 => values.as_primitive::<Date64Type>().value(index).checked_mul(1_000),
        _ => None,
    }
}

fn keys_exclude(range: &KeyRange, bounds: &Bounds, group: usize) -> bool {
    match &range.values {
        KeyBounds::Int(from, to) => {
            let (Some(least), Some(greatest)) = (integer(&bounds.least, group), integer(&bounds.greatest, group))
            else {
                return false;
            };
            greatest < *from || least > *to
        }
        KeyBounds::Text(from, to) => {
            let (Some(least), Some(greatest)) = (text(&bounds.least, group), text(&bounds.greatest, group)) else {
                return false;
            };
            greatest.as_str() < from.as_str() || least.as_str() > to.as_str()
        }
    }
}

fn integer(values: &ArrayRef, index: usize) -> Option<i64> {
    if !values.data_type().is_integer() || index >= values.len() {
        return None;
    }
    let value = cast(&values.slice(index, 1), &DataType::Int64).ok()?;
    value.is_valid(0).then(|| value.as_primitive::<Int64Type>().value(0))
}

fn text(values: &ArrayRef, index: usize) -> Option<String> {
    let is_text = match values.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, inner) => matches!(**inner, DataType::Utf8 | DataType::LargeUtf8),
        _ => false,
    };
    if !is_text || index >= values.len() {
        return None;
    }
    let value = cast(&values.slice(index, 1), &DataType::Utf8).ok()?;
    value.is_valid(0).then(|| value.as_string::<i32>().value(0).to_owned())
}
