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
    // librdkafka does not mind the case.
    let mixed = fault(json!({
        "bootstrap_servers": "localhost:9092", "topic": "drivers",
        "options": {"group.protocol": "CONSUMER", "session.timeout.ms": 6000},
    }));
    assert!(mixed.contains("`session.timeout.ms` belongs to"), "{mixed}");
}

#[test]
fn sasl_says_what_it_lacks() {
    let with = |more: Value| {
        let mut properties = json!({"security.protocol": "sasl_ssl", "sasl.username": "me", "sasl.password": "canary"});
        for (name, value) in more.as_object().unwrap() {
            properties[name] = value.clone();
        }
        properties.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let options = json!({"bootstrap_servers": "localhost:9092", "topic": "drivers", "options": properties});
        check(&config(options), &json_records()).map_err(|error| error.to_string())
    };
    with(json!({"sasl.mechanism": "SCRAM-SHA-512"})).unwrap();
    with(json!({"sasl.mechanisms": "PLAIN"})).unwrap();
    // librdkafka's own default is GSSAPI, which is not built in.
    for (more, says) in [
        (json!({}), "`sasl.mechanism` is missing: one of `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`"),
        (json!({"sasl.mechanism": "OAUTHBEARER"}), "`sasl.mechanism` `OAUTHBEARER` is not built in"),
        (json!({"sasl.mechanism": "PLAIN", "sasl.password": null}), "`sasl.password` is missing"),
        (json!({"sasl.mechanism": "PLAIN", "sasl.username": null}), "`sasl.username` is missing"),
    ] {
        let message = with(more).unwrap_err();
        assert!(message.contains(says) && !message.contains("canary"), "{message}");
    }
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

#[cfg(feature = "client")]
mod with_client {
    use headwater_core::ErrorKind;

    use super::*;

    fn with(properties: Value) -> headwater_core::Result<()> {
        let options = json!({"bootstrap_servers": "localhost:9092", "topic": "drivers", "options": properties});
        check(&config(options), &json_records())
    }

    #[test]
    fn tls_and_sasl_are_built_in() {
        with(json!({
            "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "me",
            "sasl.password": "secret", "ssl.ca.location": "/nowhere", "ssl.key.password": "secret",
            "enable.ssl.certificate.verification": false, "fetch.wait.max.ms": 100, "compression.type": "zstd",
        }))
        .unwrap();
    }

    #[test]
    fn properties_that_do_not_exist_are_refused_by_name_and_without_their_value() {
        for (properties, told) in [
            (json!({"sasl.pasword": "canary"}), "`sasl.pasword`: there is no such property"),
            (json!({"security.protocol": "canary"}), "refuses the property `security.protocol`: "),
            (json!({"ssl.key.password": "\u{0}canary"}), "cannot use these options"),
            (json!({"fetch.wait.max.ms": "soon"}), "`fetch.wait.max.ms`"),
        ] {
            let error = with(properties).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert!(error.to_string().contains(told), "{error}");
            let hidden = !told.contains("security");
            assert!(!hidden || !format!("{error} {error:?}").contains("canary"), "{error:?}");
        }
    }
}

#[cfg(feature = "client")]
mod trouble {
    use headwater_core::ErrorKind;
    use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

    use crate::trouble::Trouble;

    const REFUSAL: &str =
        "sasl_ssl://a:1/1: SASL authentication error: Authentication failed (after 3ms in state AUTH_REQ)";
    const BREAK: &str = "sasl_ssl://a:1/1: Disconnected (after 3ms in state UP)";

    fn late() -> KafkaError {
        KafkaError::MetadataFetch(Code::OperationTimedOut)
    }

    #[test]
    fn a_question_without_an_answer_says_why_there_is_none() {
        let trouble = Trouble::default();
        let error = trouble.explain(late(), "ask");
        assert!(error.is_retryable() && error.to_string().contains("cannot ask"), "{error}");
        trouble.error(&KafkaError::Global(Code::BrokerTransportFailure), BREAK);
        // That all are away says less.
        trouble.error(&KafkaError::Global(Code::AllBrokersDown), "1/1 brokers are down");
        let error = trouble.explain(late(), "ask");
        assert!(error.is_retryable() && error.to_string().contains(BREAK), "{error}");
        // A question that was answered has nothing to do with it.
        let error = trouble.explain(KafkaError::MetadataFetch(Code::TopicAuthorizationFailed), "ask");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(!error.is_retryable() && !error.to_string().contains(BREAK), "{error}");
    }

    #[test]
    fn a_connection_that_is_closed_is_only_logged() {
        let trouble = Trouble::default();
        trouble.log("CONFWARN", "a property is of no use");
        trouble.log("FAIL", &format!("[thrd:sasl_ssl://a:1/1]: {BREAK}"));
        let error = trouble.explain(late(), "ask").to_string();
        assert!(error.starts_with(&format!("kafka: cannot ask: {BREAK}")), "{error}");
    }

    #[test]
    fn a_client_that_is_refused_from_the_start_stays_refused() {
        let trouble = Trouble::default();
        trouble.error(&KafkaError::Global(Code::Authentication), REFUSAL);
        trouble.log("FAIL", &format!("[thrd:sasl_ssl://a:1/1]: {BREAK}"));
        let error = trouble.explain(late(), "ask");
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::PermissionDenied, false));
        assert!(error.to_string().contains(REFUSAL), "{error}");
        // One that was let in before is let in again some time.
        trouble.let_in();
        let error = trouble.explain(KafkaError::MessageConsumption(Code::Authentication), "read");
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::PermissionDenied, true));
    }

    #[test]
    fn a_connection_that_breaks_off_in_mid_handshake_is_no_refusal() {
        let trouble = Trouble::default();
        let why = "sasl_plaintext://a:1/1: SASL PLAIN mechanism handshake failed: Local: Broker transport failure: broker's \
                   supported mechanisms:  (after 3ms in state AUTH_HANDSHAKE)";
        trouble.error(&KafkaError::Global(Code::Authentication), why);
        let error = trouble.explain(late(), "ask");
        assert!(error.is_retryable() && error.to_string().contains(why), "{error}");
    }
}

