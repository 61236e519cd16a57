//! Parameters: what every form takes for itself, what is refused, and what goes on to the model (spec §4.2).
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Parameter, Parameters, Reason, Result};
use std::time::{Duration, Instant};

/// Most parameters of one message, its tensors' included.
pub(crate) const PARAMETER_LIMIT: usize = 1_024;

/// Sorts out the parameters of a request: those of the model, and the instant that `timeout`, in µs, gives.
///
/// # Errors
/// `INVALID_PARAMETER` for a reserved name or a wrong value, `NOT_OFFERED` for sequences and priorities.
pub(crate) fn request_parameters(parameters: Parameters, received: Instant) -> Result<(Parameters, Option<Instant>)> {
    let mut deadline = None;
    let mut rest = Parameters::new();
    for (name, value) in parameters {
        match &*name {
            "timeout" => deadline = timeout(&value)?.and_then(|timeout| received.checked_add(timeout)),
            "binary_data_output" | "triton_enable_empty_final_response" => must_be_bool("request", &name, &value)?,
            "sequence_id" | "sequence_start" | "sequence_end" | "priority" if is_nothing(&value) => {}
            "sequence_id" | "sequence_start" | "sequence_end" | "priority" => return Err(not_offered("request", &name)),
            "headers" => return Err(reserved(&name)),
            _ if name.starts_with("triton_") => return Err(reserved(&name)),
            _ => rest.push((name, value)),
        }
    }
    Ok((rest, deadline))
}

/// Checks the parameters of one input or output, `place` being `input 'x'`; those that say how its bytes travel are the form's own.
///
/// # Errors
/// `NOT_OFFERED` for shared memory and classification.
pub(crate) fn tensor_parameter(place: &str, name: &str, value: &Parameter) -> Result<()> {
    match name {
        "shared_memory_region" | "shared_memory_byte_size" | "shared_memory_offset" | "classification" => Err(not_offered(place, name)),
        "binary_data" => must_be_bool(place, name, value),
        _ => Ok(()),
    }
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

fn must_be_bool(place: &str, name: &str, value: &Parameter) -> Result<()> {
    if matches!(value, Parameter::Bool(_)) { Ok(()) } else { Err(invalid(place, name, "true or false", value)) }
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

#[cold]
fn not_offered(place: &str, name: &str) -> NnrpError {
    NnrpError::new(Reason::NotOffered, format!("{place}: this server does not offer '{name}'")).with("parameter", name)
}

/// Refuses a message with more parameters than any model needs.
///
/// # Errors
/// `MALFORMED`.
pub(crate) fn check_count(count: usize) -> Result<()> {
    if count <= PARAMETER_LIMIT {
        return Ok(());
    }
    Err(NnrpError::new(Reason::Malformed, format!("parameters: expected {PARAMETER_LIMIT} at most, got {count}"))
        .with("expected", PARAMETER_LIMIT)
        .with("got", count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, value: Parameter) -> Result<(Parameters, Option<Instant>)> {
        request_parameters(vec![(name.to_owned(), value)], Instant::now())
    }

    #[test]
    fn a_timeout_becomes_a_deadline_and_leaves_the_parameters() {
        let received = Instant::now();
        let parameters = vec![("timeout".to_owned(), Parameter::Int(1_500)), ("beam".to_owned(), Parameter::Int(4))];
        let (rest, deadline) = request_parameters(parameters, received).unwrap();
        assert_eq!(rest, [("beam".to_owned(), Parameter::Int(4))]);
        assert_eq!(deadline, Some(received + Duration::from_micros(1_500)));
    }

    #[test]
    fn a_timeout_of_zero_or_beyond_the_clock_is_none() {
        assert_eq!(of("timeout", Parameter::Int(0)).unwrap().1, None);
        assert!(of("timeout", Parameter::Uint(u64::MAX)).is_ok());
    }

    #[test]
    fn wrong_values_and_reserved_names_are_named() {
        for (name, value) in [
            ("timeout", Parameter::Int(-1)),
            ("timeout", Parameter::String("soon".to_owned())),
            ("binary_data_output", Parameter::Int(1)),
            ("headers", Parameter::Bool(true)),
            ("triton_final_response", Parameter::Bool(true)),
        ] {
            let error = of(name, value).unwrap_err();
            assert!(error.is(Reason::InvalidParameter), "{error:?}");
            assert_eq!(error.details()["parameter"], name);
        }
    }

    #[test]
    fn what_the_server_cannot_do_is_refused_unless_it_asks_for_nothing() {
        assert!(of("sequence_id", Parameter::Int(7)).unwrap_err().is(Reason::NotOffered));
        assert!(of("sequence_id", Parameter::Int(0)).unwrap().0.is_empty());
        assert!(of("priority", Parameter::Uint(1)).unwrap_err().is(Reason::NotOffered));
        assert!(tensor_parameter("input 'x'", "shared_memory_region", &Parameter::String("r".to_owned())).unwrap_err().is(Reason::NotOffered));
        assert!(tensor_parameter("output 'y'", "binary_data", &Parameter::Bool(true)).is_ok());
    }
}
