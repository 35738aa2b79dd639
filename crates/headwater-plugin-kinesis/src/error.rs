//! Where the SDK's errors become ours.

use std::any::Any;
use std::error::Error as StdError;

use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use headwater_core::{Error, ErrorKind};

/// The iterator is older than five minutes.
pub(crate) const EXPIRED_ITERATOR: &str = "ExpiredIteratorException";
/// The token of a listing is older than five minutes.
pub(crate) const EXPIRED_TOKEN: &str = "ExpiredNextTokenException";
/// The stream, the shard or the consumer does not exist.
pub(crate) const NOT_FOUND: &str = "ResourceNotFoundException";
/// What is to be made exists, or is being changed.
pub(crate) const IN_USE: &str = "ResourceInUseException";
/// An argument is wrong: also an iterator or a sequence number that is not of this stream.
pub(crate) const INVALID_ARGUMENT: &str = "InvalidArgumentException";

/// The code of the service's answer.
pub(crate) fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Option<&str> {
    match error {
        SdkError::ServiceError(answer) => answer.err().code(),
        _ => None,
    }
}

/// Maps an error of the SDK; `doing` says what was being done.
pub(crate) fn kinesis<E, R>(error: SdkError<E, R>, doing: impl std::fmt::Display) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let kind = match &error {
        SdkError::ServiceError(answer) => {
            // What comes in an event of a subscription has no status: there, what has no code is a fault of the server.
            let response = (answer.raw() as &dyn Any).downcast_ref::<HttpResponse>();
            let status = response.map_or(500, |response| response.status().as_u16());
            of_code(answer.err().code().unwrap_or_default(), status)
        }
        SdkError::ConstructionFailure(_) => ErrorKind::Invalid,
        SdkError::DispatchFailure(failure) if failure.is_user() => ErrorKind::Invalid,
        SdkError::DispatchFailure(failure) if failure.as_connector_error().is_some_and(lacks_credentials) => {
            ErrorKind::PermissionDenied
        }
        // Time-outs, connections that broke, answers that were cut off.
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("cannot {doing}")).with_plugin("kinesis").with_source(error)
}

fn of_code(code: &str, status: u16) -> ErrorKind {
    match code {
        NOT_FOUND => ErrorKind::NotFound,
        // Most are how other services say it, and what stands before a service: the SDK's own list.
        "ProvisionedThroughputExceededException"
        | "LimitExceededException"
        | "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "KMSThrottlingException"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "TooManyRequestsException"
        | "BandwidthLimitExceeded"
        | "PriorRequestNotComplete"
        | "TransactionInProgressException"
        | "EC2ThrottledException"
        | "SlowDown" => ErrorKind::Throttled,
        // The second is how STS says it.
        "AccessDeniedException"
        | "AccessDenied"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "OptInRequired"
        | "KMSAccessDeniedException"
        | "KMSDisabledException"
        | "KMSInvalidStateException"
        | "KMSNotFoundException"
        | "KMSOptInRequired" => ErrorKind::PermissionDenied,
        // Credentials of a role are renewed; a stream that is being changed will be done with it.
        "ExpiredTokenException"
        | EXPIRED_ITERATOR
        | EXPIRED_TOKEN
        | IN_USE
        | "InternalFailureException"
        | "RequestTimeout"
        | "RequestTimeoutException" => ErrorKind::Unavailable,
        INVALID_ARGUMENT | "ValidationException" => ErrorKind::Invalid,
        _ if status == 429 => ErrorKind::Throttled,
        _ if status >= 500 => ErrorKind::Unavailable,
        _ => ErrorKind::Unexpected,
    }
}

/// Whether the SDK found no credentials anywhere, or whoever gives them refuses to: asking again will not change that. It
/// says so in words alone: the errors of credentials come from many services, whose types are not ours to know.
fn lacks_credentials(error: &aws_sdk_kinesis::error::ConnectorError) -> bool {
    let mut cause: Option<&dyn StdError> = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        let code = text.strip_prefix("unhandled error (").and_then(|rest| rest.strip_suffix(')'));
        if text.contains("no providers in chain provided credentials")
            || text.contains("provider was not enabled")
            || code.is_some_and(|code| of_code(code, 400) == ErrorKind::PermissionDenied)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_what_helps() {
        let retryable = |code, status| Error::new(of_code(code, status), "x").is_retryable();
        for code in ["ProvisionedThroughputExceededException", "LimitExceededException", EXPIRED_ITERATOR, IN_USE] {
            assert!(retryable(code, 400), "{code}");
        }
        assert!(retryable("", 500) && retryable("SomethingNew", 503) && retryable("", 429));
        for code in [NOT_FOUND, "AccessDeniedException", INVALID_ARGUMENT, "KMSDisabledException"] {
            assert!(!retryable(code, 400), "{code}");
        }
        assert_eq!(of_code("SomethingNew", 400), ErrorKind::Unexpected);
        for code in ["Throttling", "ThrottledException", "TooManyRequestsException", "RequestThrottled", "SlowDown"] {
            assert_eq!(of_code(code, 400), ErrorKind::Throttled, "{code}");
        }
        for code in ["RequestTimeout", "RequestTimeoutException"] {
            assert!(retryable(code, 400), "{code}");
        }
    }
}
