//! Tests of the registry file and of plans.

use std::path::Path;

use headwater_core::definitions::{
    AggregateFunction, Aggregation, Definitions, Entity, FeatureService, OnError, RecordFormat, SourceKind,
    StoreDefinition, ValueType, ViewTransform,
};
use headwater_core::options::Duration;
use headwater_core::stream::StartPosition;
use headwater_core::{Error, ErrorKind};

use super::{Lock, State, plan};
use crate::definitions::tests::{EVENTS, PickExt, clock, project, registry};
use crate::plan::{Action, Kind, Plan, Rows};

fn run(state: Option<&State>, given: &Definitions) -> Result<(Plan, State), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(plan(state, given, &registry(), &clock()))
}

fn first() -> (Definitions, State) {
    let given = project(|view| view.ttl(Duration(86_400_000_000))).service(FeatureService::new("service", ["view"]));
    let (_, state) = run(None, &given).unwrap();
    (given, state)
}

type Edit = fn(&mut Definitions);

/// The plan of an edit of what [`first`] applied.
fn edit(change: impl Fn(&mut Definitions)) -> Plan {
    let (mut given, state) = first();
    change(&mut given);
    run(Some(&state), &given).unwrap().0
}

fn stream(definitions: &mut Definitions, change: impl Fn(&mut headwater_core::definitions::StreamSettings)) {
    for source in &mut definitions.sources {
        if let SourceKind::Stream(settings) = &mut source.kind {
            change(settings);
        }
    }
}

/// What a plan does to the rows of the only view; `None` where they are not spoken of.
fn rows(plan: &Plan) -> Option<&Rows> {
    plan.changes.iter().find(|change| change.kind == Kind::StreamFeatureView).and_then(|change| change.rows.as_ref())
}

fn keeps(plan: &Plan) -> bool {
    match rows(plan) {
        None => true,
        Some(Rows::Keep { added, .. }) => added.is_empty(),
        Some(_) => false,
    }
}

fn because(plan: &Plan) -> String {
    match rows(plan) {
        Some(Rows::Replace { because, .. }) => because.join("; "),
        other => panic!("{other:?}\n{plan}"),
    }
}

#[test]
fn a_first_plan_creates_everything() {
    let (given, state) = first();
    let (plan, _) = run(None, &given).unwrap();
    assert!(plan.changes.iter().all(|change| change.action == Action::Created));
    let names: Vec<_> = plan.changes.iter().map(|change| format!("{} {}", change.kind, change.name)).collect();
    assert_eq!(
        names,
        [
            "online store memory",
            "offline store memory",
            "entity driver",
            "source events",
            "source table",
            "stream feature view view",
            "feature service service"
        ]
    );
    let generation = &state.views["view"].generation;
    assert_eq!(rows(&plan), Some(&Rows::Begin { generation: generation.clone() }));
    assert_eq!(generation.len(), 12);
    let text = plan.to_string();
    assert!(
        text.starts_with("project `demo`: 7 to create, 0 to change, 0 to remove\n+ online store `memory`\n"),
        "{text}"
    );
    assert!(
        text.contains(&format!("+ stream feature view `view`\n    rows: begin with generation {generation}\n")),
        "{text}"
    );
}

#[test]
fn the_same_again_is_nothing_to_do() {
    let plan = edit(|_| {});
    assert!(plan.is_empty(), "{plan}");
    assert_eq!(plan.to_string(), "project `demo`: nothing to change");
}

#[test]
fn what_is_no_part_of_rows_keeps_them() {
    let edits: [(&str, Edit); 12] = [
        ("ttl", |d| d.feature_views[0].ttl = Duration(0)),
        ("online", |d| d.feature_views[0].online = false),
        ("offline", |d| d.feature_views[0].offline = true),
        ("description", |d| d.feature_views[0].annotations.description = "new".into()),
        ("start", |d| stream(d, |settings| settings.start = StartPosition::Latest)),
        ("watermark_delay_threshold", |d| stream(d, |s| s.watermark_delay_threshold = Some(Duration(1)))),
        ("on_error", |d| stream(d, |settings| settings.on_error = OnError::Fail)),
        ("max_future_skew", |d| stream(d, |settings| settings.max_future_skew = Duration(1))),
        ("password", |d| {
            d.sources[1].options.insert("password".into(), "x".into());
        }),
        ("owner", |d| d.entities[0].annotations.owner = "me".into()),
        ("tags.a", |d| {
            d.annotations.tags.insert("a".into(), "b".into());
        }),
        ("features", |d| d.feature_services[0].features = vec!["view:rate".into()]),
    ];
    for (key, change) in edits {
        let plan = edit(change);
        assert_eq!(plan.changes.len(), 1, "{key}: {plan}");
        assert_eq!(plan.changes[0].action, Action::Changed);
        let keys: Vec<&str> = plan.changes[0].fields.iter().map(|field| field.key.as_str()).collect();
        assert_eq!(keys, [key], "{plan}");
        assert!(keeps(&plan), "{plan}");
    }
    let plan = edit(|d| d.feature_views[0].ttl = Duration(0)).to_string();
    assert!(
        plan.contains("~ stream feature view `view`\n    ttl: `1d` -> `0us`\n    rows: stay, generation "),
        "{plan}"
    );
}

