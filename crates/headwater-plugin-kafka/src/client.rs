//! The clients: what is set for every one of them, and what a definition may set.

use std::time::Duration;

use headwater_core::Result;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::config::KafkaConfig;
use crate::error::kafka;

/// How long a question to the brokers may take before it is asked again.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What every client of this source has in common.
pub(crate) fn base(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("client.id", "headwater");
    for (key, value) in config.options.iter() {
        client.set(key, value);
    }
    client.set("bootstrap.servers", &config.bootstrap_servers);
    // A connection that is closed is only told at this level. Nothing of it is shown unless asked for, nor is what the
    // property `debug` brings.
    let level = if client.get("debug").is_some() { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info };
    client.set_log_level(level);
    client
}

/// The configuration of a client that is no member of a group: it asks questions.
pub(crate) fn outsider(config: &KafkaConfig) -> ClientConfig {
    let mut client = base(config);
    for property in ["group.protocol", "group.remote.assignor"] {
        client.remove(property);
    }
    client.set("enable.auto.commit", "false");
    let isolation = config.options.get("isolation.level").unwrap_or("read_committed");
    client.set("isolation.level", isolation);
    client
}

/// The configuration of a group's member.
pub(crate) fn consumer(config: &KafkaConfig, group: &str, buffer_bytes: usize, refresh: Duration) -> ClientConfig {
    let mut client = base(config);
    let mut default = |key: &str, value: &str| {
        if client.get(key).is_none() {
            client.set(key, value);
        }
    };
    // The newer group protocol brings its own assignor and session; librdkafka refuses the classic options beside it.
    if !config.newer_protocol() {
        default("partition.assignment.strategy", "cooperative-sticky");
        default("session.timeout.ms", "6000");
        default("heartbeat.interval.ms", "2000");
    }
    // A thread polls whatever the stores do; the longest it does not is while a partition is handed over.
    let longest = (config.revoke_timeout.to_std() * 2).clamp(Duration::from_secs(300), Duration::from_secs(86_400));
    default("max.poll.interval.ms", &longest.as_millis().to_string());
    default("isolation.level", "read_committed");
    // An answer that comes while the leader of the group waits for another one, to share out partitions, has the group joined
    // from the start: more often, and a slow machine may never be done.
    default("topic.metadata.refresh.interval.ms", &refresh.as_millis().max(100).to_string());
    // A quarter of the buffer may wait in librdkafka when it asks a broker for more, and as much may come: unless it is told
    // another one, it takes this number for `fetch.max.bytes` too, and `message.max.bytes` where that is larger. A record
    // larger than either comes all the same. The other half of the buffer is for what waits as Arrow.
    default("queued.max.messages.kbytes", &(buffer_bytes / 4096).clamp(1024, 2_097_151).to_string());
    default("fetch.queue.backoff.ms", "5");
    // A leader that moves, and a broker that comes back, are found again soon.
    default("fetch.error.backoff.ms", "100");
    default("reconnect.backoff.max.ms", "1000");
    // The end of a partition behind control records is only told in the statistics.
    client.set("statistics.interval.ms", "1000");
    client.set("group.id", group);
    if let Some(instance) = &config.instance_id {
        client.set("group.instance.id", &instance.0);
    }
    client.set("enable.auto.commit", "false");
    client.set("enable.auto.offset.store", "false");
    client.set("enable.partition.eof", "true");
    // A position that is gone is for `on_position_lost` to decide.
    client.set("auto.offset.reset", "error");
    client
}

/// Asks librdkafka whether it knows the properties, without connecting.
///
/// # Errors
/// `Invalid`, naming the property that it refuses.
pub(crate) fn check(config: &KafkaConfig) -> Result<()> {
    let client = consumer(config, "check", 64 << 20, Duration::from_secs(10));
    client.create_native_config().map(drop).map_err(|error| kafka(error, "use these options"))
}
