//! `grpc-timeout`: at most eight digits and a unit.
use http::{HeaderMap, HeaderName, HeaderValue};
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Reason, Result};
use std::time::{Duration, Instant};

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The instant after which nobody waits any more; `None` without the header, or beyond what the clock can tell.
///
/// # Errors
/// `MALFORMED`.
pub(crate) fn deadline(headers: &HeaderMap, received: Instant) -> Result<Option<Instant>> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let timeout = decode(value.as_bytes()).ok_or_else(|| {
        let got = excerpt(&String::from_utf8_lossy(value.as_bytes()));
        let message = format!("header 'grpc-timeout': expected up to 8 digits and one of H M S m u n, got '{got}'");
        NnrpError::new(Reason::Malformed, message).with("got", got)
    })?;
    Ok(received.checked_add(timeout))
}

fn decode(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(count * 3_600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// Says in the headers how long the answer is awaited: in the finest unit that fits, rounded up.
pub(crate) fn insert(headers: &mut HeaderMap, timeout: Duration) {
    let nanos = timeout.as_nanos();
    let units = [(1, 'n'), (1_000, 'u'), (1_000_000, 'm'), (1_000_000_000, 'S'), (60_000_000_000, 'M')];
    let fitting = units.into_iter().map(|(size, unit)| (nanos.div_ceil(size), unit)).find(|(count, _)| *count < 100_000_000);
    if let Some((count, unit)) = fitting
        && let Ok(value) = HeaderValue::from_str(&format!("{count}{unit}"))
    {
        headers.insert(TIMEOUT, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_digits_and_a_unit_is_refused() {
        for value in ["", "5", "m", "123456789n", "-1m", "1.5S", "1s", " 1m"] {
            assert_eq!(decode(value.as_bytes()), None, "{value}");
        }
        assert_eq!(decode(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
    }

    proptest! {
        #[test]
        fn a_timeout_survives_the_header_but_for_rounding_up(nanos in 0u64..u64::MAX / 4) {
            let timeout = Duration::from_nanos(nanos);
            let mut headers = HeaderMap::new();
            insert(&mut headers, timeout);
            let read = decode(headers[TIMEOUT].as_bytes()).unwrap();
            prop_assert!(read >= timeout && read.as_nanos() - timeout.as_nanos() <= timeout.as_nanos() / 90_000);
        }
    }
}
