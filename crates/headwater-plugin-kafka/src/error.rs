//! Where librdkafka's errors become ours.

use headwater_core::{Error, ErrorKind};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What the names of properties have in them whose values are not to be shown.
const SECRET_WORDS: [&str; 8] = ["password", "secret", "token", "credential", "key", "pem", "jaas", "oauthbearer"];

/// Maps an error of librdkafka; `doing` says what was being done.
pub(crate) fn kafka(error: KafkaError, doing: &'static str) -> Error {
    use RDKafkaErrorCode as Code;
    if let KafkaError::ClientConfig(_, description, property, _) = &error {
        return refused(property, description);
    }
    if let KafkaError::Nul(_) = &error {
        // The error below shows the text, which may be a secret.
        return Error::invalid(format!("cannot {doing}: a text holds a zero byte")).with_plugin("kafka");
    }
    let kind = match error.rdkafka_error_code() {
        // `UnknownPartition` is not among them: librdkafka says so of a partition that has no leader yet, too.
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => ErrorKind::NotFound,
        Some(
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication,
        ) => ErrorKind::PermissionDenied,
        Some(Code::OffsetOutOfRange | Code::AutoOffsetReset) => ErrorKind::PositionLost,
        Some(Code::ThrottlingQuotaExceeded) => ErrorKind::Throttled,
        Some(Code::FencedInstanceId | Code::UnreleasedInstanceId) => {
            let message =
                "another worker of the group has the same `instance_id`, or had it and its session is not over";
            return Error::new(ErrorKind::Conflict, message).with_plugin("kafka").with_source(error);
        }
        Some(
            Code::InvalidArgument | Code::InvalidConfig | Code::UnsupportedFeature | Code::InconsistentGroupProtocol,
        ) => ErrorKind::Invalid,
        _ => match &error {
            KafkaError::ClientCreation(_) => ErrorKind::Invalid,
            KafkaError::MessageConsumptionFatal(_) => ErrorKind::Unexpected,
            _ => ErrorKind::Unavailable,
        },
    };
    Error::new(kind, format!("cannot {doing}")).with_plugin("kafka").with_source(error)
}

/// A property that librdkafka does not take. librdkafka's own error repeats the value, which may be a secret.
fn refused(property: &str, description: &str) -> Error {
    let unknown = description.starts_with("No such");
    let name = property.to_ascii_lowercase();
    let why = if unknown {
        "there is no such property".to_owned()
    } else if SECRET_WORDS.iter().any(|word| name.contains(word)) {
        "its value is wrong, and not shown here".to_owned()
    } else {
        description.to_owned()
    };
    Error::invalid(format!("librdkafka refuses the property `{property}`: {why}")).with_plugin("kafka")
}
