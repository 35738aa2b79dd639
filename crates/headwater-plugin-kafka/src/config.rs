//! The options of `type: kafka`.

use std::collections::BTreeMap;

use headwater_core::options::{Duration, OptionType, OptionValue, WorkerText};
use headwater_core::stream::OnPositionLost;
use headwater_core::{Error, Result, Secret};
use serde_json::Value;

headwater_core::options! {
    /// Options of `type: kafka`.
    pub struct KafkaConfig {
        /// Brokers to begin with: `host:port`, separated by commas.
        bootstrap_servers: String,
        /// The topic.
        topic: String,
        /// Properties of librdkafka, handed through as they are: SASL, TLS, fetch sizes.
        options: Properties = Properties::default(),
        /// The URL of a Confluent schema registry, for records framed with a schema id.
        schema_registry_url: Option<String> = None,
        /// The user of the schema registry.
        schema_registry_username: Option<String> = None,
        /// The password of the schema registry.
        schema_registry_password: Option<Secret> = None,
        /// A name for this worker that survives restarts: it gets its partitions back without a rebalance. Each worker
        /// takes it from its own definitions, such as `${HOSTNAME}`.
        instance_id: Option<WorkerText> = None,
        /// How long a partition that is taken away waits for what is being written; then it counts as lost.
        revoke_timeout: Duration = Duration(10_000_000),
        /// What a null value means: `ignore` it, or `delete` the entity that the record's key names.
        tombstones: Tombstones = Tombstones::Ignore,
        /// What to do when retention has removed the position to resume from: `fail`, or go on at the `earliest`.
        on_position_lost: OnPositionLost = OnPositionLost::Fail,
    }
}

/// Properties of librdkafka by name. `Debug` shows the names alone: a value may be a password.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// The value of a property, where it is given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl std::fmt::Debug for Properties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl OptionValue for Properties {
    const KIND: OptionType = OptionType::Map;

    fn read(value: &Value) -> Result<Self, String> {
        BTreeMap::read(value).map(Self)
    }
}

/// What a null value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tombstones {
    /// Nothing.
    Ignore,
    /// That the entity of the record's key is gone.
    Delete,
}

impl OptionValue for Tombstones {
    const KIND: OptionType = OptionType::OneOf(&["ignore", "delete"]);

    fn read(value: &Value) -> Result<Self, String> {
        Self::KIND.check(value)?;
        Ok(if value.as_str() == Some("delete") { Self::Delete } else { Self::Ignore })
    }
}

/// Properties of librdkafka that Headwater sets itself, and the option that says the same.
const OWN: [(&str, &str); 9] = [
    ("bootstrap.servers", "bootstrap_servers"),
    ("metadata.broker.list", "bootstrap_servers"),
    ("group.instance.id", "instance_id"),
    ("group.id", "the project and the source, as `{project}.{source}`"),
    ("auto.offset.reset", "start"),
    ("enable.auto.commit", "nothing: commits follow what is stored"),
    ("enable.auto.offset.store", "nothing: commits follow what is stored"),
    ("enable.partition.eof", "nothing: the reader needs it"),
    ("statistics.interval.ms", "nothing: the reader needs them"),
];

/// Properties of the classic group protocol, which librdkafka refuses beside the newer one, and what stands for them.
const CLASSIC: [(&str, &str); 4] = [
    ("session.timeout.ms", "the broker's `group.consumer.session.timeout.ms`"),
    ("heartbeat.interval.ms", "the broker's `group.consumer.heartbeat.interval.ms`"),
    ("partition.assignment.strategy", "`group.remote.assignor`"),
    ("group.protocol.type", "nothing"),
];

/// The mechanisms of SASL that are built in. The others take a token or a ticket from elsewhere.
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

impl KafkaConfig {
    /// Checks what the types of the options do not say. `name` is what is configured, for messages.
    ///
    /// # Errors
    /// `Invalid`, with every fault.
    pub fn validate(&self, name: &str) -> Result<()> {
        let mut faults = Vec::new();
        for broker in self.bootstrap_servers.split(',').map(str::trim) {
            let port =
                broker.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(port)) if port > 0) {
                faults.push(format!("option `bootstrap_servers`: `{broker}` is not `host:port`"));
            }
        }
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.topic.is_empty() || self.topic.len() > 249 || !self.topic.chars().all(letters) {
            faults.push(format!(
                "option `topic`: `{}` is no topic: 1 to 249 letters, digits, `.`, `_` and `-`",
                self.topic
            ));
        }
        for (property, instead) in OWN {
            if self.options.get(property).is_some() {
                faults.push(format!("option `options`: `{property}` is decided by {instead}"));
            }
        }
        if self.newer_protocol() {
            for (property, instead) in CLASSIC {
                if self.options.get(property).is_some() {
                    faults.push(format!(
                        "option `options`: `{property}` belongs to the classic group protocol; beside `group.protocol: \
                         consumer` it is decided by {instead}"
                    ));
                }
            }
        }
        faults.extend(self.sasl());
        if let Some(url) = &self.schema_registry_url {
            let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
            match rest.map(|rest| rest.split('/').next().unwrap_or_default()) {
                None | Some("") => {
                    faults.push("option `schema_registry_url` begins with `http://` or `https://` and a host".into());
                }
                Some(host) if host.contains('@') => faults.push(
                    "option `schema_registry_url`: user and password have options of their own, \
                     `schema_registry_username` and `schema_registry_password`"
                        .into(),
                ),
                Some(_) => {}
            }
        }
        if self.schema_registry_url.is_none()
            && (self.schema_registry_username.is_some() || self.schema_registry_password.is_some())
        {
            faults.push("option `schema_registry_url` is missing, and its user or password is given".into());
        }
        if self.schema_registry_username.is_some() != self.schema_registry_password.is_some() {
            faults.push(
                "options `schema_registry_username` and `schema_registry_password` are given together or not at all"
                    .into(),
            );
        }
        if faults.is_empty() { Ok(()) } else { Err(Error::invalid(format!("{name}: {}", faults.join("; ")))) }
    }

    /// What SASL lacks. librdkafka would say it when the first client is made.
    fn sasl(&self) -> Option<String> {
        let protocol = self.options.get("security.protocol").unwrap_or_default().to_ascii_lowercase();
        if !protocol.starts_with("sasl") {
            return None;
        }
        let mechanism = self.options.get("sasl.mechanism").or_else(|| self.options.get("sasl.mechanisms"));
        match mechanism {
            Some(known) if MECHANISMS.contains(&known) => {}
            other => {
                let found = other.map_or("is missing".into(), |other| format!("`{other}` is not built in"));
                return Some(format!(
                    "option `options`: `sasl.mechanism` {found}: one of `{}`",
                    MECHANISMS.join("`, `")
                ));
            }
        }
        let missing = ["sasl.username", "sasl.password"].into_iter().find(|name| self.options.get(name).is_none());
        missing.map(|name| format!("option `options`: `{name}` is missing"))
    }

    /// Whether the group is kept by the newer protocol, which the broker drives.
    pub(crate) fn newer_protocol(&self) -> bool {
        self.options.get("group.protocol").is_some_and(|protocol| protocol.eq_ignore_ascii_case("consumer"))
    }
}
