//! Numbers as people read them.

use models::Interval;

/// A share in per cent, with one decimal.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// The same; a dash where it is undefined.
pub fn optional_percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), percent)
}

/// A share in per cent with the bounds of its interval; a dash where it is undefined.
pub fn with_interval(share: Option<f64>, interval: Option<Interval>) -> String {
    match interval {
        Some(Interval { low, high }) => {
            format!("{} ({:.1}–{:.1})", optional_percent(share), 100.0 * low, 100.0 * high)
        }
        None => optional_percent(share),
    }
}

/// A p-value with as many digits as anyone needs.
pub fn p_value(value: f64) -> String {
    if value < 1e-4 { format!("{value:.0e}") } else { format!("{value:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_comes_with_its_bounds() {
        assert_eq!(with_interval(Some(0.75), Interval::wilson(3, 4)), "75.0 % (30.1–95.4)");
        assert_eq!((with_interval(Some(0.5), None).as_str(), with_interval(None, None).as_str()), ("50.0 %", "–"));
        assert_eq!([0.03125, 1.0, 3.2e-7].map(p_value), ["0.0312", "1.0000", "3e-7"]);
    }
}
