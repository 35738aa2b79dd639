//! The options of a plugin: one declaration gives the struct, the checks and the reference.
//!
//! A definition file keeps a plugin's options beside `type:`, as flat as Feast's. The definitions hand them over as a
//! [`Config`]; [`options!`](crate::options!) declares the struct that reads them, and its [`OptionSpec`]s let the
//! definitions report unknown keys and wrong types with their line before any plugin is built, and let a plugin's
//! README be compared with its struct.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::time::Micros;

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionType {
    /// Any text.
    Text,
    /// Text that is never shown.
    Secret,
    /// Text that each worker gives for itself: see [`WorkerText`].
    Worker,
    /// `true` or `false`.
    Bool,
    /// A whole number from 0.
    Integer,
    /// An integer and a unit: `us ms s m h d w`.
    Duration,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Keys with strings, numbers or booleans.
    Map,
}

impl OptionType {
    /// How the type is called in messages and tables.
    pub fn describe(self) -> String {
        match self {
            Self::Text => "text".into(),
            Self::Secret => "secret text".into(),
            Self::Worker => "text, each worker's own".into(),
            Self::Bool => "true or false".into(),
            Self::Integer => "a whole number".into(),
            Self::Duration => "a duration such as `5m`".into(),
            Self::OneOf(words) => {
                format!("one of {}", words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "))
            }
            Self::Map => "keys with strings, numbers or booleans".into(),
        }
    }

    /// Whether a value is of this type.
    ///
    /// # Errors
    /// A message that says what would be right.
    pub fn check(self, value: &Value) -> Result<(), String> {
        match self {
            Self::Text => String::read(value).map(drop),
            Self::Secret => Secret::read(value).map(drop),
            Self::Worker => WorkerText::read(value).map(drop),
            Self::Bool => bool::read(value).map(drop),
            Self::Integer => u64::read(value).map(drop),
            Self::Duration => Duration::read(value).map(drop),
            Self::Map => BTreeMap::<String, String>::read(value).map(drop),
            Self::OneOf(words) => match value.as_str() {
                Some(word) if words.contains(&word) => Ok(()),
                _ => Err(expected(self, value)),
            },
        }
    }
}

/// One option: its name, type, default and documentation.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// The key in a definition file.
    pub name: &'static str,
    /// What it takes.
    pub kind: OptionType,
    /// The default as written in the declaration; `None` where the option is required.
    pub default: Option<&'static str>,
    /// Its documentation.
    pub doc: &'static str,
}

/// A type that an option can have.
pub trait OptionValue: Sized {
    /// What to call it.
    const KIND: OptionType;

    /// Reads it from a definition file's value.
    ///
    /// # Errors
    /// A message that says what would be right.
    fn read(value: &Value) -> Result<Self, String>;
}

fn expected(kind: OptionType, value: &Value) -> String {
    let found = match value {
        Value::Null => "nothing".into(),
        // What is in there may be a secret, in the wrong place.
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "keys and values".into(),
        // As may be the keys, written as text.
        Value::String(_) if kind == OptionType::Map => "text".into(),
        shown => format!("`{shown}`"),
    };
    format!("expected {}, found {found}", kind.describe())
}

impl OptionValue for String {
    const KIND: OptionType = OptionType::Text;

    fn read(value: &Value) -> Result<Self, String> {
        value.as_str().map(str::to_owned).ok_or_else(|| expected(Self::KIND, value))
    }
}

impl OptionValue for Secret {
    const KIND: OptionType = OptionType::Secret;

    fn read(value: &Value) -> Result<Self, String> {
        // The value is not repeated: it may be the secret with a typing error in it.
        value.as_str().map(Self::new).ok_or_else(|| "expected secret text".into())
    }
}

/// Text that tells a worker from others with the same definitions, such as `${HOSTNAME}`.
///
/// It is no part of what is applied: a worker takes it from the definitions that it is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerText(pub String);

impl OptionValue for WorkerText {
    const KIND: OptionType = OptionType::Worker;

    fn read(value: &Value) -> Result<Self, String> {
        value.as_str().map(|text| Self(text.to_owned())).ok_or_else(|| expected(Self::KIND, value))
    }
}

impl OptionValue for bool {
    const KIND: OptionType = OptionType::Bool;

    fn read(value: &Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| expected(Self::KIND, value))
    }
}

impl OptionValue for u64 {
    const KIND: OptionType = OptionType::Integer;

    fn read(value: &Value) -> Result<Self, String> {
        value.as_u64().ok_or_else(|| expected(Self::KIND, value))
    }
}

/// A length of time, read from text such as `90s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Duration(pub Micros);

impl Duration {
    /// Reads an integer and a unit: `us ms s m h d w`.
    ///
    /// # Errors
    /// A message that says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a duration: an integer and one of `us ms s m h d w`, such as `5m`");
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(digits);
        let number: i64 = number.parse().map_err(|_| wrong())?;
        let scale: i64 = match unit.trim_start() {
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            "w" => 604_800_000_000,
            _ => return Err(wrong()),
        };
        number.checked_mul(scale).map(Self).ok_or_else(|| format!("`{text}` is too long a duration"))
    }

    /// As [`std::time::Duration`]; nothing for a negative length.
    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_micros(u64::try_from(self.0).unwrap_or(0))
    }
}

impl std::fmt::Display for Duration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (scale, unit) in
            [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms")]
        {
            if self.0 % scale == 0 && self.0 != 0 {
                return write!(f, "{}{unit}", self.0 / scale);
            }
        }
        write!(f, "{}us", self.0)
    }
}

impl OptionValue for Duration {
    const KIND: OptionType = OptionType::Duration;

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Self::parse(text),
            _ => Err(expected(Self::KIND, value)),
        }
    }
}

