//! Checks of sources.

use std::collections::BTreeMap;

use headwater_core::definitions::{Definitions, RecordFormat, Source, SourceKind};
use headwater_core::options::{Config, OptionSpec, OptionType};
use headwater_core::plugin::SourceContext;
use headwater_core::{Plugin, Registry};

use super::{column_is_valid, known_plugin, options};
use crate::definitions::ddl;
use crate::definitions::effective::Effective;
use crate::definitions::place::{Faults, Place, did_you_mean, list};
use crate::definitions::read::{SOURCE_KEYS, SOURCES, STREAM_KEYS};

/// The option of a push source.
const PUSH_OPTIONS: [OptionSpec; 1] = [OptionSpec {
    name: "schema",
    kind: OptionType::Text,
    default: Some("None"),
    doc: "The columns of what is pushed, as Spark DDL.",
}];

/// The options of the role that a source gives its plugin; nothing where the plugin or the role is not there.
pub(in crate::definitions) fn source_options(
    source: &Source,
    plugin: Option<&'static Plugin>,
) -> Option<&'static [OptionSpec]> {
    match source.kind {
        SourceKind::Push { .. } => Some(&PUSH_OPTIONS),
        SourceKind::Stream(_) => plugin.and_then(|plugin| plugin.stream).map(|role| role.options),
        SourceKind::Batch => plugin.and_then(|plugin| plugin.batch).map(|role| role.options),
    }
}

pub(super) fn check(
    source: &Source,
    definitions: &Definitions,
    registry: &Registry,
    place: &Place<'_>,
    faults: &mut Faults,
) {
    let effective = Effective::of(definitions, source);
    check_batch_source(source, definitions, place, faults);
    check_times(source, &effective, place, faults);
    check_mapping(source, place, faults);
    let columns = match &source.kind {
        SourceKind::Stream(settings) => {
            settings.record_format.as_ref().and_then(|format| check_format(format, &place.key("record_format"), faults))
        }
        SourceKind::Push { .. } => source
            .options
            .get("schema")
            .and_then(|schema| schema.as_str())
            .and_then(|text| check_ddl(text, &place.key("schema"), faults)),
        SourceKind::Batch => None,
    };
    if let Some(columns) = &columns {
        check_columns(source, columns, place, faults);
    }
    check_plugin(source, &effective, definitions, registry, place, faults);
}

fn check_plugin(
    source: &Source,
    effective: &Effective<'_>,
    definitions: &Definitions,
    registry: &Registry,
    place: &Place<'_>,
    faults: &mut Faults,
) {
    let plugin = if matches!(source.kind, SourceKind::Push { .. }) {
        None
    } else {
        if source.plugin.is_empty() {
            faults.add(&place.key("type"), "`type` is missing: the plugin that reads the source, or `push`", None);
            return;
        }
        let role = |plugin: &'static Plugin| plugin.stream.is_some() || plugin.batch.is_some();
        let Some(plugin) = known_plugin(faults, place, &source.plugin, registry, "source", role) else { return };
        Some(plugin)
    };
    let envelope: Vec<&str> = match source.kind {
        SourceKind::Push { .. } => SOURCE_KEYS.into_iter().chain(["batch_source"]).collect(),
        _ => SOURCE_KEYS.into_iter().chain(STREAM_KEYS).collect(),
    };
    let Some(specs) = source_options(source, plugin) else {
        if let Some(plugin) = plugin.filter(|plugin| !plugin.roles().is_empty()) {
            let what = if source.kind == SourceKind::Batch { "tables" } else { "streams" };
            let message = format!("`{}` reads no {what}: it is {}", source.plugin, plugin.roles().join(" and "));
            faults.add(&place.key("type"), message, None);
        }
        return;
    };
    if !options(faults, place, specs, &envelope, &source.options) {
        return;
    }
    let config = Config {
        name: format!("source `{}`", source.name),
        options: source.options.clone(),
        base_dir: definitions.base_dir.clone(),
    };
    let context = SourceContext {
        timestamp_field: effective.timestamp_field.unwrap_or_default().to_owned(),
        created_timestamp_column: effective.created.map(str::to_owned),
        record_format: match &source.kind {
            SourceKind::Stream(settings) => settings.record_format.as_ref().map(|format| format.kind.clone()),
            _ => None,
        },
    };
    let checked = match (&source.kind, plugin) {
        (SourceKind::Stream(_), Some(plugin)) => plugin.stream.map(|role| (role.check)(&config, &context)),
        (SourceKind::Batch, Some(plugin)) => plugin.batch.map(|role| (role.check)(&config, &context)),
        _ => None,
    };
    if let Some(Err(error)) = checked {
        faults.add(place, error.message(), None);
    }
}

