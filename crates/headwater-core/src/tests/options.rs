//! The `options!` macro, durations and secrets.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::options::{Config, Duration, OptionType, Options};
use crate::{ErrorKind, Secret};

crate::options! {
    /// Options under test.
    struct Everything {
        /// Text that must be there.
        address: String,
        /// A secret.
        password: Secret,
        /// A number.
        limit: u64 = 7,
        /// A flag.
        follow: bool = false,
        /// A time.
        pause: Duration = Duration(1_000_000),
        /// Text that may be there.
        region: Option<String> = None,
        /// More.
        options: BTreeMap<String, String> = BTreeMap::new(),
    }
}

fn config(options: Value) -> Config {
    let Value::Object(options) = options else { panic!("an object") };
    Config { name: "source `s`".into(), options: options.into_iter().collect(), base_dir: "/base".into() }
}

#[test]
fn options_are_read_with_their_defaults() {
    let read = Everything::from_config(&config(json!({ "address": "a", "password": "p" }))).unwrap();
    assert_eq!((read.limit, read.follow, read.pause, read.region), (7, false, Duration(1_000_000), None));
    assert_eq!((read.address.as_str(), read.password.expose(), read.options.len()), ("a", "p", 0));
    let read = Everything::from_config(&config(json!({
        "address": "a", "password": "p", "limit": 9, "follow": true, "pause": "5m", "region": "eu",
        "options": { "a": "x", "b": 1, "c": true },
    })));
    let read = read.unwrap();
    assert_eq!((read.limit, read.follow, read.pause.0, read.region.as_deref()), (9, true, 300_000_000, Some("eu")));
    let options = ["a", "b", "c"].map(|key| read.options[key].as_str());
    assert_eq!(options, ["x", "1", "true"]);
}

#[test]
fn all_faults_are_reported_at_once() {
    let error = Everything::from_config(&config(json!({
        "password": 12345, "limit": -1, "follow": "yes", "pause": "5 parsecs", "region": 3, "options": { "a": [] },
        "adress": "a",
    })));
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let text = error.to_string();
    for word in ["source `s`", "address", "missing", "limit", "follow", "pause", "region", "options", "`adress`"] {
        assert!(text.contains(word), "`{word}` in `{text}`");
    }
    assert!(!text.contains("12345"), "a secret of the wrong type is shown: `{text}`");
}

#[test]
fn specs_say_what_was_declared() {
    let specs = Everything::OPTIONS;
    assert_eq!(specs.len(), 7);
    assert_eq!((specs[0].name, specs[0].kind, specs[0].default), ("address", OptionType::Text, None));
    assert_eq!((specs[2].name, specs[2].kind, specs[2].default), ("limit", OptionType::Integer, Some("7")));
    assert_eq!(specs[1].kind, OptionType::Secret);
    assert_eq!(specs[1].doc.trim(), "A secret.");
}

#[test]
fn secrets_are_never_printed() {
    const CANARY: &str = "canary-1b9e";
    let secret = Secret::new(CANARY);
    let config = config(json!({ "address": "a", "password": CANARY }));
    let read = Everything::from_config(&config).unwrap();
    for shown in
        [format!("{secret}"), format!("{secret:?}"), format!("{secret:#?}"), format!("{read:?}"), format!("{config:?}")]
    {
        assert!(!shown.contains(CANARY), "{shown}");
    }
    assert_eq!(secret.expose(), CANARY);
}

#[test]
fn a_secret_is_not_repeated_where_its_place_is_wrong() {
    const CANARY: &str = "canary-77c0";
    for options in [json!([{ "sasl.password": CANARY }]), json!(format!("sasl.password={CANARY}"))] {
        let error = Everything::from_config(&config(json!({ "address": "a", "password": "p", "options": options })));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("expected keys with strings, numbers or booleans, found "), "{text}");
        assert!(!text.contains(CANARY), "{text}");
    }
    for wrong in [json!([CANARY]), json!({ "sasl.password": CANARY })] {
        for option in ["address", "limit", "follow", "pause", "region"] {
            let mut options = json!({ "address": "a", "password": "p" });
            options[option] = wrong.clone();
            let text = Everything::from_config(&config(options)).unwrap_err().to_string();
            assert!(text.contains(&format!("option `{option}`")) && !text.contains(CANARY), "{text}");
        }
    }
}

#[test]
fn relative_paths_start_at_the_definitions() {
    let config = config(json!({}));
    assert_eq!(config.resolve("data/x"), "/base/data/x");
    assert_eq!(config.resolve("/data/x"), "/data/x");
    assert_eq!(config.resolve("s3://bucket/x"), "s3://bucket/x");
}

#[test]
fn durations_are_an_integer_and_a_unit() {
    let right = [
        ("0s", 0),
        ("7us", 7),
        ("7ms", 7_000),
        ("90s", 90_000_000),
        ("5m", 300_000_000),
        ("2h", 7_200_000_000),
        ("100000d", 8_640_000_000_000_000),
        ("1w", 604_800_000_000),
        ("5 m", 300_000_000),
    ];
    for (text, micros) in right {
        assert_eq!(Duration::parse(text), Ok(Duration(micros)), "`{text}`");
    }
    for wrong in
        ["", "5", "m", "-5m", "1.5h", "5M", "5 minutes", "5m3s", "９s", "99999999999999999999s", "1000000000000w"]
    {
        let message = Duration::parse(wrong).unwrap_err();
        assert!(message.contains(&format!("`{wrong}`")), "{message}");
    }
}

#[test]
fn durations_come_back_from_their_text() {
    for micros in [0, 1, 999, 1_000, 1_500, 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000, i64::MAX] {
        assert_eq!(Duration::parse(&Duration(micros).to_string()), Ok(Duration(micros)));
    }
    assert_eq!(Duration(-5).to_std(), std::time::Duration::ZERO);
}
