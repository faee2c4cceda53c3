//! How timers and limits grow with the size of the cluster.
//!
//! Implements gossip-protocol.md §5 (suspicion scale), §9 (retransmit limit) and §11 (push/pull
//! period) in integers: floating-point logarithms differ in their last bit between platforms.

/// Fraction bits of the fixed-point mantissas below.
const FRACTION_BITS: u32 = 60;
/// Ten in that form.
const TEN: u128 = 10 << FRACTION_BITS;
/// Decimal digits of [`log10_nano`].
const DIGITS: u32 = 9;

/// Clusters up to this size exchange state at the plain interval.
const PUSH_PULL_PLAIN_LOG2: u32 = 5;

/// A number of the form `mantissa · 10^exponent` with the mantissa in `[1, 10)`.
#[derive(Clone, Copy)]
struct Scientific {
    mantissa: u128,
    exponent: u64,
}

impl Scientific {
    fn times(self, other: Self) -> Self {
        let mantissa = (self.mantissa * other.mantissa) >> FRACTION_BITS;
        let exponent = self.exponent + other.exponent;
        if mantissa >= TEN {
            Self { mantissa: mantissa / 10, exponent: exponent + 1 }
        } else {
            Self { mantissa, exponent }
        }
    }
}

/// `floor(10^9 · log10(n))`, 0 for `n` below 2; exact at powers of ten.
///
/// Raising the mantissa to its tenth power moves one decimal digit of its logarithm in front of
/// the point: log10(m^10) = 10 · log10(m).
pub(super) fn log10_nano(n: u64) -> u64 {
    if n < 2 {
        return 0;
    }
    let whole = n.ilog10();
    let mut mantissa = (u128::from(n) << FRACTION_BITS) / 10u128.pow(whole);
    let mut result = u64::from(whole);
    for _ in 0..DIGITS {
        let x = Scientific { mantissa, exponent: 0 };
        let x2 = x.times(x);
        let x5 = x2.times(x2).times(x);
        let x10 = x5.times(x5);
        result = result * 10 + x10.exponent;
        mantissa = x10.mantissa;
    }
    result
}

/// `max(1, log10(n))` in thousandths, truncated: the factor by which suspicion lasts longer in a
/// cluster of `n` members.
pub(super) fn suspicion_scale_milli(n: usize) -> u64 {
    (log10_nano(n as u64) / 1_000_000).max(1000)
}

/// How often a broadcast is sent in a cluster of `n` members: `mult · ceil(log10(n + 1))`.
pub(super) fn retransmit_limit(mult: u32, n: usize) -> u32 {
    let n = n as u64;
    // ceil(log10(n + 1)) is the number of decimal digits of n.
    let digits = if n == 0 { 0 } else { n.ilog10() + 1 };
    mult.saturating_mul(digits)
}

/// By how much the push/pull interval is stretched in a cluster of `n` members.
pub(super) fn push_pull_scale(n: usize) -> u32 {
    let ceil_log2 = usize::BITS - n.saturating_sub(1).leading_zeros();
    ceil_log2.saturating_sub(PUSH_PULL_PLAIN_LOG2) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_exact_at_powers_of_ten_and_close_elsewhere() {
        assert_eq!(log10_nano(1), 0);
        assert_eq!(log10_nano(10), 1_000_000_000);
        assert_eq!(log10_nano(1_000_000), 6_000_000_000);
        assert_eq!(log10_nano(2), 301_029_995);
        assert_eq!(log10_nano(3), 477_121_254);
        assert_eq!(log10_nano(u64::MAX) / 1_000_000, 19_265);
    }

    #[test]
    fn scales_agree_with_the_recorded_tables() {
        let vectors = super::super::tests::timers();
        for row in vectors["retransmit_limit"].as_array().unwrap() {
            let mult = u32::try_from(row["mult"].as_u64().unwrap()).unwrap();
            let n = usize::try_from(row["n"].as_u64().unwrap()).unwrap();
            assert_eq!(u64::from(retransmit_limit(mult, n)), row["limit"].as_u64().unwrap());
        }
        for row in vectors["push_pull_scale"].as_array().unwrap() {
            let n = usize::try_from(row["n"].as_u64().unwrap()).unwrap();
            assert_eq!(u64::from(push_pull_scale(n)), row["multiplier"].as_u64().unwrap());
        }
    }
}
