//! Checks of aggregations, from a file or from code.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use headwater_core::definitions::{AggregateFunction, Aggregation, FeatureView, ValueType};
use headwater_core::options::Duration;

use super::{DEFAULT_STEPS, MAX_STEPS, place_of};
use crate::definitions::check::column_is_valid;
use crate::definitions::place::{Faults, Place, did_you_mean, list};
use crate::definitions::resolve::{type_name, value_type};
use crate::windows::{MAX_N, output_type};

/// The columns of a view that are taken: its join keys, its event time, its created time.
pub(in crate::definitions) struct Columns<'d> {
    /// The join keys.
    pub(in crate::definitions) keys: Vec<&'d str>,
    /// The event time, if it is known.
    pub(in crate::definitions) event_time: Option<&'d str>,
    /// The created time, if there is one.
    pub(in crate::definitions) created: Option<&'d str>,
}

impl Columns<'_> {
    /// What a column is, if it is taken.
    fn what(&self, column: &str) -> Option<&'static str> {
        if self.keys.contains(&column) {
            Some("a join key")
        } else if self.event_time == Some(column) {
            Some("the event time")
        } else if self.created == Some(column) {
            Some("the created time")
        } else {
            None
        }
    }
}

/// Checks what a view says of aggregations. `known` are the columns of its rows, where they are known by now.
pub(in crate::definitions) fn check(
    view: &FeatureView,
    columns: &Columns<'_>,
    known: Option<&[(String, DataType)]>,
    place: &Place<'_>,
    faults: &mut Faults,
) {
    if view.aggregations.is_empty() {
        return;
    }
    if !view.stream {
        let message = "`aggregations` is for views among `stream_feature_views`";
        faults.add(&place.name_of("aggregations"), message, None);
        return;
    }
    if view.ttl.0 != 0 {
        let message = "a view with aggregations has no `ttl`: a `time_window` says how far back each of them reaches";
        faults.add(&place.key("ttl"), message, None);
    }
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for (index, aggregation) in view.aggregations.iter().enumerate() {
        let at = place_of(view, index, place);
        if faults.is_silent(&at) {
            continue;
        }
        check_window(aggregation, &at, faults);
        if check_function(aggregation, &at, faults) {
            check_column(aggregation, view, columns, known, &at, faults);
        }
        let name = aggregation.feature();
        let at = if aggregation.name.is_some() { at.key("name") } else { at };
        if name.is_empty() {
            faults.add(&at, "`name` is empty: what the feature is called", None);
            continue;
        }
        column_is_valid(faults, &at, &name);
        if let Some(what) = columns.what(&name) {
            faults.add(&at, format!("the feature `{name}` is called as {what} is"), None);
        }
        if names.insert(name.clone(), index).is_some() {
            let advice = if aggregation.name.is_some() { "" } else { "; give one of them a `name`" };
            faults.add_again(&at, format!("two features are called `{name}`{advice}"));
        }
    }
    check_schema(view, place, faults);
}

/// Checks what a function takes beside its column. Says whether all is well.
fn check_function(aggregation: &Aggregation, at: &Place<'_>, faults: &mut Faults) -> bool {
    let before = faults.len();
    match aggregation.function {
        AggregateFunction::LastN { n } | AggregateFunction::LastDistinctN { n } if !(1..=MAX_N).contains(&n) => {
            faults.add(&at.key("n"), format!("`n` is {n}, and has to be from 1 to {MAX_N}"), None);
        }
        AggregateFunction::ApproxPercentile { percentile } if !(0.0..=1.0).contains(&percentile) => {
            let hint = (1.0..=100.0).contains(&percentile).then(|| format!("did you mean `{}`?", percentile / 100.0));
            let message = format!("`percentile` is {percentile}, and has to be from 0 to 1");
            faults.add(&at.key("percentile"), message, hint);
        }
        _ => {}
    }
    faults.len() == before
}

