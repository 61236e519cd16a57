//! What elements of BYTES unfold to: a message has four bytes for an empty one, and whoever runs it a text of its own.
use nnrp_core::tensor::element_count;
use nnrp_core::{Datatype, NnrpError, Reason, Request, Result};

/// What an element counts as, in bytes: what it takes in C++ and as protobuf's typed contents.
const UNFOLDED: usize = 32;

/// Refuses a request whose elements of BYTES unfold to more than a message may have (spec §4.6).
///
/// # Errors
/// `BODY_TOO_LARGE`.
pub fn check_elements(request: &Request<'_, '_>, limit: usize) -> Result<()> {
    let texts = request.inputs.iter().map(|input| &input.tensor).filter(|tensor| tensor.datatype == Datatype::Bytes);
    // A shape may claim more than there is, which is another error.
    let count: usize = texts.map(|tensor| element_count(&tensor.shape).unwrap_or(0).min(tensor.bytes().len() / 4)).sum();
    if count <= limit / UNFOLDED { Ok(()) } else { Err(too_many(count, limit / UNFOLDED)) }
}

#[cold]
fn too_many(got: usize, most: usize) -> NnrpError {
    let message = format!("inputs: expected at most {most} elements of BYTES, each of which counts as {UNFOLDED} bytes of a message, got {got}");
    NnrpError::new(Reason::BodyTooLarge, message).with("expected", most).with("got", got)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nnrp_core::{Input, Tensor};
    use std::borrow::Cow;

    fn request(inputs: &[(Datatype, &[i64], usize)]) -> Request<'static, 'static> {
        let input = |&(datatype, shape, byte_size): &(Datatype, &[i64], usize)| Input {
            name: Cow::Borrowed("x"),
            tensor: Tensor::shared(datatype, shape, vec![0; byte_size].into()),
        };
        Request { inputs: inputs.iter().map(input).collect(), ..Request::default() }
    }

    #[test]
    fn elements_of_all_inputs_count_and_those_that_are_only_claimed_do_not() {
        let check = |inputs: &[_]| check_elements(&request(inputs), 320);
        assert!(check(&[(Datatype::Bytes, &[10], 40)]).is_ok());
        assert!(check(&[(Datatype::Bytes, &[1 << 50], 40), (Datatype::Bytes, &[-1], 400), (Datatype::Uint8, &[400], 400)]).is_ok());
        let error = check(&[(Datatype::Bytes, &[2, 3], 24), (Datatype::Bytes, &[5], 20)]).unwrap_err();
        assert!(error.is(Reason::BodyTooLarge));
        assert_eq!((&error.details()["expected"], &error.details()["got"]), (&10.into(), &11.into()));
    }
}
