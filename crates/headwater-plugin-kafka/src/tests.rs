use headwater_core::options::{Config, Options};
use headwater_core::plugin::SourceContext;
use headwater_core::stream::OnPositionLost;
use serde_json::{Value, json};

use super::*;

fn config(options: Value) -> Config {
    let options = options.as_object().unwrap().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    Config { name: "source `drivers`".into(), options, base_dir: ".".into() }
}

fn json_records() -> SourceContext {
    SourceContext { record_format: Some("json".into()), ..SourceContext::default() }
}

fn fault(options: Value) -> String {
    check(&config(options), &json_records()).unwrap_err().to_string()
}

#[test]
fn the_readme_lists_every_option() {
    let readme = include_str!("../README.md");
    for spec in KafkaConfig::OPTIONS {
        let default = spec.default.map_or("required".to_owned(), |default| format!("`{default}`"));
        let doc = spec.doc.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let row = format!("| `{}` | {} | {default} | {} |", spec.name, spec.kind.describe(), doc.trim());
        assert!(readme.contains(&row), "the README lacks\n{row}");
    }
}

#[test]
fn defaults_are_those_of_the_contract() {
    let options =
        KafkaConfig::from_config(&config(json!({"bootstrap_servers": "localhost:9092", "topic": "drivers"}))).unwrap();
    assert_eq!(options.options, Properties::default());
    assert_eq!(options.revoke_timeout.to_std().as_secs(), 10);
    assert_eq!(options.tombstones, Tombstones::Ignore);
    assert_eq!(options.on_position_lost, OnPositionLost::Fail);
    check(&config(json!({"bootstrap_servers": "a:1, b:2", "topic": "t"})), &json_records()).unwrap();
}

#[test]
fn wrong_options_are_all_named() {
    let message = fault(json!({"bootstrap_servers": "localhost", "topic": "a b", "options": {"group.id": "x"}}));
    assert!(message.contains("`localhost` is not `host:port`"), "{message}");
    assert!(message.contains("`a b` is no topic"), "{message}");
    assert!(message.contains("`group.id` is decided by"), "{message}");
    let base = |extra: (&str, &str)| {
        let mut options = json!({"bootstrap_servers": "localhost:9092", "topic": "drivers"});
        options[extra.0] = extra.1.into();
        fault(options)
    };
    assert!(base(("schema_registry_url", "localhost:8081")).contains("`http://`"));
    assert!(base(("schema_registry_username", "me")).contains("`schema_registry_url` is missing"));
    assert!(base(("tombstones", "keep")).contains("one of `ignore`, `delete`"));
    assert!(base(("on_position_lost", "latest")).contains("one of `fail`, `earliest`"));
    let none =
        check(&config(json!({"bootstrap_servers": "localhost:9092", "topic": "drivers"})), &SourceContext::default());
    assert!(none.unwrap_err().to_string().contains("`record_format` is missing"));
}

#[test]
fn the_newer_protocol_takes_no_classic_options() {
    let with = |property: &str| {
        fault(json!({
            "bootstrap_servers": "localhost:9092", "topic": "drivers",
            "options": {"group.protocol": "consumer", property: "1"},
        }))
    };
    let message = with("session.timeout.ms");
    assert!(message.contains("`session.timeout.ms` belongs to the classic group protocol"), "{message}");
    assert!(message.contains("the broker's `group.consumer.session.timeout.ms`"), "{message}");
    assert!(with("heartbeat.interval.ms").contains("`heartbeat.interval.ms` belongs to"));
    assert!(with("partition.assignment.strategy").contains("`group.remote.assignor`"));
    let allowed = json!({
        "bootstrap_servers": "localhost:9092", "topic": "drivers",
        "options": {"group.protocol": "consumer", "group.remote.assignor": "uniform"},
    });
    check(&config(allowed), &json_records()).unwrap();
}

#[test]
fn a_secret_is_never_shown() {
    let options = KafkaConfig::from_config(&config(json!({
        "bootstrap_servers": "localhost:9092", "topic": "drivers", "schema_registry_url": "http://localhost",
        "schema_registry_username": "me", "schema_registry_password": "canary",
        "options": {"sasl.password": "canary", "ssl.key.pem": "canary", "mistyped.pasword": "canary"},
    })))
    .unwrap();
    let shown = format!("{options:?}");
    assert!(!shown.contains("canary") && shown.contains("sasl.password"), "{shown}");
}

#[cfg(not(feature = "client"))]
mod without_client {
    use std::sync::Arc;

    use headwater_core::plugin::OpenContext;
    use headwater_core::time::ManualClock;
    use headwater_core::{ErrorKind, Registry};

    use super::*;

    #[test]
    fn opening_says_which_feature_is_missing() {
        let registry = Registry::empty().with(&PLUGIN).unwrap();
        let error = registry.role("kafka", "stream source", |plugin| plugin.stream).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("build with the cargo feature `kafka`"), "{error}");
        let context = OpenContext { project: "p".into(), clock: Arc::new(ManualClock::new(0)), source: None };
        let error = (PLUGIN.stream.unwrap().open)(&config(json!({})), &context).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
