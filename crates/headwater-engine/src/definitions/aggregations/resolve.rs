//! From checked aggregations to windows.

use arrow::datatypes::Schema;
use headwater_core::definitions::{AggregateFunction, Aggregation, FeatureView, Field, ValueType};
use headwater_core::{Error, Result};
use sha2::{Digest, Sha256};

use super::DEFAULT_STEPS;
use super::check::fits;
use crate::definitions::place::{did_you_mean, list};
use crate::windows::{Window, WindowFeature, Windows, check_type};

/// The windows of a view whose rows have these columns before they are cast.
///
/// # Errors
/// `Invalid` with all that is wrong: columns that are not there or of a type that the function does not take, a schema
/// that says other types.
pub(in crate::definitions) fn windows(view: &FeatureView, rows: &Schema) -> Result<Windows> {
    let mut columns: Vec<Field> = Vec::new();
    let mut features = Vec::new();
    let mut faults = Vec::new();
    for (index, aggregation) in view.aggregations.iter().enumerate() {
        match feature(aggregation, view, rows, &mut columns) {
            Ok(feature) => features.push(feature),
            Err(message) => {
                let name = aggregation.name.clone().unwrap_or_else(|| index.to_string());
                faults.push(format!("aggregations[{name}]: {message}"));
            }
        }
    }
    if !faults.is_empty() {
        return Err(Error::invalid(faults.join("; ")));
    }
    let fingerprint = fingerprint(&features, &columns);
    Ok(Windows { columns, features, fingerprint })
}

fn feature(
    aggregation: &Aggregation,
    view: &FeatureView,
    rows: &Schema,
    columns: &mut Vec<Field>,
) -> Result<WindowFeature, String> {
    let function = aggregation.function;
    let (column, output) = match &aggregation.column {
        None => (None, ValueType::Int64),
        Some(name) => {
            let Some((_, field)) = rows.column_with_name(name) else {
                let names = || rows.fields().iter().map(|field| field.name().as_str());
                let hint = did_you_mean(name, names()).map_or(String::new(), |hint| format!(": {hint}"));
                return Err(format!(
                    "there is no column `{name}` among the view's rows, which have {}{hint}",
                    list(names())
                ));
            };
            let (of, output) = fits(&function, name, field.data_type())?;
            let index = columns.iter().position(|known| known.name == *name).unwrap_or_else(|| {
                columns.push(Field::new(name, of));
                columns.len() - 1
            });
            (Some(index), output)
        }
    };
    let mut field = Field::new(aggregation.feature(), output);
    if let Some(given) = view.schema.iter().find(|given| given.name == field.name) {
        check_type(&field.dtype, &given.dtype)
            .map_err(|error| format!("`schema` has `{}` in another type: {}", given.name, error.message()))?;
        field.clone_from(given);
    }
    let window = aggregation.time_window.map(|length| Window {
        length: length.0,
        hop: aggregation.slide_interval.map_or_else(|| (length.0 / DEFAULT_STEPS).max(1), |slide| slide.0),
    });
    Ok(WindowFeature { field, function, column, window })
}

/// What state is kept, as a short hash. Names are no part of it: a feature may be renamed and keep its state.
fn fingerprint(features: &[WindowFeature], columns: &[Field]) -> String {
    let mut hash = Sha256::new();
    for feature in features {
        let column = feature.column.and_then(|index| columns.get(index));
        let parameter = match feature.function {
            AggregateFunction::LastN { n } | AggregateFunction::LastDistinctN { n } => n.to_string(),
            AggregateFunction::ApproxPercentile { percentile } => percentile.to_string(),
            _ => String::new(),
        };
        let window = feature.window.map_or(String::new(), |window| format!("{} {}", window.length, window.hop));
        let of = column.map_or(String::new(), |column| format!("{} {}", column.dtype, column.name));
        // The name of a column may hold anything, so it stands last, behind its length.
        hash.update(format!("{}({parameter}) [{window}] {} {of}\n", feature.function, of.len()));
    }
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
