//! More than a hundred wrong files: each one edit of a right one, each with one clear error at the right place.

use super::{BASE, read};

/// A wrong file.
pub(super) struct Case {
    /// What is replaced in the right file: its first occurrence.
    from: &'static str,
    /// By what.
    to: &'static str,
    /// The text at whose beginning the error lies: its first occurrence in the wrong file.
    at: &'static str,
    /// What the error says, in part.
    says: &'static str,
    /// What the hint says, in part; empty for no hint.
    hint: &'static str,
}

pub(super) const fn case(
    from: &'static str,
    to: &'static str,
    at: &'static str,
    says: &'static str,
    hint: &'static str,
) -> Case {
    Case { from, to, at, says, hint }
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    // The top.
    case("project: driver_ranking\n", "", "registry: data", "`project` is missing", ""),
    case("project:", "projekt:", "projekt", "unknown key `projekt`", "did you mean `project`?"),
    case("driver_ranking", "12", "12", "expected text, found the number `12`", "put it in quotes"),
    case("driver_ranking", "driver/ranking", "driver/ranking", "has `/` in it", "did you mean `driver_ranking`?"),
    case("driver_ranking", "_ranking", "_ranking", "has to begin with a letter or a digit", ""),
    case("driver_ranking", "[a]", "[a]", "expected text, found a list", ""),
    case("driver_ranking", "true", "true", "expected text, found `true`", "put it in quotes"),
    case("registry: data/registry.json", "registry: \"\"", "\"\"", "`registry` is empty", ""),
    case("registry: data/registry.json", "registry: data/registry.json\nregistry: other.json", "registry: other", "the key `registry` is there twice, first in line 2", ""),
    case("entities:\n", "entity:\n", "entity:\n", "unknown key `entity`", "did you mean `entities`?"),
    case("feature_services:", "services:", "services:\n", "unknown key `services`", "did you mean `feature_services`?"),
    case("feature_services:\n  - {", "feature_services: {", "{ name: activity", "expected a list of services, found keys and values", "begin each element with `- `"),
    case("feature_services:\n  - {", "memory_limit: 1\nfeature_services:\n  - {", "memory_limit", "unknown key `memory_limit`", ""),

    // Stores.
    case("online_store: { type: sqlite, path: data/online.db }\n", "", "project", "`online_store` is missing, such as", ""),
    case("offline_store: { type: parquet, path: data/offline }\n", "", "project", "`offline_store` is missing, such as", ""),
    case("{ type: sqlite, path: data/online.db }", "sqlite", "sqlite", "expected keys such as `type`, found the text `sqlite`", ""),
    case("type: sqlite, path", "path", "{ path: data/online.db", "`type` is missing: the plugin of the online store", ""),
    case("type: sqlite", "type: sqlitte", "sqlitte", "there is no online store of type `sqlitte`; compiled in are `sqlite`", "did you mean `sqlite`?"),
    case("type: sqlite", "type: redis", "redis", "there is no online store of type `redis`; compiled in are `sqlite`", ""),
    case("type: sqlite", "type: parquet", "parquet", "`parquet` is no online store, but offline store", ""),
    case("type: parquet", "type: sqlite", "sqlite, path: data/offline", "`sqlite` is no offline store, but online store", ""),
    case("path: data/online.db", "pth: data/online.db", "pth", "unknown option `pth`", "did you mean `path`?"),
    case("path: data/online.db", "path: 5", "5", "option `path`: expected text, found `5`", ""),
    case("type: sqlite, path: data/online.db", "type: sqlite", "{ type: sqlite }", "option `path` is missing", ""),
    case("path: data/online.db", "path: data/online.db, cache_bytes: much", "much", "expected a whole number, found `\"much\"`", ""),
    case("path: data/online.db", "path: [data]", "[data]", "option `path`: expected text", ""),

    // Entities.
    case("name: driver, join_keys", "join_keys", "{ join_keys: [driver_id]", "`name` is missing: what the entity is called", ""),
    case("- { name: driver, join_keys: [driver_id], value_type: int64 }", "- driver", "driver\n  - name: customer", "expected an entity, such as `{ name: driver, value_type: int64 }`, found the text `driver`", ""),
    case("join_keys: [driver_id]", "join_keys: [driver_id, city]", "[driver_id, city]", "an entity has one join key: make an entity for each", ""),
    case("join_keys: [driver_id]", "join_keys: driver_id", "driver_id, value", "expected a list of one column, found the text `driver_id`", "did you mean `[driver_id]`?"),
    case("join_keys: [driver_id]", "join_key: [driver_id]", "join_key: ", "unknown key `join_key`", "did you mean `join_keys`?"),
    case("join_keys: [driver_id]", "join_keys: [_driver]", "[_driver]", "begins with `_`", ""),
    case("join_keys: [driver_id]", "join_keys: [7]", "7]", "expected text, found the number `7`", ""),
    case(", value_type: int64", "", "{ name: driver,", "`value_type` is missing: the type of its join key", ""),
    case("value_type: int64", "value_type: int46", "int46", "`int46` is not a type", "did you mean `int64`?"),
    case("value_type: int64", "value_type: long", "long", "`long` is not a type", "did you mean `int64`?"),
    case("value_type: string", "value_type:", "value_type:\n", "`value_type` is empty", ""),
    case("value_type: int64", "valuetype: int64", "valuetype", "unknown key `valuetype`", "did you mean `value_type`?"),
    case("tags: { team: rides }", "tags: { team: rides }\n  - { name: Driver, value_type: string }", "Driver", "two entities are called `Driver` but for upper and lower case, one in line 7", ""),
    case("tags: { team: rides }", "tags: rides", "rides\n\n", "expected keys and values, found the text `rides`", ""),
    case("tags: { team: rides }", "tags: { team: [rides] }", "[rides]", "expected text, found a list", ""),
    case("description: Who rides", "description: [Who]", "[Who]", "expected text, found a list", ""),

    // Sources.
    case("type: file\n", "type: fille\n", "fille", "there is no source of type `fille`; compiled in are `file`", "did you mean `file`?"),
    case("    type: file\n", "", "name: stats_table", "`type` is missing: the plugin that reads the source", ""),
    case("type: kinesis", "type: kinesys", "kinesys", "there is no source of type `kinesys`", "did you mean `kinesis`?"),
    case("type: kinesis", "type: sqlite", "sqlite\n", "`sqlite` is no source, but online store", ""),
    case("- name: stats_table\n    type", "- type", "type: file", "`name` is missing: what the source is called", ""),
    case("  - name: stats_push", "  - { name: Stats_Table, type: push, batch_source: stats_table }\n  - name: stats_push", "Stats_Table", "two sources are called `Stats_Table` but for upper and lower case, one in line 16", ""),
    case("  - name: stats_push", "  - { name: stats_file, type: push, batch_source: stats_table }\n  - name: stats_push", "stats_file, type: push", "two sources are called `stats_file`, one in line 45", ""),
    case("    timestamp_field: event_timestamp\n    created", "    created", "name: stats_table", "`timestamp_field` is missing: the column with the event time", ""),
    case("created_timestamp_column: created", "created_timestamp_column: event_timestamp", "event_timestamp\n  - name: stats_kinesis", "event time and created time are both `event_timestamp`", ""),
    case("created_timestamp_column: created", "created_timestamp_colum: created", "created_timestamp_colum:", "unknown option `created_timestamp_colum`", "did you mean `created_timestamp_column`?"),
    case("path: data/driver_stats.parquet", "paht: data/driver_stats.parquet", "paht", "unknown option `paht`", "did you mean `path`?"),
    case("    path: data/driver_stats.parquet\n", "", "name: stats_table", "option `path` is missing", ""),
    case("path: data/driver_stats.parquet", "path: data/driver_stats.parquet\n    format: orc", "orc", "expected one of `parquet`, `csv`, `ndjson`", ""),
    case("    stream_name: drivers\n", "", "name: stats_kinesis", "option `stream_name` or `stream_arn` is missing", ""),
    case("stream_name: drivers", "stream_nam: drivers", "stream_nam:", "unknown option `stream_nam`", "did you mean `stream_name`?"),
    case("region: eu-west-1", "region: eu-west-1\n    consumer: fanout", "fanout", "expected one of `polling`, `fan_out`", ""),
    case("region: eu-west-1", "region: eu-west-1\n    endpoint_url: localhost:4566", "name: stats_kinesis", "option `endpoint_url`: `localhost:4566` begins neither with", ""),
    case("    batch_source: stats_table\n    start", "    start", "name: stats_kinesis", "`batch_source` is missing: the source that holds the stream's history", ""),
    case("batch_source: stats_table\n    start", "batch_source: stats_tabel\n    start", "stats_tabel", "there is no source `stats_tabel`; batch sources are `stats_table`", "did you mean `stats_table`?"),
    case("batch_source: stats_table\n    start", "batch_source: stats_kinesis\n    start", "stats_kinesis\n    start", "`stats_kinesis` is the source itself", ""),
    case("batch_source: stats_table\n    start", "batch_source: stats_kafka\n    start", "stats_kafka\n    start", "`stats_kafka` is no batch source, but a stream itself", ""),
    case("start: earliest", "start: erliest", "erliest", "`erliest` is no start: `earliest`, `latest` or a time", "did you mean `earliest`?"),
    case("start: earliest", "start: 2026-13-01", "2026-13-01", "`2026-13-01` is no start", ""),
    case("start: earliest", "start: 5", "5\n", "expected text, found the number `5`", "put it in quotes"),
    case("watermark_delay_threshold: 5m", "watermark_delay_threshold: 5 minutes", "5 minutes", "`5 minutes` is not a duration: an integer and one of `us ms s m h d w`", ""),
    case("watermark_delay_threshold: 5m", "watermark_delay_threshold: 300", "300", "expected a duration", "did you mean `300s`?"),
    case("watermark_delay_threshold: 5m", "watermark_delay: 5m", "watermark_delay: 5m", "unknown option `watermark_delay`", "did you mean `watermark_delay_threshold`?"),
    case("bootstrap_servers: localhost:9092", "bootstrap_server: localhost:9092", "bootstrap_server:", "unknown option `bootstrap_server`", "did you mean `bootstrap_servers`?"),
    case("bootstrap_servers: localhost:9092", "bootstrap_servers: localhost", "name: stats_kafka", "`localhost` is not `host:port`", ""),
    case("    topic: drivers\n", "", "name: stats_kafka", "option `topic` is missing: The topic", ""),
    case("topic: drivers", "topic: 7", "7\n", "option `topic`: expected text, found `7`", ""),
    case("fetch.min.bytes: 1", "fetch.min.bytes: [1]", "{ security", "`fetch.min.bytes` takes a string, a number or a boolean", ""),
    case("fetch.min.bytes: 1", "group.id: mine", "name: stats_kafka", "`group.id` is decided by the project and the source", ""),
    case("on_error: fail", "on_error: skip", "skip", "expected one of `dead_letter`, `fail`, found the text `skip`", ""),
    case("late_events: dead_letter", "late_events: dead_leter", "dead_leter", "expected one of `accept`, `dead_letter`", "did you mean `dead_letter`?"),
    case("max_future_skew: 1h", "max_future_skew: 1y", "1y", "`1y` is not a duration", ""),
    case("follow: true", "follow: yes", "yes", "option `follow`: expected true or false, found `\"yes\"`", ""),
    case("follow: true", "folow: true", "folow", "unknown option `folow`", "did you mean `follow`?"),
    case("{ ride_count: rides }", "{ ride_cnt: rides }", "ride_cnt", "the schema has no column `ride_cnt`", "did you mean `ride_count`?"),
    case("{ ride_count: rides }", "{ ride_count: rides, driver_id: rides }", "rides, driver_id: rides", "`driver_id` and `ride_count` are both mapped to `rides`", ""),
    case("{ ride_count: rides }", "{ ride_count: \"\" }", "\"\" }", "`ride_count` is mapped to nothing", ""),
    case("{ ride_count: rides }", "{ ride_count: _rides }", "_rides", "begins with `_`", ""),
    case("type: push\n    batch_source: stats_table", "type: push\n    batch_source: nothing", "nothing", "there is no source `nothing`", ""),
    case("type: push\n    batch_source: stats_table", "type: push", "name: stats_push", "`timestamp_field` is missing: the column with the event time, which a push source", ""),
    case("type: push\n", "type: push\n    start: latest\n", "start: latest", "`start` is for streams that are read", ""),

    // Record formats and their schemas.
    case("    record_format:\n      type: json\n      schema: driver_id integer, event_timestamp timestamp, conv_rate double, acc_rate double, created timestamp\n", "", "name: stats_kinesis", "`record_format` is missing: Kinesis' records are bytes", ""),
    case("      type: json\n      schema: driver_id integer", "      type: jsn\n      schema: driver_id integer", "jsn", "`jsn` is no record format; there are `json`, `avro`, `protobuf`", "did you mean `json`?"),
    case("      type: json\n      schema: driver_id integer", "      schema: driver_id integer", "schema: driver_id integer", "`type` is missing: `json`, `avro` or `protobuf`", ""),
    case("      schema: driver_id integer, event_timestamp timestamp, conv_rate double, acc_rate double, created timestamp\n", "", "type: json", "`schema` is missing: the columns", ""),
    case("driver_id integer,", "driver_id integr,", "integr", "`integr` is not a type of Spark's DDL (character 11)", "did you mean `integer`?"),
    case("driver_id integer,", "driver_id integer", "event_timestamp timestamp, conv_rate", "expected `,` between columns, found `event_timestamp`", ""),
    case("driver_id integer,", "driver_id,", ", event_timestamp timestamp, conv", "expected the type of `driver_id`, found `,`", ""),
    case("conv_rate double,", "conv_rate double, conv_rate double,", "conv_rate double, acc", "the column `conv_rate` is there twice", ""),
    case("conv_rate double,", "conv_rate decimal(50),", "(50)", "a decimal has 1 to 38 digits", ""),
    case("conv_rate double,", "conv_rate array<double,", ", acc_rate double, created", "expected `>` after the type of an array's items, found `,`", ""),
    case("conv_rate double,", "__conv double,", "driver_id integer", "the column `__conv` begins with `_`", ""),
    case("event_timestamp timestamp, conv", "event_time timestamp, conv", "event_timestamp\n    batch_source", "the schema has no column `event_timestamp`", "did you mean `event_time`?"),
    case("timestamp_unit: ms", "timestamp_unit: minutes", "minutes", "`minutes` is no timestamp unit; there are `s`, `ms` and `us`", ""),
    case("timestamp_unit: ms", "timestampunit: ms", "timestampunit", "unknown key of a json format `timestampunit`", "did you mean `timestamp_unit`?"),
    case("{ type: json, schema: \"driver_id bigint, event_timestamp timestamp, ride_count int\" }", "json", "json\n  - name: stats_push", "expected keys such as `{ type: json, schema: id bigint }`, found the text `json`", ""),
    case("{ type: json, schema: \"driver_id bigint, event_timestamp timestamp, ride_count int\" }", "{ type: avro, schema: record }\n    timestamp_field: t", "record }", "an Avro schema is JSON", ""),
    case("{ type: json, schema: \"driver_id bigint, event_timestamp timestamp, ride_count int\" }", "{ type: protobuf, message: Ride }", "{ type: protobuf", "`descriptor_set` is missing", ""),
    case("event_timestamp timestamp, ride_count int\" }", "event_timestamp timestamp, ride_count int) }", "daily:rating", "not YAML", "is a quote not closed, here or above?"),

    // Views.
    case("- name: hourly\n    entities", "- entities", "entities: [driver]\n    ttl: 1d", "`name` is missing: what the feature view is called", ""),
    case("feature_views:\n  - name: daily", "feature_views:\n  - { name: HOURLY, source: stats_table }\n  - name: daily", "hourly\n", "two feature views are called `hourly` but for upper and lower case", ""),
    case("name: activity", "name: daily:stats", "daily:stats", "the name `daily:stats` has `:` in it", "did you mean `daily_stats`?"),
    case("entities: [driver]\n    ttl: 1d", "entities: [drivers]\n    ttl: 1d", "drivers]", "there is no entity `drivers`; there are `driver`, `customer`", "did you mean `driver`?"),
    case("entities: [driver]\n    ttl: 1d", "entities: [driver_id]\n    ttl: 1d", "driver_id]\n    ttl", "there is no entity `driver_id`", "`driver_id` is the join key of the entity `driver`"),
    case("entities: [driver]\n    ttl: 1d", "entities: driver\n    ttl: 1d", "driver\n    ttl", "expected a list of names of entities, found the text `driver`", "did you mean `[driver]`?"),
    case("entities: [driver, customer]", "entities: [driver, driver]", "driver]\n    schema: [{ name: stars", "the entity `driver` is there twice", ""),
    case("join_keys: [customer_id]", "join_keys: [driver_id]", "customer]", "the entities `driver` and `customer` have the same join key, `driver_id`", ""),
    case("ttl: 1d", "ttl: forever", "forever", "`forever` is not a duration", ""),
    case("ttl: 1d", "ttl: -1d", "-1d", "`-1d` is not a duration", ""),
    case("ttl: 1d", "ttl: 99999999999999999d", "99999999999999999d", "is too long a duration", ""),
    case("ttl: 1d", "ttl: 86400", "86400", "expected a duration", "did you mean `86400s`?"),
    case("mode: sql", "mode: sqll", "sqll", "there is no mode `sqll`; compiled in are `sql`, `none`", "did you mean `sql`?"),
    case("mode: sql", "mode: none", "transform: >", "`mode: none` takes no `transform`", "did you mean `mode: sql`?"),
    case("    mode: sql\n", "", "transform: >", "a `transform` needs a `mode`", "did you mean `mode: sql`?"),
    case("    transform: >\n      SELECT driver_id, event_timestamp, created, conv_rate * 100.0 AS conv_percentage\n      FROM stats_kinesis\n", "", "name: hourly", "`mode: sql` needs a `transform`", ""),
    case("{ name: conv_percentage, dtype: float32 }", "{ name: conv_percentage }", "{ name: conv_percentage }", "`dtype` is missing: the type of the feature", ""),
    case("{ name: conv_percentage, dtype: float32 }", "conv_percentage", "conv_percentage\n    timestamp", "expected a field, such as `{ name: conv_rate, dtype: float32 }`, found the text `conv_percentage`", ""),
    case("{ name: conv_percentage, dtype: float32 }", "{ name: conv_percentage, type: float32 }", "type: float32", "unknown key `type`", "did you mean `dtype`?"),
    case("dtype: float32", "dtype: float", "float }", "`float` is not a type", "did you mean `float32`?"),
    case("dtype: array(string)", "dtype: array(array(string))", "array(array(string))", "lists of lists are not a feature type", ""),
    case("{ name: rating, dtype: float64 }", "{ name: rating, dtype: float64 }\n      - { name: rating, dtype: int32 }", "rating, dtype: int32", "two features are called `rating`", ""),
    case("{ name: stars, dtype: int32 }", "{ name: driver_id, dtype: int32 }", "driver_id, dtype", "`driver_id` is a join key; `schema` lists the features alone", ""),
    case("{ name: stars, dtype: int32 }", "{ name: event_timestamp, dtype: int32 }", "event_timestamp, dtype", "`event_timestamp` is the event time", ""),
    case("{ name: stars, dtype: int32 }", "{ name: created, dtype: int32 }", "created, dtype", "`created` is the created time", ""),
    case("{ name: stars, dtype: int32 }", "{ name: _stars, dtype: int32 }", "_stars", "begins with `_`", ""),
    case("{ name: rides, dtype: int32 }", "{ name: ride_count, dtype: int32 }", "ride_count, dtype", "the `field_mapping` of `stats_file` makes `rides` of the column `ride_count`", "did you mean `rides`?"),
    case("- name: trips\n        dtype", "- name: tripps\n        dtype", "tripps", "the feature `tripps` is no column of the source `stats_kafka`", "did you mean `trips`?"),
    case("entities: [driver]\n    schema:\n      - name: trips", "entities: [customer]\n    schema:\n      - name: trips", "customer]", "the join key `customer_id` is no column of the source `stats_kafka`", ""),
    case("timestamp_field: event_timestamp\n    online", "timestamp_field: created\n    online", "created\n    online", "event time and created time are both `created`", ""),
    case("online: true", "online: maybe", "maybe", "expected `true` or `false`, found the text `maybe`", ""),
    case("offline: true", "offline: yes", "yes", "expected `true` or `false`", "did you mean `true`?"),
    case("source: stats_kinesis", "source: stats_kinesi", "stats_kinesi\n  - name: trips", "there is no source `stats_kinesi`; there are `stats_kinesis`", "did you mean `stats_kinesis`?"),
    case("    source: stats_kinesis\n", "", "name: hourly", "`source` is missing: the name of the source of its rows", ""),
    case("source: stats_push", "source: stats_table", "stats_table\n\nfeature_views", "`stats_table` is a batch source; a stream feature view needs a stream or push source", "with a `batch_source`, `stats_table` would be a stream"),
    case("source: stats_table\n\nfeature_services", "source: stats_kafka\n\nfeature_services", "stats_kafka\n\nfeature_services", "`stats_kafka` is a stream; a view of it belongs under `stream_feature_views`", ""),
    case("ttl: 2w", "ttl: 2w\n    offline: true", "offline: true\n    schema:\n      - { name: rating", "`offline` is for views among `stream_feature_views`", ""),
    case("ttl: 2w", "ttl: 2w\n    mode: sql", "mode: sql\n    schema:\n      - { name: rating", "`mode` is for views among `stream_feature_views`", ""),
    case("ttl: 2w", "tll: 2w", "tll", "unknown key `tll`", "did you mean `ttl`?"),

    // Services.
    case("name: activity, features", "features", "{ features: [hourly", "`name` is missing: what the feature service is called", ""),
    case("[hourly, ", "[houly, ", "houly", "there is no feature view `houly`", "did you mean `hourly`?"),
    case("daily:rating", "daily:ratng", "\"daily:ratng", "the view `daily` has no feature `ratng`; it has `rating`, `labels`", "did you mean `rating`?"),
    case("[hourly, \"daily:rating\"]", "[]", "[]", "`features` names no view", ""),
    case("[hourly, \"daily:rating\"]", "hourly", "hourly }", "expected a list of views", "did you mean `[hourly]`?"),
    case("[hourly, \"daily:rating\"]", "[hourly, hourly]", "hourly]", "`hourly` is there twice", ""),
    case("[hourly, \"daily:rating\"]", "[3]", "3]", "expected text, found the number `3`", ""),

    // Text that is no YAML, or no definitions.
    case("entities:\n", "entities:\n\t- x\n", "- x", "not YAML", "YAML is indented with blanks, never with tabs"),
    case("description: Who rides", "description: Who: rides", ": rides\n    owner", "not YAML", "text with `: ` in it has to stand in quotes"),
    case("description: Who rides", "description: !secret rides", "rides\n    owner", "the tag `!secret` means nothing here", ""),
    case("description: Who rides", "description: *nobody", "*nobody", "not YAML", ""),
    case("feature_services:\n", "---\nfeature_services:\n", "---", "one YAML document; a second one begins here", ""),
    case("description: Who rides", "description: ${HEADWATER_NOT_SET}", "${HEADWATER_NOT_SET}", "the environment variable `HEADWATER_NOT_SET` is not set", ""),
    case("description: Who rides", "description: ${UNCLOSED", "${UNCLOSED", "`${` is not closed by a `}`", ""),
    case("description: Who rides", "description: ${NO SPACE}", "${NO SPACE}", "names no environment variable", ""),
    case("description: Who rides", "<<: { owner: me }", "<<", "merge keys are not supported", ""),
    case("description: Who rides", "[a, b]: c", "[a, b]", "a key has to be a name", ""),
];