#[cfg(feature = "client")]
mod end;

#[cfg(feature = "client")]
mod member;

#[cfg(feature = "client")]
mod notes {
    use std::collections::BTreeMap;

    use headwater_core::ErrorKind;
    use headwater_core::stream::StartPosition;

    use crate::mark::{Mark, Marks};
    use crate::resolve::FirstStart;

    #[test]
    fn notes_are_read_back_and_unknown_versions_refused() {
        let mark = Mark::new(7, Some(1_000), Some(b"key"), None);
        assert_eq!(Mark::from_note(&mark.to_note()).unwrap(), mark);
        for start in [StartPosition::Latest, StartPosition::At(-5), StartPosition::Earliest] {
            let first = FirstStart { start, offsets: BTreeMap::from([(0, 12), (3, 0)]) };
            assert_eq!(FirstStart::from_note(&first.to_note()).unwrap(), first);
        }
        let later = br#"{"version":2}"#;
        assert_eq!(Mark::from_note(later).unwrap_err().kind(), ErrorKind::FormatVersion);
        assert_eq!(FirstStart::from_note(later).unwrap_err().kind(), ErrorKind::FormatVersion);
        for damaged in ["", "{}", r#"{"version":1}"#, r#"{"version":1,"start":"latest","offsets":[[0]]}"#] {
            assert!(Mark::from_note(damaged.as_bytes()).is_err(), "{damaged}");
            assert!(FirstStart::from_note(damaged.as_bytes()).is_err(), "{damaged}");
        }
    }

    #[test]
    fn marks_tell_records_apart() {
        let mark = Mark::new(7, Some(1), Some(b"a"), Some(b"b"));
        assert_eq!(mark, Mark::new(7, Some(1), Some(b"a"), Some(b"b")));
        for other in [
            Mark::new(7, Some(2), Some(b"a"), Some(b"b")),
            Mark::new(7, Some(1), Some(b"ab"), Some(b"")),
            Mark::new(7, Some(1), Some(b"a"), None),
            Mark::new(7, Some(1), None, Some(b"ab")),
            Mark::new(7, None, Some(b"a"), Some(b"b")),
        ] {
            assert_ne!(mark, other);
        }
    }

