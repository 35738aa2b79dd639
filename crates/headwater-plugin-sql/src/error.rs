//! Native errors become [`Error`]s here and nowhere else.

use datafusion_common::DataFusionError;
use datafusion_sql::sqlparser::parser::ParserError;
use datafusion_sql::sqlparser::tokenizer::Span;
use headwater_core::Error;

/// A text that is no SQL.
pub(crate) fn syntax(error: ParserError) -> Error {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        ParserError::RecursionLimitExceeded => "expressions are nested too deeply".into(),
    };
    Error::invalid(lower_first(&message.replace("Line: ", "line ").replace("Column: ", "column ")))
}

/// An expression that has no meaning for these columns. `what` names it.
pub(crate) fn planning(what: &str, error: &DataFusionError) -> Error {
    Error::invalid(format!("{what}: {}", text(error)))
}

/// Rows for which `what` has no value.
pub(crate) fn data(what: &str, error: &DataFusionError) -> Error {
    Error::data(format!("{what} cannot be computed: {}", text(error)))
}

/// Where something stands, to be put after its name; empty where the parser did not say.
pub(crate) fn at(span: Span) -> String {
    match (span.start.line, span.start.column) {
        (0, _) => String::new(),
        (line, column) => format!(" at line {line}, column {column}"),
    }
}

/// The first line of the innermost message: the outer ones name DataFusion's stages, the others are its backtraces.
fn text(error: &DataFusionError) -> String {
    let root = error.find_root();
    let message = match root {
        DataFusionError::ArrowError(arrow, _) => arrow.to_string(),
        DataFusionError::SchemaError(schema, _) => schema.to_string(),
        DataFusionError::Plan(message)
        | DataFusionError::NotImplemented(message)
        | DataFusionError::Execution(message)
        | DataFusionError::Internal(message) => message.clone(),
        other => other.strip_backtrace(),
    };
    let line = message.lines().next().unwrap_or_default().trim().trim_end_matches('.');
    lower_first(line.split("\n\nbacktrace").next().unwrap_or(line))
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        // An abbreviation or a type's name keeps its capitals.
        Some(first) if chars.clone().next().is_some_and(char::is_lowercase) => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}