fn position(text: &str, at: &str) -> (usize, usize) {
    let offset = text.find(at).unwrap_or_else(|| panic!("`{at}` is not in the file"));
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[test]
fn the_right_file_is_right() {
    read(BASE).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn every_wrong_file_has_one_clear_error_at_its_place() {
    assert!(CASES.len() >= 100, "{} cases", CASES.len());
    check_cases(BASE, CASES);
}

/// Makes each edit of a right file, and looks for its one error.
pub(super) fn check_cases(base: &str, cases: &[Case]) {
    let mut failures = Vec::new();
    let mut files = std::collections::BTreeSet::new();
    for case in cases {
        assert!(base.contains(case.from), "`{}` is not in the right file", case.from);
        let text = base.replacen(case.from, case.to, 1);
        assert!(files.insert(text.clone()), "`{}` is there twice", case.to);
        let Err(errors) = read(&text) else {
            failures.push(format!("`{}` -> `{}`: no error", case.from, case.to));
            continue;
        };
        let expected = position(&text, case.at);
        let fault = &errors.faults[0];
        let hint = fault.hint.as_deref().unwrap_or_default();
        let right = errors.faults.len() == 1
            && fault.position == Some(expected)
            && fault.message.contains(case.says)
            && if case.hint.is_empty() { hint.is_empty() } else { hint.contains(case.hint) };
        if !right {
            failures.push(format!("`{}` -> `{}` at {expected:?}:\n{errors}", case.from, case.to));
        }
    }
    assert!(failures.is_empty(), "{} of {}\n{}", failures.len(), cases.len(), failures.join("\n\n"));
}
