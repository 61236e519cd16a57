//! What the protocol itself means by a request's parameters, the same in every form (spec §4.2).
use crate::error::{NnrpError, Reason, Result, excerpt};
use crate::message::{Parameter, Parameters, Request};
use serde_json::{Map, Value};
use std::time::{Duration, Instant};

impl Request<'_, '_> {
    /// Takes the protocol's own parameters out: `timeout`, in µs, becomes the deadline unless there is an earlier one; what is left is the
    /// model's. `now` stands in for a time of arrival that the form does not tell.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a reserved name or a wrong value, `NOT_OFFERED` for sequences and priorities.
    pub fn settle(&mut self, now: Instant) -> Result<()> {
        let mut rest = Parameters::new();
        for (name, value) in std::mem::take(&mut self.parameters) {
            match &*name {
                "timeout" => {
                    let own = timeout(&value)?.and_then(|timeout| self.received.unwrap_or(now).checked_add(timeout));
                    self.deadline = [self.deadline, own].into_iter().flatten().min();
                }
                "triton_enable_empty_final_response" => must_be_bool("request", &name, &value)?,
                "sequence_id" | "sequence_start" | "sequence_end" | "priority" if is_nothing(&value) => {}
                "sequence_id" | "sequence_start" | "sequence_end" | "priority" => return Err(not_offered("request", &name)),
                "headers" => return Err(reserved(&name)),
                _ if name.starts_with("triton_") => return Err(reserved(&name)),
                _ => rest.push((name, value)),
            }
        }
        self.parameters = rest;
        Ok(())
    }
}

/// Parameters as one JSON object.
pub fn to_json(parameters: &[(String, Parameter)]) -> Value {
    let value = |value: &Parameter| match value {
        Parameter::Bool(value) => Value::from(*value),
        Parameter::Int(value) => Value::from(*value),
        Parameter::Uint(value) => Value::from(*value),
        Parameter::Double(value) => Value::from(*value),
        Parameter::String(value) => Value::from(value.as_str()),
    };
    parameters.iter().map(|(name, given)| (name.clone(), value(given))).collect::<Map<_, _>>().into()
}

fn timeout(value: &Parameter) -> Result<Option<Duration>> {
    let micros = match value {
        Parameter::Int(micros) => u64::try_from(*micros).ok(),
        Parameter::Uint(micros) => Some(*micros),
        Parameter::String(text) => text.parse().ok(),
        Parameter::Bool(_) | Parameter::Double(_) => None,
    };
    let micros = micros.ok_or_else(|| invalid("request", "timeout", "microseconds, a whole number", value))?;
    Ok((micros > 0).then(|| Duration::from_micros(micros)))
}

fn is_nothing(value: &Parameter) -> bool {
    match value {
        Parameter::Bool(value) => !value,
        Parameter::Int(value) => *value == 0,
        Parameter::Uint(value) => *value == 0,
        Parameter::String(value) => value.is_empty(),
        Parameter::Double(_) => false,
    }
}

/// Checks a parameter that is a flag; `place` is `request` or `input 'x'`.
///
/// # Errors
/// `INVALID_PARAMETER`.
pub fn must_be_bool(place: &str, name: &str, value: &Parameter) -> Result<()> {
    if matches!(value, Parameter::Bool(_)) { Ok(()) } else { Err(invalid(place, name, "true or false", value)) }
}

/// The error of a parameter that belongs to an extension which is not there.
#[cold]
pub fn not_offered(place: &str, name: &str) -> NnrpError {
    NnrpError::new(Reason::NotOffered, format!("{place}: this server does not offer '{name}'")).with("parameter", name)
}

#[cold]
fn invalid(place: &str, name: &str, expected: &str, value: &Parameter) -> NnrpError {
    let got = match value {
        Parameter::Bool(value) => value.to_string(),
        Parameter::Int(value) => value.to_string(),
        Parameter::Uint(value) => value.to_string(),
        Parameter::Double(value) => value.to_string(),
        Parameter::String(value) => format!("'{}'", excerpt(value)),
    };
    let message = format!("{place}: parameter '{name}': expected {expected}, got {got}");
    NnrpError::new(Reason::InvalidParameter, message).with("parameter", name).with("got", got)
}

#[cold]
fn reserved(name: &str) -> NnrpError {
    let name = excerpt(name);
    NnrpError::new(Reason::InvalidParameter, format!("request: parameter '{name}' is reserved")).with("parameter", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, value: Parameter) -> Result<Request<'static, 'static>> {
        let mut request = Request { parameters: vec![(name.to_owned(), value)], ..Request::default() };
        request.settle(Instant::now()).map(|()| request)
    }

    #[test]
    fn a_timeout_counts_from_the_arrival_and_leaves_the_parameters() {
        let (now, millis) = (Instant::now(), Duration::from_millis);
        let parameters = || vec![("timeout".to_owned(), Parameter::Int(1_500)), ("beam".to_owned(), Parameter::Int(4))];
        let mut here = Request { parameters: parameters(), ..Request::default() };
        here.settle(now).unwrap();
        assert_eq!(here.parameters, [("beam".to_owned(), Parameter::Int(4))]);
        assert_eq!(here.deadline, Some(now + Duration::from_micros(1_500)));
        let mut received = Request { parameters: parameters(), received: Some(now), ..Request::default() };
        received.settle(now + millis(1)).unwrap();
        assert_eq!(received.deadline, here.deadline);
    }

    #[test]
    fn of_two_deadlines_the_earlier_counts() {
        let (now, millis) = (Instant::now(), Duration::from_millis);
        for (own, expected) in [(1, 1), (9, 5)] {
            let parameters = vec![("timeout".to_owned(), Parameter::String(format!("{own}000")))];
            let mut request = Request { parameters, deadline: Some(now + millis(5)), ..Request::default() };
            request.settle(now).unwrap();
            assert_eq!(request.deadline, Some(now + millis(expected)));
        }
    }

    #[test]
    fn a_timeout_of_zero_or_beyond_the_clock_is_none() {
        assert_eq!(of("timeout", Parameter::Int(0)).unwrap().deadline, None);
        assert!(of("timeout", Parameter::Uint(u64::MAX)).is_ok());
    }

    #[test]
    fn wrong_values_and_reserved_names_are_named() {
        for (name, value) in [
            ("timeout", Parameter::Int(-1)),
            ("timeout", Parameter::Double(1.5)),
            ("timeout", Parameter::String("soon".to_owned())),
            ("headers", Parameter::Bool(true)),
            ("triton_final_response", Parameter::Bool(true)),
            ("triton_enable_empty_final_response", Parameter::Int(1)),
        ] {
            let error = of(name, value).err().unwrap();
            assert!(error.is(Reason::InvalidParameter), "{error:?}");
            assert_eq!(error.details()["parameter"], name);
        }
    }

    #[test]
    fn what_is_not_offered_is_refused_unless_it_asks_for_nothing() {
        assert!(of("sequence_id", Parameter::Int(7)).err().unwrap().is(Reason::NotOffered));
        assert!(of("sequence_id", Parameter::Int(0)).unwrap().parameters.is_empty());
        assert!(of("priority", Parameter::Uint(1)).err().unwrap().is(Reason::NotOffered));
    }
}
