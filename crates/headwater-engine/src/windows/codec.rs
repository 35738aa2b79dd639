//! Bytes of state rows: the small parts.

use headwater_core::{Error, Result};

/// Appends a number in groups of seven bits, the lowest first.
pub(super) fn push_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Appends a length.
pub(super) fn push_length(out: &mut Vec<u8>, length: usize) {
    push_number(out, u64::try_from(length).unwrap_or(u64::MAX));
}

/// Appends a number that may be negative, short where it is near zero.
pub(super) fn push_signed(out: &mut Vec<u8>, number: i64) {
    push_number(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

/// Appends the sum of integers: its lower half, then its upper half, which mostly only repeats the sign.
pub(super) fn push_sum(out: &mut Vec<u8>, sum: [u64; 2]) {
    let [low, high] = sum.map(u64::cast_signed);
    push_signed(out, low);
    push_signed(out, high.wrapping_sub(low >> 63));
}

/// Appends a float's bytes from the highest on, without the zeros at its end: what was a short decimal, an integer or
/// a `float32` is short here too.
pub(super) fn push_float(out: &mut Vec<u8>, float: f64) {
    let bits = float.to_bits();
    let zeros = bits.trailing_zeros() / 8;
    let bytes = bits.to_be_bytes();
    let kept = 8 - usize::try_from(zeros).unwrap_or(0);
    out.push(bytes.len().min(kept).to_le_bytes()[0]);
    out.extend_from_slice(bytes.get(..kept).unwrap_or_default());
}

/// Appends bytes after their length.
pub(super) fn push_delimited(out: &mut Vec<u8>, bytes: &[u8]) {
    push_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// What there is to say of bytes that no state row has.
pub(super) fn damaged() -> Error {
    Error::corrupt("a stored window row is damaged")
}

/// The rest of a state row.
#[derive(Debug)]
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count).ok_or_else(damaged)?;
        self.0 = tail;
        Ok(head)
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        let (first, rest) = self.0.split_first().ok_or_else(damaged)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn number(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(damaged());
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(damaged())
    }

    pub(super) fn signed(&mut self) -> Result<i64> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    pub(super) fn sum(&mut self) -> Result<[u64; 2]> {
        let low = self.signed()?;
        let high = self.signed()?.wrapping_add(low >> 63);
        Ok([low.cast_unsigned(), high.cast_unsigned()])
    }

    pub(super) fn float(&mut self) -> Result<f64> {
        let kept = usize::from(self.byte()?);
        let mut bytes = [0; 8];
        bytes.get_mut(..kept).ok_or_else(damaged)?.copy_from_slice(self.take(kept)?);
        Ok(f64::from_be_bytes(bytes))
    }

    /// A count of things that take at least a byte each: never more than there are bytes.
    pub(super) fn length(&mut self) -> Result<usize> {
        let length = usize::try_from(self.number()?).map_err(|_| damaged())?;
        if length > self.0.len() { Err(damaged()) } else { Ok(length) }
    }

    pub(super) fn delimited(&mut self) -> Result<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }
}