#[test]
fn an_added_column_keeps_the_rows() {
    let (mut given, state) = first();
    given.feature_views[0] =
        given.feature_views[0].clone().pick("driver_id, ts, made, rate=conv, acc").feature("acc", ValueType::Float64);
    let (plan, next) = run(Some(&state), &given).unwrap();
    assert!(matches!(rows(&plan), Some(Rows::Keep { added, .. }) if added == &["acc"]), "{plan}");
    assert!(plan.to_string().contains("those that are there hold null in `acc`"), "{plan}");
    assert_eq!(next.views["view"].generation, state.views["view"].generation);
    // The column is part of the rows from then on.
    let (plan, _) = run(Some(&next), &first().0).unwrap();
    assert_eq!(because(&plan), "the column `acc` is gone");
    // A column of the records that no view reads is nothing to it.
    let plan = edit(|d| stream(d, |s| s.record_format = Some(RecordFormat::json(format!("{EVENTS}, more int")))));
    assert!(keeps(&plan), "{plan}");
}

#[test]
fn any_other_edit_of_rows_makes_new_ones() {
    let edits: [(&str, Edit); 9] = [
        ("the source is `test ./other` and was `test ./events`", |d| {
            d.sources[1].options.insert("path".into(), "other".into());
        }),
        ("the column `rate` is `acc [acc: double] as float32` and was `conv [conv: double] as float32`", |d| {
            d.feature_views[0] = d.feature_views[0].clone().pick("driver_id, ts, made, rate=acc");
        }),
        ("the column `rate` is `conv [conv: double] as float64`", |d| {
            d.feature_views[0].schema[0].dtype = ValueType::Float64;
        }),
        ("filter or unnest changed", |d| {
            d.feature_views[0] = d.feature_views[0].clone().pick("driver_id, ts, made, rate=conv where conv > 0");
        }),
        ("the join keys are `driver_id (driver_id [driver_id: int] as string)` and were", |d| {
            d.entities[0].value_type = ValueType::String;
        }),
        ("the event time is `made (ts [ts: timestamp])` and was `ts (ts", |d| {
            d.feature_views[0] = d.feature_views[0].clone().pick("driver_id, ts=made, made=ts, rate=conv");
            d.sources[0].timestamp_field = Some("made".into());
            d.sources[0].created_timestamp_column = Some("ts".into());
        }),
        ("the column `rate` is gone", |d| {
            d.feature_views[0] = d.feature_views[0].clone().pick("driver_id, ts, made, speed=conv");
            d.feature_views[0].schema[0].name = "speed".into();
        }),
        ("conv [conv: float]", |d| {
            stream(d, |s| s.record_format = Some(RecordFormat::json(EVENTS.replace("conv double", "conv float"))));
        }),
        ("the source is `test ./events in ms`", |d| {
            stream(d, |s| s.record_format = Some(RecordFormat::json(EVENTS).timestamp_unit("ms")));
        }),
    ];
    for (reason, change) in edits {
        let plan = edit(change);
        let because = because(&plan);
        assert!(because.contains(reason), "{reason}: {because}");
        assert!(plan.to_string().contains("serves until it has caught up\n      because "), "{plan}");
    }
}

#[test]
fn a_column_made_of_another_is_another() {
    let mapped = |from: &str| {
        let mut given = project(|view| view);
        given.feature_views[0].transform = ViewTransform::None;
        given.sources[1].field_mapping.insert(from.into(), "rate".into());
        given
    };
    let (_, state) = run(None, &mapped("conv")).unwrap();
    let (plan, _) = run(Some(&state), &mapped("acc")).unwrap();
    assert!(because(&plan).contains("the column `rate` is `rate [rate from acc: double] as float32`"), "{plan}");
}

