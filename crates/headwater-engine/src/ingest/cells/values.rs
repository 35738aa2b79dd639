//! Single values to the types of columns, without loss.

use std::borrow::Cow;

use arrow::datatypes::TimeUnit;
use headwater_core::Result;

use super::Cell;
use crate::cast::{number_time, parse_time, shorten};

pub(super) fn misfit(cell: &Cell<'_>, to: &str) -> String {
    let shown = match cell {
        Cell::Null => "null".to_owned(),
        Cell::Bool(value) => value.to_string(),
        Cell::Int(value) => value.to_string(),
        Cell::Big(value) => value.to_string(),
        Cell::Float(value) => value.to_string(),
        #[cfg(feature = "protobuf")]
        Cell::Bytes(_) => return format!("bytes are not {to}"),
        #[cfg(feature = "protobuf")]
        Cell::Time(_) => return format!("a time is not {to}"),
        Cell::Text(text) => return format!("text `{}` does not go into {to} without loss", shorten(text)),
        Cell::List(_) => return format!("a list is not {to}"),
        Cell::Object(_) => return format!("an object is not {to}"),
    };
    format!("`{}` does not go into {to} without loss", shorten(&shown))
}

pub(super) fn boolean(cell: &Cell<'_>) -> Result<bool, String> {
    match cell {
        Cell::Bool(value) => Ok(*value),
        Cell::Int(0) => Ok(false),
        Cell::Int(1) => Ok(true),
        Cell::Text(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Cell::Text(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(misfit(cell, "bool")),
    }
}

pub(super) fn integer<T: TryFrom<i64>>(cell: &Cell<'_>, to: &str) -> Result<T, String> {
    let wide = match cell {
        Cell::Int(value) => Some(*value),
        #[allow(clippy::cast_possible_truncation)] // Whole and below 2^63.
        Cell::Float(value) if value.fract() == 0.0 && value.abs() < 9_223_372_036_854_775_808.0 => Some(*value as i64),
        Cell::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    wide.and_then(|wide| T::try_from(wide).ok()).ok_or_else(|| misfit(cell, to))
}

pub(super) fn float(cell: &Cell<'_>) -> Result<f64, String> {
    #[allow(clippy::cast_precision_loss)] // Rounding is meant.
    match cell {
        Cell::Int(value) => Ok(*value as f64),
        Cell::Big(value) => Ok(*value as f64),
        Cell::Float(value) => Ok(*value),
        Cell::Text(text) => match text.trim().parse::<f64>() {
            Ok(value) if value.is_infinite() && !text.to_ascii_lowercase().contains("inf") => {
                Err(misfit(cell, "float64"))
            }
            Ok(value) => Ok(value),
            Err(_) => Err(misfit(cell, "float64")),
        },
        _ => Err(misfit(cell, "float64")),
    }
}

pub(super) fn text<'c>(cell: &'c Cell<'_>) -> Result<Cow<'c, str>, String> {
    match cell {
        Cell::Text(text) => Ok(Cow::Borrowed(text)),
        Cell::Bool(value) => Ok(Cow::Owned(value.to_string())),
        Cell::Int(value) => Ok(Cow::Owned(value.to_string())),
        Cell::Big(value) => Ok(Cow::Owned(value.to_string())),
        Cell::Float(value) => Ok(Cow::Owned(value.to_string())),
        _ => Err(misfit(cell, "text")),
    }
}

pub(super) fn time(cell: &Cell<'_>, unit: Option<TimeUnit>) -> Result<i64, String> {
    let number = match cell {
        Cell::Text(text) => return parse_time(text),
        Cell::Int(value) => value.to_string(),
        Cell::Big(value) => value.to_string(),
        #[cfg(feature = "protobuf")]
        Cell::Time(micros) => return Ok(*micros),
        // The shortest decimal that reads back as the same float is the one that was written.
        Cell::Float(value) => value.to_string(),
        _ => return Err(misfit(cell, "a time")),
    };
    let Some(unit) = unit else {
        return Err(format!("number `{number}` is a time only where `timestamp_unit` says what it counts"));
    };
    number_time(&number, unit)
}

pub(super) fn date(cell: &Cell<'_>) -> Result<i32, String> {
    const DAY: i64 = 86_400_000_000;
    let Cell::Text(text) = cell else { return Err(misfit(cell, "a date")) };
    let micros = parse_time(text)?;
    if micros % DAY != 0 {
        return Err(misfit(cell, "a date"));
    }
    i32::try_from(micros / DAY).map_err(|_| misfit(cell, "a date"))
}

pub(super) fn decimal(cell: &Cell<'_>, precision: u8, scale: i8) -> Result<i128, String> {
    let wrong = || misfit(cell, &format!("decimal({precision},{scale})"));
    let written = match cell {
        Cell::Text(text) => Cow::Borrowed(text.trim()),
        Cell::Int(value) => Cow::Owned(value.to_string()),
        Cell::Big(value) => Cow::Owned(value.to_string()),
        Cell::Float(value) => {
            let written = value.to_string();
            // A longer number may not have been what was written.
            if written.bytes().filter(u8::is_ascii_digit).count() > 15 {
                return Err(format!("{}; write long decimals as text", wrong()));
            }
            Cow::Owned(written)
        }
        _ => return Err(wrong()),
    };
    let (negative, digits) = match written.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, written.strip_prefix('+').unwrap_or(&written)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let places = usize::try_from(scale).map_err(|_| wrong())?;
    let digit = |b: u8| b.is_ascii_digit();
    if whole.is_empty() && fraction.is_empty()
        || !whole.bytes().chain(fraction.bytes()).all(digit)
        || fraction.bytes().skip(places).any(|b| b != b'0')
    {
        return Err(wrong());
    }
    let mut padded = whole.bytes().chain(fraction.bytes().chain(std::iter::repeat(b'0')).take(places));
    let value = padded
        .try_fold(0_i128, |sum, b| sum.checked_mul(10)?.checked_add(i128::from(b - b'0')))
        .filter(|value| 10_i128.checked_pow(u32::from(precision)).is_none_or(|bound| *value < bound))
        .ok_or_else(wrong)?;
    Ok(if negative { -value } else { value })
}

pub(super) fn binary<'c>(cell: &'c Cell<'_>) -> Result<Cow<'c, [u8]>, String> {
    match cell {
        #[cfg(feature = "protobuf")]
        Cell::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
        Cell::Text(text) => base64(text).map(Cow::Owned).ok_or_else(|| misfit(cell, "bytes (base64)")),
        _ => Err(misfit(cell, "bytes (base64)")),
    }
}

/// Standard base64, padded or not.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    let mut out = Vec::with_capacity(digits.len() * 3 / 4);
    for chunk in digits.chunks(4) {
        let mut bits = 0_u32;
        for byte in chunk {
            let digit = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(digit);
        }
        let bytes = match chunk.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return None,
        };
        bits <<= 6 * (4 - u32::try_from(chunk.len()).ok()?);
        out.extend(bits.to_be_bytes().into_iter().skip(1).take(bytes));
    }
    Some(out)
}