impl OptionValue for BTreeMap<String, String> {
    const KIND: OptionType = OptionType::Map;

    fn read(value: &Value) -> Result<Self, String> {
        let map = value.as_object().ok_or_else(|| expected(Self::KIND, value))?;
        map.iter()
            .map(|(key, value)| match value {
                Value::String(text) => Ok((key.clone(), text.clone())),
                Value::Number(number) => Ok((key.clone(), number.to_string())),
                Value::Bool(flag) => Ok((key.clone(), flag.to_string())),
                _ => Err(format!("`{key}` takes a string, a number or a boolean")),
            })
            .collect()
    }
}

impl<T: OptionValue> OptionValue for Option<T> {
    const KIND: OptionType = T::KIND;

    fn read(value: &Value) -> Result<Self, String> {
        if value.is_null() { Ok(None) } else { T::read(value).map(Some) }
    }
}

/// The options of one thing in a definition file, as a plugin's factory receives them.
///
/// `Debug` shows their names alone: a value may be a secret.
#[derive(Clone)]
pub struct Config {
    /// What is configured, for messages: ``source `drivers` ``.
    pub name: String,
    /// The options by key, without those that the definitions keep for themselves.
    pub options: BTreeMap<String, Value>,
    /// The folder that relative paths start from.
    pub base_dir: PathBuf,
}

impl Config {
    /// A path or URL option: URLs and absolute paths stay, relative paths start at the definition file's folder.
    pub fn resolve(&self, path: &str) -> String {
        if path.contains("://") || Path::new(path).is_absolute() {
            path.to_owned()
        } else {
            self.base_dir.join(path).to_string_lossy().into_owned()
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("name", &self.name)
            .field("options", &self.options.keys().collect::<Vec<_>>())
            .field("base_dir", &self.base_dir)
            .finish()
    }
}

/// A struct declared with [`options!`](crate::options!).
pub trait Options: Sized {
    /// Its options, in order of declaration.
    const OPTIONS: &'static [OptionSpec];

    /// Reads the struct, reporting every wrong, missing and unknown key at once.
    ///
    /// # Errors
    /// `Invalid`, with one line for each fault.
    fn from_config(config: &Config) -> Result<Self>;
}

/// Turns the faults that [`options!`](crate::options!) found into one error.
#[doc(hidden)]
pub fn faults(config: &Config, specs: &[OptionSpec], mut faults: Vec<String>) -> Result<()> {
    for key in config.options.keys() {
        if !specs.iter().any(|spec| spec.name == key) {
            let known = specs.iter().map(|spec| format!("`{}`", spec.name)).collect::<Vec<_>>();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            faults.push(format!("unknown option `{key}`; there are {known}"));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Error::invalid(format!("{}: {}", config.name, faults.join("; ")))) }
}

/// Declares the options of a plugin.
///
/// A field without `=` is required. Default expressions are shown in the option reference as they are written.
///
/// ```
/// use headwater_core::options::{Config, Options};
///
/// headwater_core::options! {
///     /// Options of `type: lines`.
///     pub struct LinesConfig {
///         /// Where to listen.
///         address: String,
///         /// Longest line in bytes.
///         max_line_bytes: u64 = 1_048_576,
///     }
/// }
///
/// let config = Config {
///     name: "source `lines`".into(),
///     options: [("address".to_string(), "127.0.0.1:7000".into())].into(),
///     base_dir: ".".into(),
/// };
/// let lines = LinesConfig::from_config(&config)?;
/// assert_eq!(lines.max_line_bytes, 1_048_576);
/// assert_eq!(LinesConfig::OPTIONS[1].default, Some("1_048_576"));
/// # Ok::<(), headwater_core::Error>(())
/// ```
#[macro_export]
macro_rules! options {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $( $(#[doc = $doc:literal])* $field:ident : $ty:ty $(= $default:expr)? ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        $vis struct $name {
            $( $(#[doc = $doc])* pub $field: $ty, )*
        }

        impl $crate::options::Options for $name {
            const OPTIONS: &'static [$crate::options::OptionSpec] = &[
                $( $crate::options::OptionSpec {
                    name: stringify!($field),
                    kind: <$ty as $crate::options::OptionValue>::KIND,
                    default: $crate::options!(@default $($default)?),
                    doc: concat!($($doc, "\n"),*),
                }, )*
            ];

            fn from_config(config: &$crate::options::Config) -> $crate::Result<Self> {
                #[allow(unused_mut)] // Structs without fields.
                let mut faults: Vec<String> = Vec::new();
                $(
                    let $field: Option<$ty> = match config.options.get(stringify!($field)) {
                        Some(value) => match <$ty as $crate::options::OptionValue>::read(value) {
                            Ok(value) => Some(value),
                            Err(fault) => {
                                faults.push(format!("option `{}`: {fault}", stringify!($field)));
                                None
                            }
                        },
                        None => $crate::options!(@missing faults $field $($default)?),
                    };
                )*
                $crate::options::faults(config, Self::OPTIONS, faults)?;
                match ($($field,)*) {
                    ($(Some($field),)*) => Ok(Self { $($field),* }),
                    // Every `None` has left a fault behind.
                    #[allow(unreachable_patterns)]
                    _ => Err($crate::Error::invalid(format!("{}: incomplete options", config.name))),
                }
            }
        }
    };
    (@default) => { None };
    (@default $default:expr) => { Some(stringify!($default)) };
    (@missing $faults:ident $field:ident) => {{
        $faults.push(format!("option `{}` is missing", stringify!($field)));
        None
    }};
    (@missing $faults:ident $field:ident $default:expr) => { Some($default) };
}
