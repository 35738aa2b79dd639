//! Times from text and numbers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{
    DataType, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use headwater_core::{Error, Micros, Result};

use super::{Casted, Failure, all_fail, cast_value, plain, shorten, show};

/// Reads `s`, `ms` or `us`.
///
/// # Errors
/// `Invalid`, listing them.
pub(crate) fn parse_unit(text: &str) -> Result<TimeUnit> {
    match text {
        "s" => Ok(TimeUnit::Second),
        "ms" => Ok(TimeUnit::Millisecond),
        "us" => Ok(TimeUnit::Microsecond),
        _ => Err(Error::invalid(format!("`{text}` is no timestamp unit; there are `s`, `ms` and `us`"))),
    }
}

/// Reads an RFC 3339 time: `2021-04-12T10:59:42.123456+02:00`. A blank may stand for the `T`, a time without an offset
/// is UTC, and a date alone is its midnight.
///
/// # Errors
/// What is wrong with the text, for a message.
pub(crate) fn parse_time(text: &str) -> Result<Micros, String> {
    let wrong = || format!("`{}` is not a time (RFC 3339)", shorten(text));
    let bytes = text.trim_ascii().as_bytes();
    let (date, rest) = bytes.split_at_checked(10).ok_or_else(wrong)?;
    let [y1, y2, y3, y4, b'-', mo1, mo2, b'-', d1, d2] = date else { return Err(wrong()) };
    let year = digits(&[*y1, *y2, *y3, *y4]).ok_or_else(wrong)?;
    let month = digits(&[*mo1, *mo2]).ok_or_else(wrong)?;
    let day = digits(&[*d1, *d2]).ok_or_else(wrong)?;
    let days = days_from_civil(year, month, day).ok_or_else(wrong)?;
    if rest.is_empty() {
        return Ok(days * 86_400_000_000);
    }
    let (clock, rest) = rest.split_at_checked(9).ok_or_else(wrong)?;
    let [b'T' | b't' | b' ', h1, h2, b':', mi1, mi2, b':', s1, s2] = clock else { return Err(wrong()) };
    let hour = digits(&[*h1, *h2]).filter(|h| *h < 24).ok_or_else(wrong)?;
    let minute = digits(&[*mi1, *mi2]).filter(|m| *m < 60).ok_or_else(wrong)?;
    let second = digits(&[*s1, *s2]).filter(|s| *s < 60).ok_or_else(wrong)?;
    let (micros, rest) = match rest.strip_prefix(b".") {
        None => (0, rest),
        Some(rest) => {
            let length = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            let (fraction, rest) = rest.split_at(length);
            if fraction.is_empty() {
                return Err(wrong());
            }
            if fraction.iter().skip(6).any(|digit| *digit != b'0') {
                return Err(format!("`{}` is finer than a microsecond", shorten(text)));
            }
            let padded = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(6);
            (padded.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')), rest)
        }
    };
    let offset = match rest.trim_ascii_start() {
        [] | [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, minutes @ ..] => {
            let hours = digits(&[*h1, *h2]).filter(|h| *h < 24).ok_or_else(wrong)?;
            let minutes = match minutes {
                [] => 0,
                [m1, m2] | [b':', m1, m2] => digits(&[*m1, *m2]).filter(|m| *m < 60).ok_or_else(wrong)?,
                _ => return Err(wrong()),
            };
            let minutes = hours * 60 + minutes;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return Err(wrong()),
    };
    let seconds = days * 86_400 + hour * 3_600 + (minute - offset) * 60 + second;
    Ok(seconds * 1_000_000 + micros)
}

/// Reads a decimal number of `unit`s since the epoch, exactly.
///
/// # Errors
/// What is wrong with the number, for a message.
pub(crate) fn number_time(text: &str, unit: TimeUnit) -> Result<Micros, String> {
    let wrong = || format!("`{}` is not a time", shorten(text));
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let places = match unit {
        TimeUnit::Second => 6,
        TimeUnit::Millisecond => 3,
        _ => 0,
    };
    if fraction.bytes().skip(places).any(|digit| digit != b'0') {
        return Err(format!("`{}` is finer than a microsecond", shorten(text)));
    }
    let mut padded = whole.bytes().chain(fraction.bytes().chain(std::iter::repeat(b'0')).take(places));
    let micros = padded
        .try_fold(0_i64, |sum, digit| sum.checked_mul(10)?.checked_add(i64::from(digit - b'0')))
        .ok_or_else(|| format!("`{}` lies beyond all times", shorten(text)))?;
    Ok(if negative { -micros } else { micros })
}

/// Casts a column to microseconds, of the time zone (always UTC) that `to` names. Arrow keeps every zoned time as an
/// instant in UTC, and a time without zone is UTC here, so that the zone of the input never matters.
pub(super) fn to_micros(array: &ArrayRef, to: &DataType, unit: Option<TimeUnit>) -> Result<Casted> {
    let DataType::Timestamp(_, zone) = to else { return Err(Error::unexpected(format!("`{to}` is not a time"))) };
    let mut failures = Vec::new();
    let mut failed = |row: usize, reason: String| {
        failures.push(Failure { row, reason });
        None
    };
    let overflow = |row: usize| format!("`{}` lies beyond all times", show(array, row));
    let micros: TimestampMicrosecondArray = match array.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => array.as_primitive::<TimestampMicrosecondType>().clone(),
        DataType::Timestamp(TimeUnit::Second, _) => {
            let times = array.as_primitive::<TimestampSecondType>().iter().enumerate();
            times.map(|(i, t)| t.and_then(|t| t.checked_mul(1_000_000).or_else(|| failed(i, overflow(i))))).collect()
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            let times = array.as_primitive::<TimestampMillisecondType>().iter().enumerate();
            times.map(|(i, t)| t.and_then(|t| t.checked_mul(1_000).or_else(|| failed(i, overflow(i))))).collect()
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            let times = array.as_primitive::<TimestampNanosecondType>().iter().enumerate();
            let fine = |i| format!("`{}` is finer than a microsecond", show(array, i));
            times
                .map(|(i, t)| match t? {
                    t if t % 1_000 == 0 => Some(t / 1_000),
                    _ => failed(i, fine(i)),
                })
                .collect()
        }
        DataType::Date32 | DataType::Date64 => {
            return to_micros(&plain(array, &DataType::Timestamp(TimeUnit::Millisecond, None))?, to, unit);
        }
        DataType::Utf8 => {
            let texts = array.as_string::<i32>().iter().enumerate();
            texts.map(|(i, text)| parse_time(text?).or_else(|e| failed(i, e).ok_or(())).ok()).collect()
        }
        from if from.is_numeric() => {
            let Some(unit) = unit else {
                return Ok(all_fail(array, to, "a number is a time only where `timestamp_unit` says what it counts"));
            };
            let factor = match unit {
                TimeUnit::Second => 1_000_000,
                TimeUnit::Millisecond => 1_000,
                _ => 1,
            };
            if from.is_integer() {
                let casted = cast_value(array, &DataType::Int64)?;
                for failure in casted.failures {
                    failed(failure.row, failure.reason);
                }
                let numbers = casted.array.as_primitive::<Int64Type>().iter().enumerate();
                numbers.map(|(i, n)| n.and_then(|n| n.checked_mul(factor).or_else(|| failed(i, overflow(i))))).collect()
            } else {
                // The shortest decimal that reads back as the same float is the one that was meant.
                let texts = match from {
                    DataType::Float16 | DataType::Float32 | DataType::Float64 => {
                        let floats = plain(array, &DataType::Float64)?;
                        let floats = floats.as_primitive::<arrow::datatypes::Float64Type>();
                        floats.iter().map(|x| x.map(|x| x.to_string())).collect::<Vec<_>>()
                    }
                    _ => {
                        plain(array, &DataType::Utf8)?.as_string::<i32>().iter().map(|t| t.map(str::to_owned)).collect()
                    }
                };
                let texts = texts.iter().enumerate();
                texts
                    .map(|(i, text)| number_time(text.as_deref()?, unit).or_else(|e| failed(i, e).ok_or(())).ok())
                    .collect()
            }
        }
        from => return Ok(all_fail(array, to, &format!("a value of type {from} cannot become a time"))),
    };
    failures.sort_by_key(|failure| failure.row);
    Ok(retype(Casted { array: Arc::new(micros), failures }, zone.as_ref()))
}

fn retype(casted: Casted, zone: Option<&Arc<str>>) -> Casted {
    let micros = casted.array.as_primitive::<TimestampMicrosecondType>().clone();
    Casted { array: Arc::new(micros.with_timezone_opt(zone.cloned())), failures: casted.failures }
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

/// Days since 1970-01-01 in the Gregorian calendar; `None` where there is no such day.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Years that begin in March have their leap day at the end.
    let shifted = if month > 2 { year } else { year - 1 };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(
        shifted * 365 + shifted.div_euclid(4) - shifted.div_euclid(100) + shifted.div_euclid(400) + day_of_year
            - 719_468,
    )
}
