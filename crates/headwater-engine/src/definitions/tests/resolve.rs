use std::sync::Arc;

use arrow::array::{Array, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Schema};
use headwater_core::definitions::{
    Definitions, Entity, FeatureView, RecordFormat, Source, SourceKind, StreamSettings, ValueType, ViewTransform,
};
use headwater_core::{ErrorKind, Result};

use super::{EVENTS, PickExt, clock, project, registry, schema};
use crate::definitions::{ResolvedView, check, resolve, resolve_with_parts};
use crate::view::View;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

pub(super) fn resolved(definitions: &Definitions) -> Result<Vec<ResolvedView>> {
    check(definitions, &registry())?;
    block_on(resolve_with_parts(definitions, &registry(), &clock()))
}

pub(super) fn view(definitions: &Definitions) -> View {
    resolved(definitions).unwrap().remove(0).view
}

pub(super) fn fault(definitions: &Definitions) -> String {
    resolved(definitions).unwrap_err().to_string()
}

/// Changes the settings of the stream.
fn settings(definitions: &mut Definitions, change: impl Fn(&mut StreamSettings)) {
    for source in &mut definitions.sources {
        if let SourceKind::Stream(settings) = &mut source.kind {
            change(settings);
        }
    }
}

fn format(definitions: &mut Definitions, format: &RecordFormat) {
    settings(definitions, |settings| settings.record_format = Some(format.clone()));
}

#[test]
fn a_stream_view_has_keys_times_and_features() {
    let view = view(&project(|view| view.offline(true)));
    let names: Vec<String> = view.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["driver_id", "ts", "made", "rate"]);
    assert_eq!(view.schema().field(0).data_type(), &DataType::Int64, "the entity's type");
    assert!(view.online && view.offline);
    let stream = view.stream.unwrap();
    assert_eq!(stream.source, "events");
    let names: Vec<&str> = stream.input.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["driver_id", "ts", "made", "conv", "acc", "__timestamp", "__key"]);
    let batch = view.batch.unwrap();
    assert_eq!(batch.source, "table");
    assert!(batch.columns.is_empty());
}

#[test]
fn names_are_mapped_and_times_inherited() {
    let mut definitions =
        project(|view| view.pick("driver_id, when=event_time, made, rate=conv").timestamp_field("when"));
    definitions.sources[0] = Source::batch("table", "test")
        .option("path", "table")
        .timestamp_field("ts")
        .created_timestamp_column("created_at")
        .field_mapping("ts", "event_time")
        .field_mapping("created_at", "made")
        .field_mapping("r", "rate")
        .field_mapping("d", "driver_id");
    format(&mut definitions, &RecordFormat::json("d int, ts timestamp, created_at timestamp, conv double"));
    let view = view(&definitions);
    assert_eq!((view.event_time.as_str(), view.created.as_deref()), ("when", Some("made")));
    let columns: Vec<_> = view.batch.as_ref().unwrap().columns.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(columns, [("driver_id", "d"), ("made", "created_at"), ("rate", "r"), ("when", "ts")]);
}

#[test]
fn a_stream_need_not_know_when_its_rows_were_made() {
    let definitions = project(|view| view.pick("driver_id, ts, rate=conv"));
    let view = view(&definitions);
    let stream = view.stream.unwrap();
    let fields = stream.input.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let columns = stream.input.fields().iter().map(|field| new_null_array(field.data_type(), 2)).collect();
    let input = RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns).unwrap();
    let output = stream.transform.apply(&input).unwrap().rows;
    assert_eq!(output.column_by_name("made").unwrap().null_count(), 2);
    // One that says itself which column it is has to have it.
    let mut definitions = project(|view| view.pick("driver_id, ts, rate=conv"));
    definitions.sources[1].created_timestamp_column = Some("made".into());
    let message = fault(&definitions);
    assert!(message.contains("the created time `made` does not come out of the transform"), "{message}");
}

#[test]
fn what_does_not_fit_is_named() {
    for (text, says) in [
        (
            "driver_id, ts, made",
            "the feature `rate` does not come out of the transform, which has `driver_id`, `ts`, `made`",
        ),
        ("ts, made, rate=conv", "the join key `driver_id` does not come out"),
        ("driver_id, made, rate=conv", "the event time `ts` does not come out"),
        ("driver_id, ts, made, rat=conv", "did you mean `rat`?"),
        ("driver_id, ts, made, rate=con", "there is no column `con`"),
    ] {
        let message = fault(&project(|view| view.pick(text)));
        assert!(message.starts_with("stream_feature_views[view]: ") && message.contains(says), "{text}: {message}");
    }
    let mut definitions = project(|view| view);
    format(&mut definitions, &RecordFormat::json(EVENTS.replace("conv double", "conv struct<a: int>")));
    assert!(fault(&definitions).contains("the column `rate` is struct<a: int> and can never become float"));
    format(&mut definitions, &RecordFormat::json(EVENTS.replace("ts timestamp", "ts bigint")));
    assert!(fault(&definitions).contains("a `timestamp_unit` in the `record_format` says what the number counts"));
    format(&mut definitions, &RecordFormat::json(EVENTS.replace("ts timestamp", "ts bigint")).timestamp_unit("ms"));
    resolved(&definitions).unwrap();
    // Without the feature; with it a schema of no record is told as such.
    format(&mut definitions, &RecordFormat::avro("{}"));
    let says = if cfg!(feature = "avro") {
        "`record_format.schema`: the schema is not one of a record"
    } else {
        "this build does not decode the record format `avro`: build with the cargo feature `avro`"
    };
    assert!(fault(&definitions).contains(says), "{}", fault(&definitions));
    settings(&mut definitions, |settings| settings.record_format = None);
    assert!(fault(&definitions).contains("the records of `events` are bytes: a `record_format` has to say"));
}

