//! Sums that do not depend on the order of their terms: two floats for one number, about 106 bits.

use std::ops::{Add, Mul, Sub};

/// A number as the unevaluated sum of two floats, `lo` at most half a unit in the last place of `hi`.
///
/// A sum of floats in ordinary arithmetic depends on the order of its terms, the more the more they cancel. Here
/// nothing that a `float64` can show is lost until terms cancel thirty digits deep. What is infinite or NaN behaves
/// as in ordinary arithmetic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Double {
    pub(super) hi: f64,
    pub(super) lo: f64,
}

impl Double {
    /// `hi + lo` where `hi` is much the greater.
    fn renormalised(hi: f64, lo: f64) -> Self {
        let sum = hi + lo;
        if sum.is_finite() { Self { hi: sum, lo: lo - (sum - hi) } } else { Self { hi: sum, lo: 0.0 } }
    }

    /// The exact sum of two floats.
    fn sum(a: f64, b: f64) -> Self {
        let sum = a + b;
        if !sum.is_finite() {
            return Self { hi: sum, lo: 0.0 };
        }
        let part = sum - a;
        Self { hi: sum, lo: (a - (sum - part)) + (b - part) }
    }

    /// The quotient by a float that is not zero.
    pub(super) fn divided_by(self, divisor: f64) -> Self {
        let first = self.hi / divisor;
        if !first.is_finite() {
            return first.into();
        }
        let rest = self - Self::from(divisor) * Self::from(first);
        Self::renormalised(first, rest.hi / divisor)
    }
}

impl From<f64> for Double {
    fn from(value: f64) -> Self {
        Self { hi: value, lo: 0.0 }
    }
}

impl From<i128> for Double {
    #[allow(clippy::cast_possible_truncation)] // Integers of 128 bits are within a float's range; what is rounded off is in `lo`.
    fn from(value: i128) -> Self {
        let hi = value as f64;
        Self { hi, lo: value.wrapping_sub(hi as i128) as f64 }
    }
}

impl Add for Double {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let high = Self::sum(self.hi, other.hi);
        let low = Self::sum(self.lo, other.lo);
        let both = Self::renormalised(high.hi, high.lo + low.hi);
        Self::renormalised(both.hi, both.lo + low.lo)
    }
}

impl Sub for Double {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + Self { hi: -other.hi, lo: -other.lo }
    }
}

impl Mul for Double {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        let product = self.hi * other.hi;
        if !product.is_finite() {
            return product.into();
        }
        let rest = self.hi.mul_add(other.hi, -product);
        Self::renormalised(product, rest + (self.hi * other.lo + self.lo * other.hi))
    }
}
