//! `aggregations`, right and wrong.

use headwater_core::definitions::{
    AggregateFunction, Aggregation, Definitions, Entity, FeatureView, RecordFormat, Source, StoreDefinition,
    StreamSettings, ValueType,
};
use headwater_core::options::Duration;
use headwater_engine::definitions::check;

use super::wrong::{Case, case, check_cases};
use super::{read, registry};

/// The file that every wrong one is an edit of.
const BASE: &str = include_str!("windows.yaml");

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;

const SUM: &str = "{ column: amount, function: sum, time_window: 1h, slide_interval: 5m, name: amount_1h }";

#[rustfmt::skip]
const CASES: &[Case] = &[
    // The list and its elements.
    case("aggregations:", "aggregation:", "aggregation:", "unknown key `aggregation`", "did you mean `aggregations`?"),
    case("      - { column: amount, function: sum, time_window: 1h, slide_interval: 5m, name: amount_1h }", "      - amount_1h", "amount_1h", "expected an aggregation, such as `{ column: amount, function: sum, time_window: 1h }`, found the text `amount_1h`", ""),
    case("{ function: count }", "{ function: count, window: 1h }", "window: 1h }", "unknown key `window`", "did you mean `time_window`?"),
    case("column: amount, function: sum", "colum: amount, function: sum", "colum: amount", "unknown key `colum`", "did you mean `column`?"),

    // Functions.
    case("function: sum", "function: summ", "summ", "there is no function `summ`; there are `sum`, `count`, `min`, `max`, `mean`, `stddev`, `last`, `last_n`, `last_distinct_n`, `approx_count_distinct`, `approx_percentile`", "did you mean `sum`?"),
    case("function: sum", "function: avg", "avg", "there is no function `avg`", "did you mean `mean`?"),
    case("function: sum", "function: median", "median", "there is no function `median`", "did you mean `approx_percentile`?"),
    case("function: sum", "function: 7", "7, time", "expected text, found the number `7`", "put it in quotes"),
    case("{ function: count }", "{ column: amount }", "{ column: amount }", "`function` is missing: one of `sum`", ""),
    case("{ function: count }", "{ function: sum }", "{ function: sum }", "`sum` needs a `column`; only `count` can do without", ""),

    // What functions take.
    case("last_distinct_n, n: 3", "last_distinct_n", "{ column: category", "`last_distinct_n` needs `n`: how many values at most", ""),
    case("n: 3", "n: 0", "0, time", "`n` is 0, and has to be from 1 to 1000", ""),
    case("n: 3", "n: 1001", "1001", "`n` is 1001, and has to be from 1 to 1000", ""),
    case("n: 3", "n: 2.5", "2.5", "expected a whole number, found the number `2.5`", ""),
    case("n: 3", "n: many", "many", "expected a whole number, found the text `many`", ""),
    case("{ function: count }", "{ function: count, n: 3 }", "n: 3 }", "`count` takes no `n`; `last_n` and `last_distinct_n` do", ""),
    case("approx_percentile, percentile: 0.95", "approx_percentile", "{ column: amount, function: approx", "`approx_percentile` needs a `percentile` from 0 to 1", ""),
    case("percentile: 0.95", "percentile: 95", "95,", "`percentile` is 95, and has to be from 0 to 1", "did you mean `0.95`?"),
    case("percentile: 0.95", "percentile: -0.5", "-0.5", "`percentile` is -0.5, and has to be from 0 to 1", ""),
    case("percentile: 0.95", "percentile: p95", "p95", "expected a number, found the text `p95`", ""),
    case("{ function: count }", "{ function: count, percentile: 0.5 }", "percentile: 0.5 }", "`count` takes no `percentile`; `approx_percentile` does", ""),

    // Columns.
    case("column: amount, function: sum", "column: amuont, function: sum", "amuont", "`amuont` is no column of the source `order_events`, which has `amount`, `category`, `items`", "did you mean `amount`?"),
    case("column: amount, function: sum", "column: user_id, function: sum", "user_id, function", "`user_id` is a join key; aggregations are computed from the other columns", ""),
    case("column: amount, function: sum", "column: ordered_at, function: max", "ordered_at, function", "`ordered_at` is the event time", ""),
    case("column: amount, function: sum", "column: created, function: max", "created, function", "`created` is the created time", ""),
    case("column: amount, function: sum", "column: \"\", function: sum", "\"\"", "`column` is empty", ""),
    case("column: amount, function: sum", "column: category, function: sum", "category, function: sum", "the column `category` does not fit: `sum` takes `int32`, `int64`, `float32` and `float64` columns, not `string`", ""),
    case("column: amount, function: sum", "column: items, function: last", "items, function", "the column `items` is struct<id: int>, which no feature can be", ""),

    // Windows.
    case("time_window: 1h", "time_window: 1hour", "1hour", "`1hour` is not a duration", ""),
    case("time_window: 1h", "time_window: 3600", "3600", "expected a duration", "did you mean `3600s`?"),
    case("time_window: 1h", "time_window: 0s", "0s", "`time_window` has to be longer than nothing", ""),
    case("slide_interval: 5m", "slide_interval: 0", "0, name", "`slide_interval` has to be longer than nothing", ""),
    case("slide_interval: 5m", "slide_interval: 2h", "2h", "`slide_interval` is 2h, longer than its `time_window` of 1h", ""),
    case("time_window: 1h, slide_interval: 5m", "time_window: 7d, slide_interval: 1m", "1m, name", "has 10080 steps, and 1000 is the most: `slide_interval` has to be at least 604800ms, and is 14h where it is left out", ""),
    case("time_window: 1h, slide_interval: 5m", "time_window: 1001m, slide_interval: 1m", "1m, name", "a `time_window` of 1001m in steps of 1m has 1001 steps, and 1000 is the most: `slide_interval` has to be at least 60060ms, and is 5005s where it is left out", ""),
    case("time_window: 1h, slide_interval: 5m", "time_window: 60000000001us, slide_interval: 1m", "1m, name", "in steps of 1m has 1001 steps, and 1000 is the most", ""),
    case("time_window: 1h, ", "", "5m", "a `slide_interval` needs a `time_window`", ""),

    // Names.
    case("name: amount_1h", "name: \"\"", "\"\"", "`name` is empty", ""),
    case("name: amount_1h", "name: _amount", "_amount", "begins with `_`", ""),
    case("name: amount_1h", "name: user_id", "user_id }", "the feature `user_id` is called as a join key is", ""),
    case("name: amount_1h", "name: ordered_at", "ordered_at }", "the feature `ordered_at` is called as the event time is", ""),
    case("name: amount_1h", "name: created", "created }", "the feature `created` is called as the created time is", ""),
    case("      - { function: count }", "      - { function: count }\n      - { column: amount, function: mean, name: amount_1h }", "amount_1h }\n\n", "two features are called `amount_1h`", ""),
    case("      - { function: count }", "      - { function: count }\n      - { function: count }", "{ function: count }\n\n", "two features are called `count`; give one of them a `name`", ""),

    // The view around them.
    case("    offline: true", "    ttl: 1d", "1d\n    agg", "a view with aggregations has no `ttl`", ""),
    case("feature_views: []", "feature_views:\n  - name: table\n    source: orders\n    entities: [user]\n    aggregations: [{ function: count }]", "aggregations: [{", "`aggregations` is for views among `stream_feature_views`", ""),
    case("    offline: true", "    schema: [{ name: amount_1h, dtype: float64 }]", "[{ name: amount_1h", "`schema` lacks `last_distinct_n_category_2592000s`, `approx_percentile_amount_86400s`, `count`", ""),
    case("    offline: true", "    schema: [{ name: amount_2h, dtype: float64 }]", "amount_2h", "`amount_2h` is no feature of the view's aggregations, which are `amount_1h`, `last_distinct_n_category_2592000s`, `approx_percentile_amount_86400s`, `count`", "did you mean `amount_1h`?"),
    case("spending:approx", "spending:aprox", "\"spending:aprox", "the view `spending` has no feature `aprox_percentile_amount_86400s`; it has `amount_1h`", "did you mean `approx_percentile_amount_86400s`?"),
];

