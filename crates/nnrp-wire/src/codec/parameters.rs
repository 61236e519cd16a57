//! Parameters that say how bytes travel; what the others mean is the engine's (spec §4.2).
use nnrp_core::parameters::{must_be_bool, not_offered};
use nnrp_core::{NnrpError, Parameter, Parameters, Reason, Result};

/// Most parameters of one message, its tensors' included.
pub(crate) const PARAMETER_LIMIT: usize = 1_024;

/// Takes `binary_data_output` out of a request's parameters.
///
/// # Errors
/// `INVALID_PARAMETER` when it is neither true nor false.
pub(crate) fn take_binary(parameters: &mut Parameters) -> Result<bool> {
    let Some(index) = parameters.iter().position(|(name, _)| name == "binary_data_output") else { return Ok(false) };
    let (name, value) = parameters.remove(index);
    must_be_bool("request", &name, &value)?;
    Ok(value == Parameter::Bool(true))
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

    #[test]
    fn the_form_of_the_answer_leaves_the_parameters() {
        for flag in [true, false] {
            let mut parameters = vec![("beam".to_owned(), Parameter::Int(4)), ("binary_data_output".to_owned(), Parameter::Bool(flag))];
            assert_eq!(take_binary(&mut parameters).unwrap(), flag);
            assert_eq!(parameters, [("beam".to_owned(), Parameter::Int(4))]);
        }
        let mut wrong = vec![("binary_data_output".to_owned(), Parameter::Int(1))];
        assert!(take_binary(&mut wrong).unwrap_err().is(Reason::InvalidParameter));
    }

    #[test]
    fn how_else_a_tensor_could_travel_is_not_offered() {
        assert!(tensor_parameter("input 'x'", "shared_memory_region", &Parameter::String("r".to_owned())).unwrap_err().is(Reason::NotOffered));
        assert!(tensor_parameter("output 'y'", "binary_data", &Parameter::Bool(true)).is_ok());
    }
}
