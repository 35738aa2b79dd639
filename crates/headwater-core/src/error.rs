//! One error type for every plugin and the engine.

use std::error::Error as StdError;
use std::fmt;

/// The result of an operation that can fail with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

type BoxError = Box<dyn StdError + Send + Sync>;

/// What went wrong, for callers who act on it. Match on this, never on the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A definition, an option or an argument is wrong; the caller has to change it.
    Invalid,
    /// The thing that was named does not exist.
    NotFound,
    /// Somebody else was there first: a file that exists, a lock that is held.
    Conflict,
    /// This instance does not do that, and says so in its capabilities.
    Unsupported,
    /// Credentials are missing or do not suffice.
    PermissionDenied,
    /// The other side cannot be reached or answers with a passing fault.
    Unavailable,
    /// The other side asks to be called less often.
    Throttled,
    /// A position that was to be resumed from is no longer there.
    PositionLost,
    /// Data cannot be decoded, cast or transformed.
    Data,
    /// Stored bytes are damaged.
    Corrupt,
    /// Stored bytes carry a format version that this release does not know.
    FormatVersion,
    /// A fault that nobody foresaw.
    Unexpected,
}

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same call will fail again.
    Permanent,
    /// The same call may succeed later.
    Temporary,
}

/// An error with its kind, whether a retry can help, what was being done, and what lies underneath.
///
/// `Display` is one line: the message and the causes. `Debug` is a few readable lines with the context.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    retry: Retry,
    message: String,
    plugin: Option<&'static str>,
    operation: Option<&'static str>,
    context: Vec<(&'static str, String)>,
    source: Option<BoxError>,
}

impl Error {
    /// An error of `kind`; temporary when the kind says so (`Unavailable`, `Throttled`), else permanent.
    ///
    /// Messages are lowercase, without a final stop, offending values in backticks.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let retry = match kind {
            ErrorKind::Unavailable | ErrorKind::Throttled => Retry::Temporary,
            _ => Retry::Permanent,
        };
        Self(Box::new(Inner {
            kind,
            retry,
            message: message.into(),
            plugin: None,
            operation: None,
            context: Vec::new(),
            source: None,
        }))
    }

    /// Shorthand for [`ErrorKind::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Shorthand for [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// Shorthand for [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// Shorthand for [`ErrorKind::Data`].
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// Shorthand for [`ErrorKind::Corrupt`].
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// Shorthand for [`ErrorKind::Unexpected`].
    pub fn unexpected(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unexpected, message)
    }

    /// Says that trying again can help.
    #[must_use]
    pub fn temporary(mut self) -> Self {
        self.0.retry = Retry::Temporary;
        self
    }

    /// Says that trying again cannot help.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.0.retry = Retry::Permanent;
        self
    }

    /// Keeps the native error underneath.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Names the plugin that reports the error.
    #[must_use]
    pub fn with_plugin(mut self, plugin: &'static str) -> Self {
        self.0.plugin = Some(plugin);
        self
    }

    /// Names the operation that failed.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.0.operation = Some(operation);
        self
    }

    /// Adds a value that helps to find the cause, such as a path or a split. Never a secret.
    #[must_use]
    pub fn with_context(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, value.to_string()));
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether trying the same call again can help.
    pub fn is_retryable(&self) -> bool {
        self.0.retry == Retry::Temporary
    }

    /// The message without its causes and context.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The plugin that reported the error.
    pub fn plugin(&self) -> Option<&'static str> {
        self.0.plugin
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        if let Some(plugin) = inner.plugin {
            write!(f, "{plugin}: ")?;
        }
        f.write_str(&inner.message)?;
        if !inner.context.is_empty() {
            let mut separator = " (";
            for (key, value) in &inner.context {
                write!(f, "{separator}{key}: {value}")?;
                separator = ", ";
            }
            f.write_str(")")?;
        }
        let mut source = inner.source.as_deref().map(|e| e as &dyn StdError);
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            // Our own errors print their causes themselves.
            source = if cause.is::<Error>() { None } else { cause.source() };
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        write!(f, "{:?} ({:?}): {}", inner.kind, inner.retry, inner.message)?;
        if let Some(plugin) = inner.plugin {
            write!(f, "\n  plugin: {plugin}")?;
        }
        if let Some(operation) = inner.operation {
            write!(f, "\n  operation: {operation}")?;
        }
        for (key, value) in &inner.context {
            write!(f, "\n  {key}: {value}")?;
        }
        if let Some(source) = &inner.source {
            write!(f, "\n  source: {source:?}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::data("arrow").with_source(error)
    }
}
