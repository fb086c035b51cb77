//! Converts decimal numbers to floats without loss.

/// Returns the float whose shortest form is this number. Returns `None` if there is none: the
/// number would be read back as another one.
pub fn float(text: &str) -> Option<f64> {
    let float: f64 = text.parse().ok()?;
    (parts(text)? == parts(&format!("{float:e}"))?).then_some(float)
}

/// Returns the sign, the digits without leading and trailing zeros, and the power of ten of the
/// last digit: 1200 is (+, 12, 2). Zero has no digits; its sign and power have no meaning.
fn parts(text: &str) -> Option<(bool, String, i64)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    if !all.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = all.trim_end_matches('0');
    let zeros = i64::try_from(all.len() - digits.len()).ok()?;
    let power = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(zeros)?;
    let digits = digits.trim_start_matches('0').to_owned();
    if digits.is_empty() {
        return Some((false, digits, 0));
    }
    Some((negative, digits, power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_a_float_holds() {
        for (text, value) in [
            ("0", 0.0),
            ("0.00", 0.0),
            ("-0.0", 0.0),
            ("1.50", 1.5),
            ("0.1", 0.1),
            ("-12.5e-3", -0.0125),
            ("100000000000000000000", 1e20),
            ("1E+20", 1e20),
            ("123456789.123456", 123456789.123456),
        ] {
            assert_eq!(float(text), Some(value), "{text}");
        }
    }

    #[test]
    fn numbers_that_it_does_not() {
        for text in [
            "0.12345678901234567890",
            "9007199254740993",
            "1e400",
            "-1e400",
            "1e-400",
            "NaN",
            "Infinity",
            "",
            "x",
            "100000000000000000001",
        ] {
            assert_eq!(float(text), None, "{text}");
        }
    }
}