fn check_batch_source(source: &Source, definitions: &Definitions, place: &Place<'_>, faults: &mut Faults) {
    let at = place.key("batch_source");
    let name = match &source.kind {
        SourceKind::Batch => return,
        SourceKind::Stream(settings) if settings.batch_source.is_empty() => {
            let message = "`batch_source` is missing: the source that holds the stream's history";
            faults.add(&at, message, None);
            return;
        }
        SourceKind::Stream(settings) => &settings.batch_source,
        SourceKind::Push { batch_source: Some(name) } => name,
        SourceKind::Push { batch_source: None } => return,
    };
    let candidates =
        || definitions.sources.iter().filter(|s| s.kind == SourceKind::Batch).map(|source| source.name.as_str());
    if *name == source.name {
        faults.add(&at, format!("`{name}` is the source itself; a batch source is a table of its own"), None);
        return;
    }
    match definitions.sources.iter().find(|source| source.name == *name) {
        None => {
            let message = format!("there is no source `{name}`; batch sources are {}", list(candidates()));
            if faults.knows_names_of(SOURCES) {
                faults.add(&at, message, did_you_mean(name, candidates()));
            }
        }
        Some(Source { kind: SourceKind::Batch, .. }) => {}
        Some(_) => {
            let message =
                format!("`{name}` is no batch source, but a stream itself; batch sources are {}", list(candidates()));
            faults.add(&at, message, None);
        }
    }
}

fn check_times(source: &Source, effective: &Effective<'_>, place: &Place<'_>, faults: &mut Faults) {
    let at = place.key("timestamp_field");
    match (effective.timestamp_field, &source.kind) {
        (Some(""), _) => faults.add(&at, "`timestamp_field` is the name of a column", None),
        (Some(_), _) => {}
        (None, SourceKind::Batch) => {
            faults.add(&at, "`timestamp_field` is missing: the column with the event time", None);
        }
        // What is wrong with the batch source is reported there.
        (None, SourceKind::Stream(_) | SourceKind::Push { batch_source: Some(_) }) => {}
        (None, SourceKind::Push { batch_source: None }) => {
            let message = "`timestamp_field` is missing: the column with the event time, which a push source without \
                           `batch_source` cannot take from there";
            faults.add(&at, message, None);
        }
    }
    for (key, column) in
        [("timestamp_field", &source.timestamp_field), ("created_timestamp_column", &source.created_timestamp_column)]
    {
        if let Some(column) = column {
            column_is_valid(faults, &place.key(key), column);
        }
    }
    if let (Some(time), Some(created)) = (effective.timestamp_field, effective.created)
        && time == created
        && (source.timestamp_field.is_some() || source.created_timestamp_column.is_some())
        && effective.batch.is_none_or(|batch| batch.timestamp_field != batch.created_timestamp_column)
    {
        let key =
            if source.created_timestamp_column.is_some() { "created_timestamp_column" } else { "timestamp_field" };
        let message = format!("event time and created time are both `{time}`; they are columns of their own");
        faults.add(&place.key(key), message, None);
    }
    if let (Some(_), Some(created), Some(batch)) = (&source.timestamp_field, effective.created, effective.batch)
        && !effective.created_inherited
        && batch.created_timestamp_column.is_none()
    {
        let message = format!(
            "`{created}` is the created time of the stream, and its batch source `{}` has none; name it there too",
            batch.name
        );
        faults.add(&place.key("created_timestamp_column"), message, None);
    }
}