    #[test]
    fn the_newest_committed_mark_is_found_however_many_there_are() {
        let mut marks = Marks::default();
        for offset in 0..5_000 {
            marks.push(Mark::new(offset, None, None, None));
        }
        assert!(marks.committed(0).is_none());
        let found = marks.committed(4_999).unwrap();
        assert_eq!(found.offset, 4_998);
        assert_eq!(marks.committed(10_000).unwrap().offset, 4_999);
        assert!(marks.committed(10_000).is_none());
    }
}

#[cfg(feature = "client")]
mod memory {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    use rdkafka::{ClientConfig, ClientContext, Offset, Statistics, TopicPartitionList};

    use super::*;
    use crate::client;

    const BUFFER: usize = 4 << 20;
    const PARTITIONS: i32 = 32;
    /// What the mock's brokers send of a partition at a time. They stop behind the most that they may send, not before.
    const BATCH: usize = 100_000;

    /// The most bytes that have waited.
    #[derive(Default)]
    struct Most(AtomicU64);

    impl ClientContext for Most {
        fn stats(&self, told: Statistics) {
            // Partitions share a queue, and each of them tells its size.
            let waiting = told.topics.values().flat_map(|topic| topic.partitions.values()).map(|told| told.fetchq_size);
            self.0.fetch_max(waiting.max().unwrap_or_default(), Ordering::Relaxed);
        }
    }

    impl ConsumerContext for Most {}

    #[test]
    fn librdkafka_holds_no_more_than_half_of_the_buffer() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("drivers", PARTITIONS, 1).unwrap();
        let servers = cluster.bootstrap_servers();
        let mut client = ClientConfig::new();
        let producer: BaseProducer =
            client.set("bootstrap.servers", &servers).set("batch.size", BATCH.to_string()).create().unwrap();
        let value = "x".repeat(10_000);
        // 20 MB.
        for number in 0..2_000 {
            let record = BaseRecord::<(), str>::to("drivers").partition(number % PARTITIONS).payload(&value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(30)).unwrap();

        let options = json!({"bootstrap_servers": servers, "topic": "drivers"});
        let options = KafkaConfig::from_config(&config(options)).unwrap();
        let mut client = client::consumer(&options, "group", BUFFER, Duration::from_secs(10));
        client.set("statistics.interval.ms", "20");
        let consumer: BaseConsumer<Most> = client.create_with_context(Most::default()).unwrap();
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            list.add_partition_offset("drivers", partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            // So slowly that there is always more.
            consumer.poll(Duration::ZERO).transpose().unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        let most = usize::try_from(consumer.context().0.load(Ordering::Relaxed)).unwrap();
        assert!(most >= BUFFER / 4, "{most} bytes: nothing is fetched ahead");
        assert!(most <= BUFFER / 2 + BATCH, "{most} bytes of a buffer of {BUFFER}");
    }
}

#[cfg(feature = "client")]
mod resolve {
    use headwater_core::{ErrorKind, Position};

    use super::*;
    use crate::resolve::in_range;
    use crate::splits::next_offset;

    #[test]
    fn what_goes_on_at_the_oldest_record_says_so_in_its_position() {
        let policy = |policy: &str| {
            let options =
                json!({"bootstrap_servers": "localhost:9092", "topic": "drivers", "on_position_lost": policy});
            KafkaConfig::from_config(&config(options)).unwrap()
        };
        let last = Position::from_u64(2);
        for (low, resumed) in [(0, 2), (3, 2), (4, 3), (9, 8)] {
            // The position behind which is read, whatever was lost: the last one that is gone.
            let position = in_range(&policy("earliest"), 0, &last, (low, 9)).unwrap();
            assert_eq!(position, Position::from_u64(resumed), "from {low}");
            assert_eq!(next_offset(&position), Some(low.max(3)), "from {low}");
        }
        assert_eq!(in_range(&policy("fail"), 0, &last, (3, 9)).unwrap(), last);
        let error = in_range(&policy("fail"), 0, &last, (4, 9)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PositionLost, "{error}");
        assert!(error.to_string().contains("the records from offset 3 to 4 of partition 0"), "{error}");
        // Nothing was read before, and what was there first is gone.
        let position = in_range(&policy("earliest"), 0, &Position::START, (6, 9)).unwrap();
        assert_eq!(position, Position::from_u64(5));
    }
}