#[test]
fn a_generation_is_never_used_twice() {
    let (given, state) = first();
    let old = state.views["view"].generation.clone();
    let mut other = given.clone();
    other.feature_views[0].schema[0].dtype = ValueType::Float64;
    let (_, state) = run(Some(&state), &other).unwrap();
    assert_eq!(state.previous(), [("view".to_owned(), old.clone())]);
    let (_, back) = run(Some(&state), &given).unwrap();
    assert_ne!(back.views["view"].generation, old);
    // Also by a view that is gone and comes back.
    let mut without = given.clone();
    without.feature_views.clear();
    without.feature_services.clear();
    let (_, gone) = run(Some(&state), &without).unwrap();
    let (plan, back) = run(Some(&gone), &given).unwrap();
    assert!(matches!(rows(&plan), Some(Rows::Begin { .. })));
    assert!(!gone.previous().contains(&("view".to_owned(), back.views["view"].generation.clone())));
}

#[test]
fn rows_can_be_made_again_without_an_edit() {
    let (given, mut state) = first();
    let old = state.views["view"].generation.clone();
    let new = state.renew("view", 5).unwrap();
    assert_ne!(new, old);
    assert_eq!(state.previous(), [("view".to_owned(), old)]);
    assert!(run(Some(&state), &given).unwrap().0.is_empty(), "and an apply does not take it back");
    assert_eq!(state.renew("nothing", 5).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn what_is_removed_is_named_and_its_rows_are_remembered() {
    let (mut given, state) = first();
    given.feature_views.clear();
    given.feature_services.clear();
    given.entities.clear();
    given = given.entity(Entity::new("rider", ValueType::String));
    let (plan, next) = run(Some(&state), &given).unwrap();
    let names: Vec<_> = plan.changes.iter().map(|c| format!("{:?} {} {}", c.action, c.kind, c.name)).collect();
    assert_eq!(
        names,
        [
            "Removed entity driver",
            "Created entity rider",
            "Removed stream feature view view",
            "Removed feature service service"
        ]
    );
    let generation = state.views["view"].generation.clone();
    assert_eq!(rows(&plan), Some(&Rows::Retire { generation: generation.clone() }));
    assert_eq!(next.previous(), [("view".to_owned(), generation)]);
    assert!(next.views.is_empty());
}

#[test]
fn another_store_is_a_change() {
    let plan = edit(|d| d.online_store = StoreDefinition::new("memory").description("new"));
    assert_eq!(plan.changes[0].kind, Kind::OnlineStore);
    assert_eq!(plan.changes[0].fields[0].key, "description");
}

#[test]
fn a_registry_belongs_to_one_project() {
    let (mut given, state) = first();
    given.project = "other".into();
    let message = run(Some(&state), &given).unwrap_err().to_string();
    assert!(message.contains("belongs to the project `demo`"), "{message}");
}

#[test]
fn wrong_definitions_are_not_planned() {
    let (mut given, _) = first();
    given.feature_views[0].source = "nothing".into();
    assert_eq!(run(None, &given).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_plan_is_json_for_programs() {
    let json = serde_json::to_value(edit(|d| d.feature_views[0].ttl = Duration(60_000_000))).unwrap();
    let change = &json["changes"][0];
    assert_eq!(change["kind"], "stream_feature_view");
    assert_eq!(change["action"], "changed");
    assert_eq!(change["fields"][0], serde_json::json!({"key": "ttl", "before": "1d", "after": "1m"}));
    assert_eq!(change["rows"]["action"], "keep");
}

fn written(state: &State, path: &Path) -> State {
    Lock::take(path).unwrap().write(state).unwrap();
    State::read(path).unwrap().unwrap()
}

#[test]
fn the_file_gives_back_what_was_applied() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/down/registry.json");
    assert_eq!(State::read(&path).unwrap(), None);
    let (given, state) = first();
    let read = written(&state, &path);
    assert_eq!(read, state);
    assert_eq!(read.definitions(&given).unwrap(), given);
    assert!(!read.differs(&given));
    let mut other = given.clone();
    other.feature_views[0].ttl = Duration(0);
    assert!(read.differs(&other));
    assert_eq!(read.definitions(&other).unwrap(), given, "what was applied counts");
    // Nothing else stays behind.
    let mut names: Vec<_> =
        std::fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["registry.json", "registry.json.lock"]);
}

#[test]
fn views_are_pinned_to_their_generation() {
    let (given, mut state) = first();
    let generation = state.renew("view", 0).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut views = runtime.block_on(crate::definitions::resolve(&given, &registry(), &clock())).unwrap();
    state.pin(&mut views);
    assert_eq!(views[0].generation, generation);
}

#[test]
fn a_found_schema_is_kept() {
    let mut given = project(|view| view);
    given.feature_views[0].schema.clear();
    let (_, state) = run(None, &given).unwrap();
    let applied = state.definitions(&given).unwrap();
    assert_eq!(applied.feature_views[0].schema.len(), 1);
    assert!(!state.differs(&given));
    assert!(run(Some(&state), &given).unwrap().0.is_empty());
    assert!(run(Some(&state), &applied).unwrap().0.is_empty(), "the same written out is the same");
}

#[test]
fn secrets_stay_out_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.json");
    let (mut given, _) = first();
    given.sources[1].options.insert("password".into(), "canary-1".into());
    given.sources[0].options.insert("path".into(), "s3://me:canary-2@bucket/table".into());
    let settings = headwater_core::definitions::StreamSettings::new("table").record_format(RecordFormat::json(EVENTS));
    let kafka = headwater_core::definitions::Source::stream("kafka", "kafka", settings)
        .option("bootstrap_servers", "localhost:9092")
        .option("topic", "t")
        .option("options", serde_json::json!({"sasl.password": "canary-3", "sasl.username": "me"}));
    given = given.source(kafka);
    let (plan, state) = run(None, &given).unwrap();
    assert!(!format!("{plan} {plan:?}").contains("canary"));
    written(&state, &path);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("canary"), "{text}");
    assert!(text.contains("\"sasl.username\": \"me\""), "{text}");
    let read = State::read(&path).unwrap().unwrap();
    assert_eq!(read.definitions(&given).unwrap(), given);
    assert!(!read.differs(&given));
    given.sources.remove(1);
    let message = read.definitions(&given).unwrap_err().to_string();
    assert!(message.contains("the option `password` of the source `events`"), "{message}");
}