#[test]
fn every_wrong_aggregation_has_one_clear_error_at_its_place() {
    assert!(CASES.len() >= 40, "{} cases", CASES.len());
    assert!(BASE.contains(SUM));
    check_cases(BASE, CASES);
}

#[test]
fn a_window_may_have_a_thousand_steps() {
    let most = "time_window: 1000m, slide_interval: 1m";
    let definitions = read(&BASE.replace("time_window: 1h, slide_interval: 5m", most)).unwrap();
    let window = &definitions.feature_views[0].aggregations[0];
    assert_eq!((window.time_window, window.slide_interval), (Some(Duration(1_000 * MINUTE)), Some(Duration(MINUTE))));
    check(&definitions, &registry()).unwrap();
}

#[test]
fn all_that_is_wrong_with_aggregations_is_said_at_once() {
    let wrong = BASE
        .replace("function: sum", "function: summ")
        .replace("n: 3, time_window: 30d", "n: 0, time_window: 0d")
        .replace("percentile: 0.95", "percentile: 2")
        .replace("{ function: count }", "{ function: max, name: user_id }");
    let errors = read(&wrong).unwrap_err();
    let paths: Vec<&str> = errors.faults.iter().map(|fault| fault.path.as_str()).collect();
    let at = |rest: &str| format!("stream_feature_views[spending].aggregations{rest}");
    assert_eq!(
        paths,
        [
            at("[amount_1h].function"),
            at("[1].n"),
            at("[1].time_window"),
            at("[2].percentile"),
            at("[user_id].column"),
            at("[user_id].name"),
        ],
        "{errors}"
    );
}

