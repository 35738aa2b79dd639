//! Spark's DDL for columns: `driver_id bigint NOT NULL, tags array<string> COMMENT 'free text'`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use headwater_core::definitions::timestamp_type;

use super::place::nearest;

/// Why a text is no DDL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DdlError {
    /// The character at fault, from 0.
    pub(crate) at: usize,
    /// What is wrong there, and what would be right.
    pub(crate) message: String,
    /// What was probably meant.
    pub(crate) hint: Option<String>,
}

/// Reads columns. Times are microseconds UTC, with and without a zone.
///
/// # Errors
/// The first fault and its place.
pub(crate) fn parse(text: &str) -> Result<SchemaRef, DdlError> {
    let mut parser = Parser { chars: text.chars().collect(), at: 0, depth: 0 };
    parser.blanks();
    if parser.peek().is_none() {
        return Err(parser.error("no columns: write a name and a type for each, such as `driver_id bigint`"));
    }
    let fields = parser.fields(None)?;
    Ok(Arc::new(Schema::new(fields)))
}

const MAX_DEPTH: usize = 32;
const TYPES: [&str; 24] = [
    "array",
    "bigint",
    "binary",
    "boolean",
    "byte",
    "char",
    "date",
    "decimal",
    "double",
    "float",
    "int",
    "integer",
    "long",
    "map",
    "numeric",
    "real",
    "short",
    "smallint",
    "string",
    "struct",
    "timestamp",
    "timestamp_ntz",
    "tinyint",
    "varchar",
];

struct Parser {
    chars: Vec<char>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn error(&self, message: impl Into<String>) -> DdlError {
        self.error_at(self.at, message)
    }

    fn error_at(&self, at: usize, message: impl Into<String>) -> DdlError {
        DdlError { at: at.min(self.chars.len()), message: message.into(), hint: None }
    }

    fn found(&self) -> String {
        match self.peek() {
            None => "the end of the text".into(),
            Some(c) if c.is_alphanumeric() || c == '_' => {
                let word: String = self
                    .chars
                    .iter()
                    .skip(self.at)
                    .take_while(|c| c.is_alphanumeric() || **c == '_')
                    .take(40)
                    .collect();
                format!("`{word}`")
            }
            Some(c) => format!("`{c}`"),
        }
    }

    /// Takes `c` and the blanks after it, if it is next.
    fn take(&mut self, c: char) -> bool {
        let there = self.peek() == Some(c);
        if there {
            self.at += 1;
            self.blanks();
        }
        there
    }

    fn expect(&mut self, c: char, after: &str) -> Result<(), DdlError> {
        if self.take(c) { Ok(()) } else { Err(self.error(format!("expected `{c}` {after}, found {}", self.found()))) }
    }

