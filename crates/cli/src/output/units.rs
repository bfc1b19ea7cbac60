//! Numbers as people read them.

use std::time::Duration;

/// Writes bytes with two significant digits or more: `12 MiB`.
pub(crate) fn amount(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if value < 10.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// Writes seconds with a unit that suits them: `0.4 s`, `12 s`, `5 min`, `3 h`, `2 d`.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.1} s"),
        value if value < 120.0 => format!("{value:.0} s"),
        value if value < 7200.0 => format!("{:.0} min", value / 60.0),
        value if value < 172_800.0 => format!("{:.0} h", value / 3600.0),
        value => format!("{:.0} d", value / 86400.0),
    }
}

/// Writes how long something took.
pub(crate) fn took(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{} ms", duration.as_millis());
    }
    seconds(duration.as_secs_f64())
}

/// Writes a number of things: `1 workload`, `2 workloads`.
pub(crate) fn counted(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_suit_the_size() {
        let amounts = [0, 1023, 1024, 70 << 20, 3 << 40].map(amount);
        assert_eq!(amounts, ["0 B", "1023 B", "1.0 KiB", "70 MiB", "3.0 TiB"]);
        let times = [0.04, 12.4, 300.0, 10_800.0, 200_000.0].map(seconds);
        assert_eq!(times, ["0.0 s", "12 s", "5 min", "3 h", "2 d"]);
        assert_eq!(took(Duration::from_millis(72)), "72 ms");
    }
}
