//! The clients: what is set for every one of them, and what a definition may set.

use std::time::Duration;

use headwater_core::Result;
use rdkafka::ClientConfig;

use crate::config::KafkaConfig;
use crate::error::kafka;

/// How long a question to the brokers may take before it is asked again.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What every client of this source has in common.
pub(crate) fn base(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &config.bootstrap_servers);
    client.set("client.id", "headwater");
    for (key, value) in &config.options {
        client.set(key, value);
    }
    client
}

/// The configuration of a group's member.
pub(crate) fn consumer(config: &KafkaConfig, group: &str, buffer_bytes: usize) -> ClientConfig {
    let mut client = base(config);
    let mut default = |key: &str, value: &str| {
        if client.get(key).is_none() {
            client.set(key, value);
        }
    };
    // The newer group protocol brings its own assignor and session; librdkafka refuses the classic options beside it.
    if config.options.get("group.protocol").map(String::as_str) != Some("consumer") {
        default("partition.assignment.strategy", "cooperative-sticky");
        default("session.timeout.ms", "6000");
        default("heartbeat.interval.ms", "2000");
    }
    // Liveness is the session's business. A member whose stores are away for long keeps its partitions.
    default("max.poll.interval.ms", "86400000");
    default("isolation.level", "read_committed");
    default("topic.metadata.refresh.interval.ms", "10000");
    // Half of the buffer waits in librdkafka, half as Arrow.
    default("queued.max.messages.kbytes", &(buffer_bytes / 2048).clamp(1024, 2_097_151).to_string());
    default("fetch.queue.backoff.ms", "5");
    // The end of a partition behind control records is only told in the statistics.
    default("statistics.interval.ms", "1000");
    client.set("group.id", group);
    if let Some(instance) = &config.instance_id {
        client.set("group.instance.id", instance);
    }
    client.set("enable.auto.commit", "false");
    client.set("enable.auto.offset.store", "false");
    client.set("enable.partition.eof", "true");
    // A position that is gone is for `on_position_lost` to decide.
    client.set("auto.offset.reset", "error");
    client
}

/// Asks librdkafka whether it takes the configuration, without connecting.
pub(crate) fn check(client: &ClientConfig) -> Result<()> {
    client.create_native_config().map(drop).map_err(|error| kafka(error, "use these options"))
}
