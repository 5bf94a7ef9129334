//! Compensated sums (Kahan's method with Neumaier's improvement), step for step as Prometheus does
//! them, so that sums agree to the last bit.

/// Adds `x` to the sum `sum` with compensation `c`; gives back both.
#[inline(always)]
pub(crate) fn add(x: f64, sum: f64, c: f64) -> (f64, f64) {
    let t = sum + x;
    // The compensation is the part of the smaller summand that the sum lost.
    let lost = if sum.abs() >= x.abs() { (sum - t) + x } else { (x - t) + sum };
    (t, if t.is_infinite() { 0.0 } else { c + lost })
}

/// A compensated sum.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sum {
    /// The sum without its compensation.
    pub(crate) sum: f64,
    /// What the sum lost to rounding.
    pub(crate) compensation: f64,
}

impl Sum {
    /// The empty sum.
    pub(crate) const ZERO: Sum = Sum { sum: 0.0, compensation: 0.0 };

    /// Adds `x`.
    #[inline(always)]
    pub(crate) fn add(&mut self, x: f64) {
        (self.sum, self.compensation) = add(x, self.sum, self.compensation);
    }

    /// The sum with its compensation.
    pub(crate) fn total(&self) -> f64 {
        self.sum + self.compensation
    }
}

/// The mean of numbers in the order they come: the compensated sum divided by the count, or, from
/// where the sum would overflow, the mean carried along.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mean {
    /// The sum, or the mean once `incremental`.
    value: f64,
    compensation: f64,
    count: f64,
    incremental: bool,
}

impl Mean {
    /// No number yet.
    pub(crate) const EMPTY: Mean = Mean { value: 0.0, compensation: 0.0, count: 0.0, incremental: false };

    /// Adds `x`.
    #[inline]
    pub(crate) fn add(&mut self, x: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.value = x;
            return;
        }
        if !self.incremental {
            let (sum, compensation) = add(x, self.value, self.compensation);
            if !sum.is_infinite() {
                (self.value, self.compensation) = (sum, compensation);
                return;
            }
            self.incremental = true;
            self.value /= self.count - 1.0;
            self.compensation /= self.count - 1.0;
        }
        let q = (self.count - 1.0) / self.count;
        (self.value, self.compensation) = add(x / self.count, q * self.value, q * self.compensation);
    }

    /// The mean; NaN if there was no number.
    pub(crate) fn mean(&self) -> f64 {
        if self.incremental {
            self.value + self.compensation
        } else {
            self.value / self.count + self.compensation / self.count
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_keeps_what_plain_addition_loses() {
        let mut sum = Sum::ZERO;
        [1.0, 1e100, 1.0, -1e100].iter().for_each(|x| sum.add(*x));
        assert_eq!(sum.total(), 2.0);
    }

    #[test]
    fn a_mean_survives_an_overflowing_sum() {
        let mut mean = Mean::EMPTY;
        [1e308; 4].iter().for_each(|x| mean.add(*x));
        assert_eq!(mean.mean(), 1e308);
    }
}
