//! Numbers as JSON writes them, compared by exact value.
//!
//! A 64-bit float cannot tell 9007199254740993 from 9007199254740992, so a rule on an account number would let the
//! neighbour in. Here a number keeps its decimal digits.

use crate::limits;

/// A JSON number (RFC 8259, section 6): the text as written and its one canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number {
    text: String,
    canonical: String,
}

impl Number {
    /// Reads a number that is already known to follow the JSON grammar. `None`: longer than
    /// [`limits::NUMBER_BYTES`], an exponent beyond [`limits::NUMBER_EXPONENT`], or not of that grammar after all.
    pub(crate) fn parse(text: &str) -> Option<Number> {
        if text.len() > limits::NUMBER_BYTES {
            return None;
        }
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (unsigned, 0),
        };
        if exponent.checked_abs()? > limits::NUMBER_EXPONENT {
            return None;
        }
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        if whole.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let significant = digits.trim_start_matches('0');
        let trimmed = significant.trim_end_matches('0');
        let dropped = i64::try_from(significant.len().checked_sub(trimmed.len())?).ok()?;
        let scale = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(dropped)?;
        let canonical = match (trimmed.is_empty(), negative) {
            (true, _) => "0e0".to_owned(),
            (false, true) => format!("-{trimmed}e{scale}"),
            (false, false) => format!("{trimmed}e{scale}"),
        };
        Some(Number { text: text.to_owned(), canonical })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Digits without leading or trailing zeros, `e`, a power of ten: equal for equal values (`1`, `1.0`, `10e-1`).
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// The number of seconds as whole microseconds, what is finer cut off. `None`: negative, or above 38 digits.
    pub(crate) fn micros(&self) -> Option<i64> {
        let (digits, scale) = self.canonical.split_once('e')?;
        let scale = scale.parse::<i64>().ok()?.checked_add(6)?;
        let power = u32::try_from(scale.unsigned_abs()).ok()?;
        let micros = if scale >= 0 {
            digits.parse::<u128>().ok()?.checked_mul(10_u128.checked_pow(power)?)?
        } else {
            let kept = digits.len().saturating_sub(usize::try_from(power).ok()?);
            match digits.get(..kept)? {
                "" => 0,
                "-" => return None,
                whole => whole.parse::<u128>().ok()?,
            }
        };
        i64::try_from(micros).ok()
    }
}
