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
    for spec in KinesisConfig::OPTIONS {
        let default = spec.default.map_or("required".to_owned(), |default| format!("`{default}`"));
        let doc = spec.doc.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let row = format!("| `{}` | {} | {default} | {} |", spec.name, spec.kind.describe(), doc.trim());
        assert!(readme.contains(&row), "the README lacks\n{row}");
    }
}

#[test]
fn defaults_are_those_of_the_contract() {
    let options = KinesisConfig::from_config(&config(json!({"stream_name": "drivers"}))).unwrap();
    assert_eq!(options.consumer, Consumer::Polling);
    assert_eq!(options.on_position_lost, OnPositionLost::Fail);
    let arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/drivers";
    check(&config(json!({"stream_arn": arn, "region": "eu-west-1", "consumer": "fan_out"})), &json_records()).unwrap();
}

#[test]
fn wrong_options_are_all_named() {
    assert!(fault(json!({})).contains("`stream_name` or `stream_arn` is missing"));
    let message = fault(json!({"stream_name": "a b", "endpoint_url": "localhost", "role_arn": "me"}));
    assert!(message.contains("`a b` is no stream"), "{message}");
    assert!(message.contains("`localhost` begins neither"), "{message}");
    assert!(message.contains("`me` is not `arn:aws:iam"), "{message}");
    let arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/drivers";
    assert!(fault(json!({"stream_arn": "drivers"})).contains("`drivers` is not `arn:aws:kinesis"));
    assert!(fault(json!({"stream_arn": arn, "stream_name": "other"})).contains("different streams"));
    assert!(fault(json!({"stream_arn": arn, "region": "us-east-1"})).contains("different regions"));
    assert!(fault(json!({"stream_name": "a", "consumer": "push"})).contains("one of `polling`, `fan_out`"));
    let none = check(&config(json!({"stream_name": "drivers"})), &SourceContext::default());
    assert!(none.unwrap_err().to_string().contains("`record_format` is missing"));
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
        let error = registry.role("kinesis", "stream source", |plugin| plugin.stream).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("build with the cargo feature `kinesis`"), "{error}");
        let context = OpenContext { project: "p".into(), clock: Arc::new(ManualClock::new(0)), source: None };
        let error = (PLUGIN.stream.unwrap().open)(&config(json!({})), &context).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