fn check_mapping(source: &Source, place: &Place<'_>, faults: &mut Faults) {
    let at = place.key("field_mapping");
    let mut targets: BTreeMap<&str, &str> = BTreeMap::new();
    for (column, name) in &source.field_mapping {
        let here = at.key(column);
        if name.is_empty() {
            faults.add(&here, format!("`{column}` is mapped to nothing; a name in views is wanted"), None);
            continue;
        }
        column_is_valid(faults, &here, name);
        if let Some(other) = targets.insert(name, column) {
            faults.add(&here, format!("`{other}` and `{column}` are both mapped to `{name}`"), None);
        }
    }
}

/// Checks a record format. The columns, where they are known and well formed.
fn check_format(format: &RecordFormat, place: &Place<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    const FORMATS: [&str; 3] = ["json", "avro", "protobuf"];
    let missing = |key: &str, what: &str| format!("`{key}` is missing: {what}");
    match format.kind.as_str() {
        "" => faults.add(&place.key("type"), missing("type", "`json`, `avro` or `protobuf`"), None),
        "json" => {
            if let Some(unit) = &format.timestamp_unit
                && let Err(error) = crate::cast::parse_unit(unit)
            {
                faults.add(&place.key("timestamp_unit"), error.message(), None);
            }
            let at = place.key("schema");
            match &format.schema {
                Some(text) => return check_ddl(text, &at, faults),
                None => {
                    faults.add(&at, missing("schema", "the columns, such as `driver_id bigint, ts timestamp`"), None)
                }
            }
        }
        "avro" => {
            let at = place.key("schema");
            match &format.schema {
                Some(text) => {
                    if let Err(error) = serde_json::from_str::<serde_json::Value>(text) {
                        faults.add(&at, format!("an Avro schema is JSON: {error}"), None);
                    }
                }
                None => faults.add(&at, missing("schema", "the reader's schema, a record in Avro's JSON"), None),
            }
        }
        "protobuf" => {
            for (key, what) in [
                ("descriptor_set", "the path of a file that `protoc --descriptor_set_out` wrote"),
                ("message", "the full name of the message"),
            ] {
                if !format.options.contains_key(key) {
                    faults.add(&place.key(key), missing(key, what), None);
                }
            }
        }
        other => {
            let message = format!("`{other}` is no record format; there are {}", list(FORMATS));
            faults.add(&place.key("type"), message, did_you_mean(other, FORMATS));
        }
    }
    None
}

fn check_ddl(text: &str, place: &Place<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    match ddl::parse(text) {
        Ok(schema) => {
            for field in schema.fields() {
                column_is_valid(faults, place, field.name());
            }
            Some(schema.fields().iter().map(|field| field.name().clone()).collect())
        }
        Err(error) => {
            let message = format!("{} (character {})", error.message, error.at + 1);
            faults.add(&place.clone().character(error.at), message, error.hint);
            None
        }
    }
}

/// Checks that the columns that a stream names itself are among those of its records.
fn check_columns(source: &Source, columns: &[String], place: &Place<'_>, faults: &mut Faults) {
    let times = [
        (place.key("timestamp_field"), source.timestamp_field.as_deref()),
        (place.key("created_timestamp_column"), source.created_timestamp_column.as_deref()),
    ];
    let mapping = place.key("field_mapping");
    let mapped = source.field_mapping.keys().map(|column| (mapping.name_of(column), Some(column.as_str())));
    for (at, column) in times.into_iter().chain(mapped) {
        if let Some(column) = column
            && !columns.iter().any(|known| known == column)
        {
            let known = || columns.iter().map(String::as_str);
            let message = format!("the schema has no column `{column}`; it has {}", list(known()));
            faults.add(&at, message, did_you_mean(column, known()));
        }
    }
}