fn check_window(aggregation: &Aggregation, at: &Place<'_>, faults: &mut Faults) {
    let (window, slide) = (aggregation.time_window, aggregation.slide_interval);
    let too_short = |key: &str, faults: &mut Faults| {
        faults.add(&at.key(key), format!("`{key}` has to be longer than nothing"), None);
    };
    if window.is_some_and(|window| window.0 <= 0) {
        too_short("time_window", faults);
        return;
    }
    let Some(Duration(slide)) = slide else { return };
    let at_slide = at.key("slide_interval");
    let Some(Duration(window)) = window else {
        let message = "a `slide_interval` needs a `time_window`: without one all that ever was is counted";
        faults.add(&at_slide, message, None);
        return;
    };
    if slide <= 0 {
        too_short("slide_interval", faults);
    } else if slide > window {
        let message =
            format!("`slide_interval` is {}, longer than its `time_window` of {}", Duration(slide), Duration(window));
        faults.add(&at_slide, message, None);
    } else if window > slide.saturating_mul(MAX_STEPS) {
        let (steps, least) = (divide_up(window, slide), divide_up(window, MAX_STEPS));
        let message = format!(
            "a `time_window` of {} in steps of {} has {steps} steps, and {MAX_STEPS} is the most: `slide_interval` has \
             to be at least {}, and is {} where it is left out",
            Duration(window),
            Duration(slide),
            Duration(least),
            Duration((window / DEFAULT_STEPS).max(1))
        );
        faults.add(&at_slide, message, None);
    }
}

fn divide_up(length: i64, by: i64) -> i64 {
    length / by + i64::from(length % by != 0)
}

fn check_column(
    aggregation: &Aggregation,
    view: &FeatureView,
    columns: &Columns<'_>,
    known: Option<&[(String, DataType)]>,
    at: &Place<'_>,
    faults: &mut Faults,
) {
    let function = &aggregation.function;
    let Some(column) = &aggregation.column else {
        if *function != AggregateFunction::Count {
            let message = format!("`{function}` needs a `column`; only `count` can do without, and counts rows");
            faults.add(&at.key("column"), message, None);
        }
        return;
    };
    let at = at.key("column");
    if column.is_empty() {
        faults.add(&at, "`column` is empty: what to compute it from", None);
        return;
    }
    if let Some(what) = columns.what(column) {
        let message = format!("`{column}` is {what}; aggregations are computed from the other columns");
        faults.add(&at, message, None);
        return;
    }
    let Some(known) = known else {
        column_is_valid(faults, &at, column);
        return;
    };
    let others = || known.iter().map(|(name, _)| name.as_str()).filter(|name| columns.what(name).is_none());
    match known.iter().find(|(name, _)| name == column) {
        None => {
            let message =
                format!("`{column}` is no column of the source `{}`, which has {}", view.source, list(others()));
            faults.add(&at, message, did_you_mean(column, others()));
        }
        Some((_, data_type)) => {
            if let Err(message) = fits(function, column, data_type) {
                faults.add(&at, message, None);
            }
        }
    }
}

/// The type of a column, and that of what a function makes of it.
///
/// # Errors
/// A message where the function does not take such columns.
pub(super) fn fits(
    function: &AggregateFunction,
    column: &str,
    data_type: &DataType,
) -> Result<(ValueType, ValueType), String> {
    let Some(of) = value_type(data_type) else {
        return Err(format!("the column `{column}` is {}, which no feature can be", type_name(data_type)));
    };
    match output_type(*function, Some(&of)) {
        Ok(output) => Ok((of, output)),
        Err(error) => Err(format!("the column `{column}` does not fit: {}", error.message())),
    }
}

/// Checks that a schema that is given lists the features of the aggregations.
fn check_schema(view: &FeatureView, place: &Place<'_>, faults: &mut Faults) {
    if view.schema.is_empty() {
        return;
    }
    let Some(features) = features(view, place, faults) else { return };
    let schema = place.key("schema");
    let mut known = true;
    for (index, field) in view.schema.iter().enumerate().filter(|(_, field)| !field.name.is_empty()) {
        if !features.contains(&field.name) {
            let names = || features.iter().map(String::as_str);
            let message = format!(
                "`{}` is no feature of the view's aggregations, which are {}; `schema` may be left out",
                field.name,
                list(names())
            );
            let at = schema.item(index, &field.name).key("name");
            faults.add(&at, message, did_you_mean(&field.name, names()));
            known = false;
        }
    }
    let missing = features.iter().filter(|name| !view.schema.iter().any(|field| field.name == **name));
    let missing: Vec<&str> = missing.map(String::as_str).collect();
    if known && !missing.is_empty() {
        let message = format!("`schema` lacks {}; it follows from the aggregations and may be left out", list(missing));
        faults.add(&schema, message, None);
    }
}

/// The features of a view with aggregations, in order; nothing where one of them is in doubt.
pub(in crate::definitions) fn features(view: &FeatureView, place: &Place<'_>, faults: &Faults) -> Option<Vec<String>> {
    let clear = (0..view.aggregations.len()).all(|index| !faults.is_silent(&place_of(view, index, place)));
    clear.then(|| view.aggregations.iter().map(Aggregation::feature).collect())
}