#[test]
fn aggregations_say_the_same_in_rust() {
    let settings = StreamSettings::new("orders").record_format(RecordFormat::json(
        "user_id bigint, ordered_at timestamp, created timestamp, amount double, category string, items struct<id: int>",
    ));
    let built = Definitions::new("shop")
        .registry("data/registry.json")
        .online_store(StoreDefinition::new("sqlite").option("path", "data/online.db"))
        .offline_store(StoreDefinition::new("parquet").option("path", "data/offline"))
        .entity(Entity::new("user", ValueType::Int64).join_key("user_id"))
        .source(
            Source::batch("orders", "file")
                .option("path", "data/orders.parquet")
                .timestamp_field("ordered_at")
                .created_timestamp_column("created"),
        )
        .source(
            Source::stream("order_events", "kafka", settings)
                .option("bootstrap_servers", "localhost:9092")
                .option("topic", "orders"),
        )
        .view(
            FeatureView::stream("spending", "order_events")
                .entity("user")
                .offline(true)
                .aggregation(
                    Aggregation::new(AggregateFunction::Sum, "amount")
                        .time_window(Duration(HOUR))
                        .slide_interval(Duration(5 * MINUTE))
                        .name("amount_1h"),
                )
                .aggregation(
                    Aggregation::new(AggregateFunction::LastDistinctN { n: 3 }, "category")
                        .time_window(Duration(30 * 24 * HOUR)),
                )
                .aggregation(
                    Aggregation::new(AggregateFunction::ApproxPercentile { percentile: 0.95 }, "amount")
                        .time_window(Duration(24 * HOUR)),
                )
                .aggregation(Aggregation::count()),
        );
    let mut read = read(BASE).unwrap();
    read.feature_services.clear();
    assert_eq!(read, built);
    check(&built, &registry()).unwrap();
}

#[test]
fn what_code_can_say_wrong_is_found_too() {
    let view = |aggregation: Aggregation| {
        let mut definitions = read(BASE).unwrap();
        definitions.feature_services.clear();
        definitions.feature_views[0].aggregations = vec![aggregation];
        check(&definitions, &registry()).unwrap_err().to_string()
    };
    let last = |n| Aggregation::new(AggregateFunction::LastN { n }, "category");
    assert!(view(last(0)).contains("`n` is 0, and has to be from 1 to 1000"));
    assert!(view(last(5000)).contains("aggregations[0].n: `n` is 5000"));
    let share = |percentile| Aggregation::new(AggregateFunction::ApproxPercentile { percentile }, "amount");
    assert!(view(share(f64::NAN)).contains("`percentile` is NaN, and has to be from 0 to 1"));
    assert!(view(Aggregation::count().time_window(Duration(-5))).contains("longer than nothing"));
    assert!(view(Aggregation::count().name("")).contains("`name` is empty"));
}

#[test]
fn features_are_named_as_feast_names_them() {
    let sum = || Aggregation::new(AggregateFunction::Sum, "amount");
    assert_eq!(sum().feature(), "sum_amount");
    assert_eq!(sum().time_window(Duration(HOUR)).feature(), "sum_amount_3600s");
    assert_eq!(sum().time_window(Duration(HOUR + 1)).feature(), "sum_amount_3600000001us");
    assert_eq!(sum().time_window(Duration(HOUR)).name("spent").feature(), "spent");
    assert_eq!(Aggregation::count().time_window(Duration(HOUR)).feature(), "count_3600s");
}
