//! Times in tokens: NumericDate (RFC 7519, section 2) as microseconds since the Unix epoch.

use crate::json::Json;
use crate::limits;

/// The time a claim holds, cut to microseconds. `None`: not a number, not after 1970, or at or after the year 10000.
pub(crate) fn numeric_date(claim: &Json) -> Option<i64> {
    match claim {
        Json::Number(number) => number.micros().filter(|micros| (1..limits::TIME_END).contains(micros)),
        _ => None,
    }
}
