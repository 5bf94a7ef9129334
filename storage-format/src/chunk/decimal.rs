//! Floats as integers over a power of ten.
//!
//! Most metrics are decimals that were printed and parsed again: counts, bytes, seconds to the
//! millisecond. Such a float is exactly `i / 10^d` under IEEE division, so storing i and dividing
//! again gives the same bits. (Multiplying by `10^-d` would not.)

use crate::sample::is_stale;

/// The powers of ten that a float holds exactly and a chunk head has room for.
const POWERS: [f64; 16] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// The greatest number of digits after the point.
pub(super) const DIGITS_MAX: u8 = 15;

/// Integers from here on are not all floats.
const INT_LIMIT: i64 = 1 << 53;

/// Of eight values, so many may be exceptions.
const EXCEPTION_SHARE: usize = 8;

/// `10^digits`.
///
/// # Panics
/// If `digits` exceeds [`DIGITS_MAX`].
pub(super) fn power(digits: u8) -> f64 {
    POWERS[usize::from(digits)]
}

/// The integer next to `value * power`; 0 for NaN, saturated for what is too great.
pub(super) fn nearest(value: f64, power: f64) -> i64 {
    let scaled = value * power;
    let whole = scaled as i64;
    // Exact, as both are close together; `f64::round` would be a call on plain x86-64.
    let fraction = scaled - whole as f64;
    whole.wrapping_add(i64::from(fraction >= 0.5)).wrapping_sub(i64::from(fraction <= -0.5))
}

/// The integer whose division by `power` gives `value` bit by bit.
pub(super) fn exact(value: f64, power: f64) -> Option<i64> {
    let i = nearest(value, power);
    let is_exact = -INT_LIMIT < i && i < INT_LIMIT && (i as f64 / power).to_bits() == value.to_bits();
    is_exact.then_some(i)
}

/// The fewest digits with which `value` is exact, and its integer.
pub(super) fn of_one(value: f64) -> Option<(u8, i64)> {
    (0..=DIGITS_MAX).find_map(|digits| Some((digits, exact(value, power(digits))?)))
}

/// The fewest digits with which every value is exact, with all integers; `None` too if one of them
/// reaches 2^51. Unlike [`exact`] on each, this is done on several values at once.
pub(super) fn of_all(values: &[f64]) -> Option<(u8, Vec<i64>)> {
    let mut ints = Vec::with_capacity(values.len());
    (0..=DIGITS_MAX).find(|&digits| all_exact(values, power(digits), &mut ints)).map(|digits| (digits, ints))
}

/// Fills `ints` with the integers over `power`, and tells whether they are exact.
fn all_exact(values: &[f64], power: f64, ints: &mut Vec<i64>) -> bool {
    const LIMIT: i64 = 1 << 51;
    /// Added to a float below [`LIMIT`], it rounds it, and the sum's low bits are the integer.
    const ROUND: f64 = (3 * LIMIT) as f64;
    ints.clear();
    values.chunks(64).all(|some| {
        let (mut differing, mut outside) = (0, 0);
        ints.extend(some.iter().map(|&value| {
            let sum = value * power + ROUND;
            let int = (sum.to_bits() as i64).wrapping_sub(ROUND.to_bits() as i64);
            // Halves are rounded otherwise than `nearest` does, but none of them is exact.
            differing |= ((sum - ROUND) / power).to_bits() ^ value.to_bits();
            // What is too great, or no number, changes the exponent of the sum.
            outside |= (int.wrapping_add(LIMIT) as u64) >> 52;
            int
        }));
        differing | outside == 0
    })
}

/// The number of digits with the fewest exceptions, if at most one value in eight is one. Stale
/// markers do not count: they take one byte.
pub(super) fn digits_of_most(values: &[f64]) -> Option<u8> {
    let mut best = None;
    let mut fewest = (values.len() / EXCEPTION_SHARE).max(1) + 1;
    // No number of digits helps these.
    let hopeless = values
        .iter()
        .filter(|v| !is_stale(**v) && (!v.is_finite() || v.to_bits() == (-0.0f64).to_bits()))
        .count();
    for digits in 0..=DIGITS_MAX {
        if hopeless >= fewest {
            break;
        }
        let power = power(digits);
        let mut exceptions = 0;
        for &value in values {
            if exact(value, power).is_none() && !is_stale(value) {
                exceptions += 1;
                if exceptions >= fewest {
                    break;
                }
            }
        }
        if exceptions < fewest {
            (best, fewest) = (Some(digits), exceptions);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_with_as_many_digits_as_they_are_written_with() {
        let cases = [
            (0.0, Some((0, 0))),
            (-17.0, Some((0, -17))),
            (0.1, Some((1, 1))),
            (1.005, Some((3, 1005))),
            (9_007_199_254_740_991.0, Some((0, 9_007_199_254_740_991))),
            (9_007_199_254_740_992.0, None),
            (-0.0, None),
            (f64::NAN, None),
            (f64::INFINITY, None),
            (std::f64::consts::PI / 1e3, None),
        ];
        for (value, expected) in cases {
            assert_eq!(of_one(value), expected, "{value}");
        }
    }

    #[test]
    fn all_at_once_are_what_each_is() {
        let specials = [0.5, -0.5, 1.5, 2.5e-3, 4503599627370495.5, -0.0, f64::NAN, -f64::NAN, 1e300, -1e300];
        let limits = [51, 52, 53].map(|bits| (1i64 << bits) as f64);
        let limits = limits.into_iter().flat_map(|v| [v - 1.0, v, v + 1.0, -v - 1.0, -v, 1.0 - v]);
        let infinite = [f64::INFINITY, f64::NEG_INFINITY, crate::STALE_NAN, std::f64::consts::PI];
        let decimals =
            (0..16).flat_map(|digits| [0, 7, -17, 1005, 123_456_789].map(|i| i as f64 / power(digits)));
        for value in specials.into_iter().chain(limits).chain(infinite).chain(decimals) {
            let expected = of_one(value).filter(|(_, i)| (-1 << 51..1 << 51).contains(i));
            assert_eq!(of_all(&[value]), expected.map(|(digits, i)| (digits, vec![i])), "{value}");
        }
        assert_eq!(of_all(&[1.0, 2.25, -3.5]), Some((2, vec![100, 225, -350])));
    }

    #[test]
    fn few_exceptions_win_over_few_digits() {
        let values: Vec<f64> = (0..100).map(|i| f64::from(i) + if i % 10 == 0 { 0.5 } else { 0.0 }).collect();
        assert_eq!(digits_of_most(&values), Some(1));
        assert_eq!(digits_of_most(&[1.0, f64::NAN, f64::NAN]), None);
        assert_eq!(digits_of_most(&[1.0, crate::STALE_NAN, crate::STALE_NAN]), Some(0));
    }
}