#[test]
fn tables_are_compared_where_they_are() {
    let with = |columns: &str| {
        let mut definitions = project(|view| view);
        definitions.sources[0].options.insert("columns".into(), columns.into());
        definitions
    };
    resolved(&with("driver_id bigint, ts timestamp, made timestamp, rate float, other int")).unwrap();
    let message = fault(&with("driver_id bigint, ts timestamp, made timestamp, rte float"));
    assert!(message.contains("its history, the batch source `table`, holds transformed rows too"), "{message}");
    assert!(message.contains("there is no column `rate`") && message.contains("did you mean `rte`?"), "{message}");
    let message = fault(&with("driver_id array<int>, ts timestamp, made timestamp, rate float"));
    assert!(message.contains("the column `driver_id` is array<int> and can never become bigint"), "{message}");
    // Opening a store looks no further than it has to.
    let wrong = with("driver_id bigint, ts timestamp, made timestamp, rte float");
    block_on(resolve(&wrong, &registry(), &clock())).unwrap();
}

#[test]
fn a_schema_that_is_not_given_is_found() {
    let mut definitions = project(|view| view);
    definitions.feature_views[0].schema.clear();
    let features = view(&definitions).features;
    assert_eq!(features, [headwater_core::definitions::Field::new("rate", ValueType::Float64)]);

    let table = |columns: Option<&str>| {
        let mut source = Source::batch("table", "test").option("path", "t").timestamp_field("ts");
        if let Some(columns) = columns {
            source = source.option("columns", columns);
        }
        Definitions::new("demo")
            .entity(Entity::new("driver", ValueType::Int64).join_key("driver_id"))
            .source(source.field_mapping("r", "rate"))
            .view(FeatureView::batch("view", "table").entity("driver"))
    };
    let found = view(&table(Some("driver_id int, ts timestamp, r float, tags array<string>, _split string")));
    let names: Vec<String> = found.features.iter().map(|f| format!("{} {}", f.name, f.dtype)).collect();
    assert_eq!(names, ["rate float32", "tags array(string)"]);
    assert_eq!(found.batch.unwrap().column("rate"), "r");
    assert!(fault(&table(None)).contains("the source `table` has nothing yet to take it from"));
    let message = fault(&table(Some("driver_id int, ts timestamp, r struct<a: int>")));
    assert!(message.contains("no feature type fits the column `rate`"), "{message}");
}

#[test]
fn streams_of_rows_bring_their_columns() {
    let mut definitions = project(|view| view);
    settings(&mut definitions, |settings| settings.record_format = None);
    definitions.sources[1].options.insert("columns".into(), EVENTS.into());
    let stream = view(&definitions).stream.unwrap();
    assert_eq!(&stream.input.fields()[..5], &schema(EVENTS).fields()[..]);
    format(&mut definitions, &RecordFormat::json(EVENTS));
    assert!(fault(&definitions).contains("come as columns: a `record_format` has no place there"));
}

#[test]
fn what_is_pushed_is_described_by_the_view_or_by_a_schema() {
    let mut definitions = project(|view| view);
    definitions.sources[1] = Source::push("events", Some("table".into()));
    assert!(fault(&definitions).contains("the push source `events` has no `schema`"));
    definitions.sources[1] = Source::push("events", Some("table".into())).option("schema", EVENTS);
    let first = resolved(&definitions).unwrap().remove(0);
    assert_eq!(first.view.stream.unwrap().input, schema(EVENTS));
    assert_eq!(first.parts.source, "push events");

    definitions.sources[1] = Source::push("events", Some("table".into()));
    definitions.feature_views[0].transform = ViewTransform::None;
    let view = view(&definitions);
    assert_eq!(view.stream.as_ref().unwrap().input, view.schema());
}

#[test]
fn a_plugin_that_is_not_in_the_build_is_named_when_it_is_used() {
    let mut definitions = project(|view| view);
    let settings = StreamSettings::new("table").record_format(RecordFormat::json(EVENTS));
    definitions.sources[1] = Source::stream("events", "away", settings).option("path", "events");
    check(&definitions, &registry()).unwrap();
    let error = resolved(&definitions).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("build with the cargo feature `away`"), "{error}");

    let mut definitions = project(|view| view);
    definitions.feature_views[0].transform = ViewTransform::Text { mode: "off".into(), text: "x".into() };
    check(&definitions, &registry()).unwrap();
    let message = fault(&definitions);
    assert!(message.contains("this build has no transform `off`: build with the cargo feature `off`"), "{message}");
}

#[test]
fn views_that_fail_are_reported_together() {
    let mut definitions = project(|view| view.pick("driver_id"));
    let mut second = definitions.feature_views[0].clone().pick("nothing");
    second.name = "second".into();
    definitions.feature_views.push(second);
    let message = fault(&definitions);
    assert_eq!(message.lines().count(), 2, "{message}");
    assert!(message.contains("stream_feature_views[second]: there is no column `nothing`"), "{message}");
}

#[test]
fn code_is_planned_like_text() {
    let definitions = project(|view| view.code("1", super::Pick("driver_id, ts, made, rate=acc".into())));
    let first = resolved(&definitions).unwrap().remove(0);
    let text = resolved(&project(|view| view.pick("driver_id, ts, made, rate=acc"))).unwrap().remove(0);
    assert_eq!(first.view.generation, text.view.generation);
}

#[test]
fn a_moved_folder_is_the_same_source() {
    let here = resolved(&project(|view| view).base_dir("/a/b")).unwrap().remove(0);
    let there = resolved(&project(|view| view).base_dir("/c")).unwrap().remove(0);
    assert_eq!(here.view.generation, there.view.generation);
    assert_eq!(here.parts.source, "test ./events");
}