    fn word(&mut self) -> Option<(usize, String)> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_') {
            self.at += 1;
        }
        let word: String = self.chars.get(start..self.at)?.iter().collect();
        self.blanks();
        (!word.is_empty()).then_some((start, word))
    }

    /// Takes these words, in any case, if they are next.
    fn keywords(&mut self, words: &[&str]) -> bool {
        let start = self.at;
        for word in words {
            if !self.word().is_some_and(|(_, found)| found.eq_ignore_ascii_case(word)) {
                self.at = start;
                return false;
            }
        }
        true
    }

    /// Columns up to the end, or fields up to `close`, which is taken.
    fn fields(&mut self, close: Option<char>) -> Result<Fields, DdlError> {
        let mut fields: Vec<Field> = Vec::new();
        loop {
            let (at, name) = self.name()?;
            if fields.iter().any(|field| field.name().eq_ignore_ascii_case(&name)) {
                return Err(self.error_at(at, format!("the column `{name}` is there twice")));
            }
            // Spark writes the colon inside of structs and takes it everywhere.
            self.take(':');
            let data_type = self.data_type(&name)?;
            let nullable = !self.keywords(&["NOT", "NULL"]);
            if self.keywords(&["COMMENT"]) {
                self.comment()?;
            }
            fields.push(Field::new(name, data_type, nullable));
            if self.take(',') {
                if self.peek().is_none() {
                    return Err(self.error("expected another column after the `,`"));
                }
                continue;
            }
            match (close, self.peek()) {
                (None, None) => return Ok(fields.into()),
                (Some(close), Some(c)) if c == close => {
                    self.take(close);
                    return Ok(fields.into());
                }
                (Some(close), _) => {
                    return Err(self.error(format!("expected `,` or `{close}`, found {}", self.found())));
                }
                (None, _) => {
                    return Err(self.error(format!("expected `,` between columns, found {}", self.found())));
                }
            }
        }
    }

    fn name(&mut self) -> Result<(usize, String), DdlError> {
        let start = self.at;
        if self.peek() != Some('`') {
            return self.word().ok_or_else(|| self.error(format!("expected a column's name, found {}", self.found())));
        }
        self.at += 1;
        let mut name = String::new();
        loop {
            match self.peek() {
                None => return Err(self.error_at(start, "this backquote is not closed")),
                Some('`') => {
                    self.at += 1;
                    // Two of them stand for one.
                    if self.peek() != Some('`') {
                        break;
                    }
                    name.push('`');
                }
                Some(c) => name.push(c),
            }
            self.at += 1;
        }
        self.blanks();
        if name.is_empty() { Err(self.error_at(start, "a column needs a name")) } else { Ok((start, name)) }
    }

    fn comment(&mut self) -> Result<(), DdlError> {
        let start = self.at;
        let quote = match self.peek() {
            Some(c @ ('\'' | '"')) => c,
            _ => return Err(self.error(format!("expected text in quotes after `COMMENT`, found {}", self.found()))),
        };
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err(self.error_at(start, "this quote is not closed")),
                Some('\\') => self.at += 1,
                Some(c) if c == quote => break,
                Some(_) => {}
            }
            self.at += 1;
        }
        self.at += 1;
        self.blanks();
        Ok(())
    }

    fn data_type(&mut self, column: &str) -> Result<DataType, DdlError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(format!("types nested deeper than {MAX_DEPTH} levels")));
        }
        let Some((start, word)) = self.word() else {
            return Err(self.error(format!("expected the type of `{column}`, found {}", self.found())));
        };
        let data_type = match word.to_ascii_lowercase().as_str() {
            "tinyint" | "byte" => DataType::Int8,
            "smallint" | "short" => DataType::Int16,
            "int" | "integer" => DataType::Int32,
            "bigint" | "long" => DataType::Int64,
            "float" | "real" => DataType::Float32,
            "double" => DataType::Float64,
            "decimal" | "dec" | "numeric" => self.decimal()?,
            "string" => DataType::Utf8,
            "varchar" | "char" => {
                self.expect('(', &format!("and a length after `{word}`"))?;
                self.number()?;
                self.expect(')', "after the length")?;
                DataType::Utf8
            }
            "boolean" => DataType::Boolean,
            "binary" => DataType::Binary,
            "date" => DataType::Date32,
            "timestamp" | "timestamp_ntz" | "timestamp_ltz" => timestamp_type(),
            "array" => {
                self.expect('<', "and a type after `array`")?;
                let item = self.data_type(column)?;
                self.expect('>', "after the type of an array's items")?;
                DataType::List(Arc::new(Field::new("item", item, true)))
            }
            "map" => {
                self.expect('<', "and two types after `map`")?;
                let key = self.data_type(column)?;
                self.expect(',', "between the types of a map's keys and values")?;
                let value = self.data_type(column)?;
                self.expect('>', "after the type of a map's values")?;
                let fields = vec![Field::new("keys", key, false), Field::new("values", value, true)];
                DataType::Map(Arc::new(Field::new("entries", DataType::Struct(fields.into()), false)), false)
            }
            "struct" => {
                self.expect('<', "and fields after `struct`")?;
                DataType::Struct(self.fields(Some('>'))?)
            }
            other => {
                let mut error = self.error_at(start, format!("`{word}` is not a type of Spark's DDL"));
                error.hint = meant(other).map(|name| format!("did you mean `{name}`?"));
                return Err(error);
            }
        };
        self.depth -= 1;
        Ok(data_type)
    }

    fn number(&mut self) -> Result<u8, DdlError> {
        let start = self.at;
        let (_, digits) =
            self.word().ok_or_else(|| self.error(format!("expected a number, found {}", self.found())))?;
        match digits.parse::<u32>() {
            // Lengths of texts are not kept.
            Ok(number) => Ok(u8::try_from(number).unwrap_or(u8::MAX)),
            Err(_) => Err(self.error_at(start, format!("expected a number, found `{digits}`"))),
        }
    }

    fn decimal(&mut self) -> Result<DataType, DdlError> {
        if self.peek() != Some('(') {
            return Ok(DataType::Decimal128(10, 0));
        }
        let start = self.at;
        self.take('(');
        let precision = self.number()?;
        let scale = if self.take(',') { self.number()? } else { 0 };
        self.expect(')', "after the digits of a decimal")?;
        match i8::try_from(scale) {
            Ok(signed) if (1..=38).contains(&precision) && scale <= precision => {
                Ok(DataType::Decimal128(precision, signed))
            }
            _ => Err(self.error_at(
                start,
                format!(
                    "a decimal has 1 to 38 digits, of which no more are behind the point, not ({precision},{scale})"
                ),
            )),
        }
    }
}

/// The type that a word was meant to be: some are called otherwise elsewhere.
fn meant(word: &str) -> Option<&'static str> {
    match word {
        "bool" => Some("boolean"),
        "text" | "str" | "utf8" | "object" => Some("string"),
        "int64" | "integer64" | "uint32" => Some("bigint"),
        "int32" => Some("int"),
        "float64" | "number" => Some("double"),
        "float32" => Some("float"),
        "bytes" | "blob" => Some("binary"),
        "datetime" | "time" | "timestamptz" | "unix_timestamp" => Some("timestamp"),
        "list" => Some("array"),
        _ => nearest(word, TYPES),
    }
}