#[test]
fn a_worker_keeps_its_own_name_whoever_applied() {
    let (mut given, _) = first();
    let settings = headwater_core::definitions::StreamSettings::new("table").record_format(RecordFormat::json(EVENTS));
    let kafka = headwater_core::definitions::Source::stream("kafka", "kafka", settings)
        .option("bootstrap_servers", "localhost:9092")
        .option("topic", "t")
        .option("instance_id", "host-1");
    given = given.source(kafka);
    let (_, state) = run(None, &given).unwrap();
    let mut other = given.clone();
    other.sources[2].options.insert("instance_id".into(), "host-2".into());
    assert_eq!(state.definitions(&other).unwrap().sources[2].options["instance_id"], "host-2");
    assert!(!state.differs(&other));
    assert!(run(Some(&state), &other).unwrap().0.is_empty(), "another worker's name is no change");
}

#[test]
fn code_is_given_again_by_the_program() {
    let with = |version: &str| {
        let mut given = project(|view| view.code(version, headwater_core::transform::Identity));
        given.feature_views[0].schema[0].name = "conv".into();
        given
    };
    let (_, state) = run(None, &with("1")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let state = written(&state, &folder.path().join("registry.json"));
    let applied = state.definitions(&with("1")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(crate::definitions::resolve(&applied, &registry(), &clock())).unwrap();
    let message = state.definitions(&with("2")).unwrap_err().to_string();
    assert!(message.contains("applied with version `1` of its code, and this program has `2`"), "{message}");
    let file = project(|view| view);
    assert!(state.definitions(&file).unwrap_err().to_string().contains("which only the program that has it can give"));
}

#[test]
fn one_process_applies_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.json");
    let lock = Lock::take(&path).unwrap();
    assert_eq!(Lock::take(&path).unwrap_err().kind(), ErrorKind::Conflict);
    drop(lock);
    Lock::take(&path).unwrap();
}

#[test]
fn other_files_and_other_versions_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.json");
    let (_, state) = first();
    written(&state, &path);
    let text = std::fs::read_to_string(&path).unwrap();
    for (from, to, kind, says) in [
        (
            "\"version\": 1",
            "\"version\": 2",
            ErrorKind::FormatVersion,
            "has format version 2, and this release knows 1",
        ),
        ("\"version\": 1,", "", ErrorKind::Corrupt, "without a version"),
        ("headwater-registry", "other", ErrorKind::Corrupt, "no registry file"),
        ("\"views\"", "\"vews\"", ErrorKind::Corrupt, "damaged"),
        ("{", "", ErrorKind::Corrupt, "no registry file"),
    ] {
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = State::read(&path).unwrap_err();
        assert_eq!(error.kind(), kind, "{from} -> {to}: {error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    for length in [0, 1, text.len() / 2, text.len() - 2] {
        std::fs::write(&path, &text[..length]).unwrap();
        assert_eq!(State::read(&path).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

/// A sum over this window, of the column `rate`.
fn sum(hours: i64) -> Aggregation {
    Aggregation::new(AggregateFunction::Sum, "rate").time_window(Duration(hours * 3_600_000_000)).name("sum")
}

fn windowed(aggregation: Aggregation) -> Definitions {
    project(|mut view| {
        view.schema.clear();
        view.aggregation(aggregation.clone())
    })
}

#[test]
fn another_window_is_a_new_epoch_and_keeps_the_rows() {
    let (_, state) = run(None, &windowed(sum(1))).unwrap();
    let (plan, _) = run(Some(&state), &windowed(sum(1))).unwrap();
    assert!(plan.is_empty(), "{plan}");

    let (plan, after) = run(Some(&state), &windowed(sum(24))).unwrap();
    let Some(Rows::Rebuild { generation, added, windows, previous }) = rows(&plan) else { panic!("{plan}") };
    assert_eq!(*generation, state.views["view"].generation);
    assert!(added.is_empty());
    assert_eq!(previous, &state.views["view"].windows);
    assert_eq!(Some(windows), after.views["view"].windows.as_ref());
    let old = previous.clone().unwrap();
    let text = plan.to_string();
    assert!(
        text.contains(&format!(
            "~ stream feature view `view`\n    aggregations.sum.time_window: `1h` -> `1d`\n    rows: stay, generation \
             {generation}\n    windows: new epoch of the aggregations {windows}, built from history; that of {old} serves \
             until it has caught up"
        )),
        "{text}"
    );
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["changes"][0]["rows"]["action"], "rebuild");
    assert!(run(Some(&after), &windowed(sum(24))).unwrap().0.is_empty());
}

#[test]
fn other_rows_of_windows_are_a_new_generation() {
    let (_, state) = run(None, &windowed(sum(1))).unwrap();
    let mut other = windowed(sum(1));
    other.feature_views[0] = other.feature_views[0].clone().pick("driver_id, ts, made, rate=acc");
    let (plan, after) = run(Some(&state), &other).unwrap();
    assert!(because(&plan).contains("the column `rate` is"), "{plan}");
    assert_ne!(after.views["view"].generation, state.views["view"].generation);
}

#[test]
fn a_view_may_get_aggregations_and_lose_them() {
    let plain = project(|view| view.feature("conv", ValueType::Float64).pick("driver_id, ts, made, rate=conv, conv"));
    let (_, state) = run(None, &plain).unwrap();
    let mut given = plain.clone();
    given.feature_views[0].schema.clear();
    given.feature_views[0].aggregations =
        vec![Aggregation::new(AggregateFunction::Last, "rate"), Aggregation::new(AggregateFunction::Max, "conv")];
    // Another type of a column is another row.
    let (plan, after) = run(Some(&state), &given).unwrap();
    assert!(because(&plan).contains("the column `rate` is `conv [conv: double] as float64`"), "{plan}");

    let (_, wide) = run(None, &{
        let mut wide = plain.clone();
        wide.feature_views[0].schema[0].dtype = ValueType::Float64;
        wide
    })
    .unwrap();
    let (plan, _) = run(Some(&wide), &given).unwrap();
    assert!(matches!(rows(&plan), Some(Rows::Rebuild { previous: None, .. })), "{plan}");
    assert!(plan.to_string().contains("until it has caught up windows are empty"), "{plan}");

    let mut wide = plain;
    wide.feature_views[0].schema[0].dtype = ValueType::Float64;
    let (plan, back) = run(Some(&after), &wide).unwrap();
    assert_eq!(because(&plan), "it has no aggregations any more");
    assert_ne!(back.views["view"].generation, after.views["view"].generation, "its newest values are nowhere");
}

#[test]
fn a_registry_file_from_before_aggregations_is_read() {
    let (given, state) = first();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.json");
    Lock::take(&path).unwrap().write(&state).unwrap();
    let mut document: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let view = &mut document["state"]["definitions"]["feature_views"][0];
    view.as_object_mut().unwrap().remove("aggregations").unwrap();
    assert!(document["state"]["views"]["view"].get("windows").is_none());
    std::fs::write(&path, serde_json::to_vec(&document).unwrap()).unwrap();
    let read = State::read(&path).unwrap().unwrap();
    assert_eq!(read, state);
    assert!(run(Some(&read), &given).unwrap().0.is_empty());
}
