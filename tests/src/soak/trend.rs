//! Whether a series of numbers grows.
//!
//! Promises: a few outliers change nothing; a series that only jitters has a lower
//! limit at or below zero in 95 of 100 cases. Never: an assumption about how the
//! noise is distributed, or a clock.
//!
//! The slope is the median of the slopes between all pairs (H. Theil, "A
//! rank-invariant method of linear and polynomial regression analysis", Proc. Kon.
//! Ned. Akad. Wetensch. A 53, 1950); its confidence limit the slope of that rank
//! which Kendall's statistic gives (P. K. Sen, "Estimates of the regression
//! coefficient based on Kendall's tau", J. Am. Stat. Assoc. 63, 1968).

use serde::Serialize;

/// The normal quantile of a one-sided 95 %.
const Z_95: f64 = 1.645;

/// How a series goes, by step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Trend {
    /// The median slope.
    pub slope: f64,
    /// What the slope is at least, at 95 %.
    pub slope_min: f64,
}

/// The trend of values at equal distances; none if there are fewer than two.
#[must_use]
pub fn trend(values: &[f64]) -> Option<Trend> {
    let n = values.len();
    let mut slopes = Vec::with_capacity(n * n.saturating_sub(1) / 2);
    for (i, early) in values.iter().enumerate() {
        for (j, late) in values.iter().enumerate().skip(i + 1) {
            slopes.push((late - early) / (j - i) as f64);
        }
    }
    slopes.sort_by(f64::total_cmp);
    let slope = median_of_sorted(&slopes)?;
    // Var(S) without ties; with ties it is smaller, and this limit more careful.
    let n = n as f64;
    let spread = Z_95 * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    let rank = ((slopes.len() as f64 - spread) / 2.0).floor();
    let index = (rank as usize).saturating_sub(1);
    Some(Trend {
        slope,
        slope_min: slopes[index],
    })
}

/// The median; none of nothing.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    median_of_sorted(&sorted)
}

fn median_of_sorted(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let above = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(above);
    }
    Some((sorted[middle - 1] + above) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_straight_line_has_its_slope() {
        let values: Vec<f64> = (0..10).map(|n| 5.0 + 2.0 * f64::from(n)).collect();
        let trend = trend(&values).unwrap();
        assert!((trend.slope - 2.0).abs() < 1e-9, "{trend:?}");
        assert!((trend.slope_min - 2.0).abs() < 1e-9, "{trend:?}");
    }

    #[test]
    fn outliers_do_not_bend_it() {
        let mut values: Vec<f64> = (0..20).map(f64::from).collect();
        values[3] = 9_000.0;
        values[17] = -9_000.0;
        let trend = trend(&values).unwrap();
        assert!((trend.slope - 1.0).abs() < 0.05, "{trend:?}");
    }

    #[test]
    fn the_limit_holds_in_nineteen_of_twenty_cases() {
        let mut chance = fastrand::Rng::with_seed(7);
        let (mut rising, all) = (0, 2_000);
        for _ in 0..all {
            let values: Vec<f64> = (0..12).map(|_| chance.f64()).collect();
            rising += u32::from(trend(&values).unwrap().slope_min > 0.0);
        }
        assert!(rising <= all / 20, "{rising} of {all}");
        // And it is no limit that nothing ever reaches.
        assert!(rising > all / 60, "{rising} of {all}");
    }

    #[test]
    fn nothing_and_one_value_have_no_trend() {
        assert_eq!(trend(&[]), None);
        assert_eq!(trend(&[1.0]), None);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0]), Some(2.0));
    }
}
