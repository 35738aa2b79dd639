//! Aggregations resolved to windows.

use headwater_core::ErrorKind;
use headwater_core::definitions::{AggregateFunction, Aggregation, Definitions, FeatureView, Field, ValueType};
use headwater_core::options::Duration;

use super::resolve::{fault, resolved, view};
use super::{PickExt, project};
use crate::windows::Window;

const HOUR: i64 = 3_600_000_000;

fn of(function: AggregateFunction, column: &str) -> Aggregation {
    Aggregation::new(function, column)
}

/// The project's view with these aggregations, over the columns `conv` and `acc`.
fn windowed(aggregations: &[Aggregation]) -> Definitions {
    project(|mut view: FeatureView| {
        view.schema.clear();
        view = view.pick("driver_id, ts, made, conv, acc, trip=driver_id");
        aggregations.iter().fold(view, |view, aggregation| view.aggregation(aggregation.clone()))
    })
}

fn hourly() -> Vec<Aggregation> {
    vec![
        of(AggregateFunction::Sum, "conv").time_window(Duration(HOUR)).slide_interval(Duration(HOUR / 4)),
        Aggregation::count().time_window(Duration(HOUR)).name("trips"),
        of(AggregateFunction::LastN { n: 3 }, "trip").time_window(Duration(5)),
        of(AggregateFunction::Max, "conv"),
    ]
}

#[test]
fn features_follow_from_aggregations_and_rows_hold_their_columns() {
    let view = view(&windowed(&hourly()));
    let features: Vec<String> = view.features.iter().map(|f| format!("{} {}", f.name, f.dtype)).collect();
    assert_eq!(features, ["sum_conv_3600s float64", "trips int64", "last_n_trip_5us array(int32)", "max_conv float64"]);
    let schema = view.schema();
    let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(columns, ["driver_id", "ts", "made", "conv", "trip"], "what no aggregation needs is no part of a row");

    let windows = view.windows.unwrap();
    assert_eq!(windows.columns, [Field::new("conv", ValueType::Float64), Field::new("trip", ValueType::Int32)]);
    let columns: Vec<Option<usize>> = windows.features.iter().map(|feature| feature.column).collect();
    assert_eq!(columns, [Some(0), None, Some(1), Some(0)]);
    let spans: Vec<Option<Window>> = windows.features.iter().map(|feature| feature.window).collect();
    let window = |length, hop| Some(Window { length, hop });
    assert_eq!(
        spans,
        [window(HOUR, HOUR / 4), window(HOUR, HOUR / 12), window(5, 1), None],
        "a twelfth of the window is the step, and a microsecond the shortest"
    );
}

#[test]
fn a_schema_may_describe_the_features() {
    let mut definitions = windowed(&[Aggregation::count().name("trips")]);
    let mut field = Field::new("trips", ValueType::Int64);
    field.annotations.description = "How many".into();
    definitions.feature_views[0].schema = vec![field.clone()];
    assert_eq!(view(&definitions).features, [field]);

    definitions.feature_views[0].schema[0].dtype = ValueType::Int32;
    assert_eq!(view(&definitions).features[0].dtype, ValueType::Int32, "what does not fit is null then");

    definitions.feature_views[0].schema[0].dtype = ValueType::String;
    let message = fault(&definitions);
    assert!(
        message.contains("aggregations[trips]: `schema` has `trips` in another type: its values are `int64`"),
        "{message}"
    );
}

#[test]
fn columns_that_do_not_come_out_of_the_transform_are_named_together() {
    let message =
        fault(&windowed(&[of(AggregateFunction::Sum, "convv"), of(AggregateFunction::Last, "rate").name("newest")]));
    assert!(message.contains("aggregations[0]: there is no column `convv` among the view's rows"), "{message}");
    assert!(message.contains("did you mean `conv`?"), "{message}");
    assert!(message.contains("aggregations[newest]: there is no column `rate`"), "{message}");

    let message = fault(&windowed(&[of(AggregateFunction::Sum, "made")]));
    assert!(message.contains("`made` is the created time"), "{message}");
}

#[test]
fn aggregations_over_a_source_that_deletes_are_refused() {
    let mut definitions = windowed(&[Aggregation::count()]);
    let events = definitions.sources.iter_mut().find(|source| source.name == "events").unwrap();
    *events = events.clone().option("deletes", true);
    let error = resolved(&definitions).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let message = "the source `events` deletes entities by records without a value, and windows cannot forget events: a \
                   view with `aggregations` needs a source that ignores such records";
    assert!(error.to_string().contains(message), "{error}");

    // Without aggregations the source will do.
    let mut plain = project(|view| view);
    let events = plain.sources.iter_mut().find(|source| source.name == "events").unwrap();
    *events = events.clone().option("deletes", true);
    assert!(view(&plain).windows.is_none());
}

#[test]
fn windows_are_no_part_of_the_generation_and_names_are_no_part_of_the_epoch() {
    let resolve = |aggregations: &[Aggregation]| resolved(&windowed(aggregations)).unwrap().remove(0);
    let fingerprint =
        |aggregations: &[Aggregation]| resolve(aggregations).view.windows.as_ref().unwrap().fingerprint.clone();
    let sum = of(AggregateFunction::Sum, "conv");
    let base = resolve(std::slice::from_ref(&sum));
    let others = [
        of(AggregateFunction::Mean, "conv"),
        sum.clone().time_window(Duration(HOUR)),
        sum.clone().time_window(Duration(HOUR)).slide_interval(Duration(HOUR)),
        of(AggregateFunction::LastN { n: 1 }, "conv"),
        of(AggregateFunction::LastN { n: 2 }, "conv"),
        of(AggregateFunction::ApproxPercentile { percentile: 0.5 }, "conv"),
        of(AggregateFunction::ApproxPercentile { percentile: 0.9 }, "conv"),
    ];
    let mut seen = vec![fingerprint(std::slice::from_ref(&sum))];
    for other in others {
        let resolved = resolve(std::slice::from_ref(&other));
        assert_eq!(resolved.view.generation, base.view.generation, "{other:?}");
        let fingerprint = resolved.view.windows.unwrap().fingerprint.clone();
        assert!(!seen.contains(&fingerprint), "{other:?}");
        seen.push(fingerprint);
    }
    assert_eq!(fingerprint(&[sum.clone().name("total")]), seen[0], "a renamed feature keeps its state");

    let wider = resolve(&[sum.clone(), of(AggregateFunction::Sum, "acc")]);
    assert!(base.parts.breaks(&wider.parts).is_empty());
    assert_eq!(base.parts.added(&wider.parts), ["acc"]);
    let other = resolve(&[of(AggregateFunction::Sum, "acc")]);
    assert!(base.parts.breaks(&other.parts).join("; ").contains("the column `conv` is gone"));
}
