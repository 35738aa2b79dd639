//! Where librdkafka's errors become ours.

use headwater_core::{Error, ErrorKind};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Maps an error of librdkafka; `doing` says what was being done.
pub(crate) fn kafka(error: KafkaError, doing: &'static str) -> Error {
    use RDKafkaErrorCode as Code;
    let kind = match error.rdkafka_error_code() {
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => ErrorKind::NotFound,
        Some(
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication,
        ) => ErrorKind::PermissionDenied,
        Some(Code::OffsetOutOfRange | Code::AutoOffsetReset) => ErrorKind::PositionLost,
        Some(Code::ThrottlingQuotaExceeded) => ErrorKind::Throttled,
        Some(Code::InvalidArgument | Code::InvalidConfig | Code::UnsupportedFeature) => ErrorKind::Invalid,
        _ => match &error {
            KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) => ErrorKind::Invalid,
            KafkaError::MessageConsumptionFatal(_) => ErrorKind::Unexpected,
            _ => ErrorKind::Unavailable,
        },
    };
    Error::new(kind, format!("cannot {doing}")).with_plugin("kafka").with_source(error)
}
