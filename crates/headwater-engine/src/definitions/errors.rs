//! The faults of definitions.

use std::fmt;

use headwater_core::Error;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line and column in the file, from 1; `None` for definitions made in code.
    pub position: Option<(usize, usize)>,
    /// Where in the definitions: `sources[drivers].batch_source`. Empty for the file as a whole.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
    /// The nearest thing that would be right, if one is near.
    pub hint: Option<String>,
}

/// Everything that is wrong with definitions, in order of the file.
///
/// `Display` has a line for each fault, as compilers print them, and one below it for its hint:
///
/// ```text
/// headwater.yaml:12:19: sources[drivers].batch_source: there is no source `driver_stat`
///     did you mean `driver_stats`?
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DefinitionErrors {
    /// The file, as it was named; `None` for definitions made in code.
    pub file: Option<String>,
    /// The faults.
    pub faults: Vec<Fault>,
}

impl fmt::Display for DefinitionErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            if let Some(file) = &self.file {
                write!(f, "{file}:")?;
            }
            if let Some((line, column)) = fault.position {
                write!(f, "{line}:{column}:")?;
            }
            if self.file.is_some() || fault.position.is_some() {
                f.write_str(" ")?;
            }
            if !fault.path.is_empty() {
                write!(f, "{}: ", fault.path)?;
            }
            f.write_str(&fault.message)?;
            if let Some(hint) = &fault.hint {
                write!(f, "\n    {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for DefinitionErrors {}

impl From<DefinitionErrors> for Error {
    fn from(errors: DefinitionErrors) -> Self {
        Self::invalid(errors.to_string())
    }
}
