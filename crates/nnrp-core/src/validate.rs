//! Everything that is checked before a runtime sees a request (spec §7.1): runtimes do not protect their callers.
use crate::error::{NnrpError, Reason, Result, excerpt};
use crate::message::{Inputs, Parameters};
use crate::model::{Signature, TensorSpec};
use crate::overrides::Range;
use crate::runtime::Control;
use crate::symbols::Ties;
use crate::tensor::{AlignedBuf, Data, Datatype, Tensor, bytes_elements, element_count, expected_shape};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::time::Instant;

/// A request that fits its signature.
pub(crate) struct Prepared<'d> {
    /// One slot for each input of the signature, in its order.
    pub(crate) inputs: SmallVec<[Option<Tensor<'d>>; 1]>,
    /// Indices of the outputs wanted.
    pub(crate) outputs: SmallVec<[usize; 2]>,
    /// Bytes of all inputs.
    pub(crate) byte_size: usize,
    /// The request's id.
    pub(crate) id: Option<Box<str>>,
    /// The request's parameters that are the model's own.
    pub(crate) parameters: Parameters,
    /// When it came.
    pub(crate) arrived: Instant,
}

impl Prepared<'_> {
    /// What goes along with its run, the request's own words among it.
    #[inline]
    pub(crate) fn told<'a>(&'a self, control: Control<'a>) -> Control<'a> {
        Control { id: self.id.as_deref(), parameters: &self.parameters, ..control }
    }
}

/// Puts the inputs in the signature's order and checks each: presence, datatype, rank, dimensions, equal symbols, byte size, elements,
/// alignment.
///
/// # Errors
/// `INVALID_ARGUMENT` with the reason, the input's name, what was expected and what was got.
pub(crate) fn prepare<'d>(
    (signature, ties): (&Signature, &Ties),
    inputs: Inputs<'_, 'd>,
    outputs: &[Cow<'_, str>],
    id: Option<Box<str>>,
    arrived: Instant,
) -> Result<Prepared<'d>> {
    let mut slots: SmallVec<[Option<Tensor<'d>>; 1]> = SmallVec::new();
    slots.resize_with(signature.inputs.len(), || None);
    let mut byte_size = 0;
    for input in inputs {
        let index = find(&signature.inputs, &input.name).ok_or_else(|| unknown(Reason::UnknownInput, "input", &input.name, &signature.inputs))?;
        let (spec, slot) = (&signature.inputs[index], &mut slots[index]);
        if slot.is_some() {
            return Err(NnrpError::new(Reason::DuplicateInput, format!("input '{}' is given twice", spec.name)).with("input", &*spec.name));
        }
        byte_size += input.tensor.bytes().len();
        check("input", spec, &input.tensor)?;
        *slot = Some(align(input.tensor));
    }
    if let Some((spec, _)) = signature.inputs.iter().zip(&slots).find(|(spec, slot)| slot.is_none() && !spec.optional) {
        let message = format!("input '{}' is missing: expected {} {:?}", spec.name, spec.datatype.name(), spec.wire_shape().as_slice());
        return Err(NnrpError::new(Reason::MissingInput, message).with("input", &*spec.name));
    }
    ties.check(signature, &slots)?;
    Ok(Prepared { inputs: slots, outputs: wanted(signature, outputs)?, byte_size, id, parameters: Parameters::new(), arrived })
}

fn find(specs: &[TensorSpec], name: &str) -> Option<usize> {
    specs.iter().position(|spec| *spec.name == *name)
}

/// Most names that an error lists.
const LISTED: usize = 16;

#[cold]
fn unknown(reason: Reason, what: &str, name: &str, specs: &[TensorSpec]) -> NnrpError {
    let known: Vec<&str> = specs.iter().take(LISTED).map(|spec| &*spec.name).collect();
    let got = excerpt(name);
    NnrpError::new(reason, format!("{what} '{got}' is not in the signature: expected one of {known:?}")).with(what, got).with("expected", known)
}

fn wanted(signature: &Signature, names: &[Cow<'_, str>]) -> Result<SmallVec<[usize; 2]>> {
    if names.is_empty() {
        return Ok((0..signature.outputs.len()).collect());
    }
    let mut indices = SmallVec::new();
    for name in names {
        let index = find(&signature.outputs, name).ok_or_else(|| unknown(Reason::UnknownOutput, "output", name, &signature.outputs))?;
        if indices.contains(&index) {
            return Err(NnrpError::new(Reason::DuplicateOutput, format!("output '{name}' is asked for twice")).with("output", &**name));
        }
        indices.push(index);
    }
    Ok(indices)
}

/// Checks what a runtime gave for an output, as an input is checked.
///
/// # Errors
/// `RUN_FAILED`, naming the runtime, the output, what was expected and what was got.
pub fn check_output(runtime: &str, spec: &TensorSpec, tensor: &Tensor<'_>) -> Result<()> {
    check("output", spec, tensor).map_err(|error| wrong_output(runtime, &error))
}

/// The error of a runtime that gave an output which is wrong in that way.
#[cold]
pub fn wrong_output(runtime: &str, error: &NnrpError) -> NnrpError {
    let told = NnrpError::new(Reason::RunFailed, format!("runtime {runtime}: {}", error.message())).with("runtime", runtime);
    error.details().iter().fold(told, |told, (key, value)| told.with(key, value.clone()))
}

fn check(what: &'static str, spec: &TensorSpec, tensor: &Tensor<'_>) -> Result<()> {
    if tensor.datatype != spec.datatype {
        let (expected, got) = (spec.datatype.name(), tensor.datatype.name());
        let message = format!("{what} '{}': expected datatype {expected}, got {got}", spec.name);
        return Err(NnrpError::new(Reason::DatatypeMismatch, message).with(what, &*spec.name).with("expected", expected).with("got", got));
    }
    let Some(count) = element_count(&tensor.shape) else {
        let (expected, got) = (expected_shape(&tensor.shape), tensor.shape.as_slice());
        let message = format!("{what} '{}': expected {expected}, got shape {got:?}", spec.name);
        return Err(NnrpError::new(Reason::InvalidShape, message).with(what, &*spec.name).with("expected", expected).with("got", got));
    };
    if let Some(expected) = &spec.shape {
        let fits = expected.len() == tensor.shape.len() && expected.iter().zip(&tensor.shape).all(|(want, got)| *want == -1 || want == got);
        if !fits {
            let message = format!("{what} '{}': expected shape {:?}, got {:?}", spec.name, expected.as_slice(), tensor.shape.as_slice());
            let error = NnrpError::new(Reason::ShapeMismatch, message).with(what, &*spec.name);
            return Err(error.with("expected", expected.as_slice()).with("got", tensor.shape.as_slice()));
        }
    }
    if !spec.ranges.is_empty() {
        check_ranges(what, spec, tensor)?;
    }
    check_elements(what, spec, tensor, count)
}

fn check_ranges(what: &'static str, spec: &TensorSpec, tensor: &Tensor<'_>) -> Result<()> {
    let outside = |(range, size): (&Option<Range>, &i64)| range.filter(|range| *size < range.min || *size > range.max);
    let Some((axis, range)) = spec.ranges.iter().zip(&tensor.shape).enumerate().find_map(|(axis, pair)| Some((axis, outside(pair)?))) else { return Ok(()) };
    let (expected, got) = (range.to_string(), tensor.shape[axis]);
    let message = format!("{what} '{}': dimension {axis}: expected {expected}, got {got}", spec.name);
    let error = NnrpError::new(Reason::ShapeMismatch, message).with(what, &*spec.name).with("axis", axis);
    Err(error.with("expected", expected).with("got", got))
}

fn check_elements(what: &'static str, spec: &TensorSpec, tensor: &Tensor<'_>, count: usize) -> Result<()> {
    let bytes = tensor.bytes();
    match tensor.datatype {
        Datatype::Bytes => check_bytes_elements(what, spec, bytes, count),
        datatype => {
            if datatype.byte_size(count) != Some(bytes.len()) {
                let expected = datatype.byte_size(count).unwrap_or(usize::MAX);
                let message =
                    format!("{what} '{}': shape {:?} of {} takes {expected} bytes, got {}", spec.name, tensor.shape.as_slice(), datatype.name(), bytes.len());
                let error = NnrpError::new(Reason::ByteSizeMismatch, message).with(what, &*spec.name);
                return Err(error.with("expected", expected).with("got", bytes.len()));
            }
            check_padding(what, spec, datatype, bytes, count)?;
            check_bool(what, spec, datatype, bytes)
        }
    }
}

/// Two four-bit elements share a byte; the half that an odd count leaves over is zero (spec §3.5).
fn check_padding(what: &'static str, spec: &TensorSpec, datatype: Datatype, bytes: &[u8], count: usize) -> Result<()> {
    let half_used = datatype.bits() == 4 && !count.is_multiple_of(2);
    match bytes.last() {
        Some(last) if half_used && last >> 4 != 0 => {
            let message = format!("{what} '{}': expected the unused half of the last byte of {} to be zero, got {}", spec.name, datatype.name(), last >> 4);
            Err(NnrpError::new(Reason::ValueOutOfRange, message).with(what, &*spec.name))
        }
        _ => Ok(()),
    }
}

fn check_bool(what: &'static str, spec: &TensorSpec, datatype: Datatype, bytes: &[u8]) -> Result<()> {
    if datatype != Datatype::Bool {
        return Ok(());
    }
    let Some((index, got)) = bytes.iter().enumerate().find(|(_, byte)| **byte > 1) else { return Ok(()) };
    let message = format!("{what} '{}': element {index} of BOOL: expected 0 or 1, got {got}", spec.name);
    Err(NnrpError::new(Reason::ValueOutOfRange, message).with(what, &*spec.name).with("index", index))
}

fn check_bytes_elements(what: &'static str, spec: &TensorSpec, bytes: &[u8], count: usize) -> Result<()> {
    let mut found = 0;
    for element in bytes_elements(bytes) {
        if element.is_none() && found == count {
            let message = format!("{what} '{}': expected {count} BYTES elements, got more bytes behind them", spec.name);
            return Err(NnrpError::new(Reason::ByteSizeMismatch, message).with(what, &*spec.name).with("expected", count));
        }
        if element.is_none() {
            let message = format!("{what} '{}': the length of BYTES element {found} runs past the end of its {} bytes", spec.name, bytes.len());
            return Err(NnrpError::new(Reason::ByteSizeMismatch, message).with(what, &*spec.name).with("index", found));
        }
        found += 1;
    }
    if found != count {
        let message = format!("{what} '{}': expected {count} BYTES elements, got {found}", spec.name);
        return Err(NnrpError::new(Reason::ByteSizeMismatch, message).with(what, &*spec.name).with("expected", count).with("got", found));
    }
    Ok(())
}

/// Runtimes read elements in place, so elements begin where their type may; bytes out of a message often do not.
fn align(tensor: Tensor<'_>) -> Tensor<'_> {
    if (tensor.bytes().as_ptr() as usize).is_multiple_of(tensor.datatype.align()) {
        return tensor;
    }
    let copy = AlignedBuf::copy_of(tensor.bytes()).into_bytes();
    Tensor { data: Data::Shared(copy), ..tensor }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Input;
    use crate::model::Symbols;
    use crate::tensor::{Shape, push_bytes_element};
    use bytes::Bytes;
    use smallvec::smallvec;

    fn check_all<'d>(signature: &Signature, inputs: Inputs<'_, 'd>, outputs: &[Cow<'_, str>]) -> Result<Prepared<'d>> {
        prepare((signature, &Ties::of(signature, Symbols::Equal)), inputs, outputs, None, Instant::now())
    }

    fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: name.into(), datatype, shape: Some(Shape::from_slice(shape)), symbols: vec![], ranges: vec![], optional: false }
    }

    fn signature() -> Signature {
        Signature { inputs: vec![spec("x", Datatype::Fp32, &[-1, 2]), spec("s", Datatype::Bytes, &[-1])], outputs: vec![spec("y", Datatype::Fp32, &[-1, 2])] }
    }

    fn input<'d>(name: &'static str, datatype: Datatype, shape: &[i64], bytes: &'d [u8]) -> Input<'static, 'd> {
        Input { name: name.into(), tensor: Tensor::borrowed(datatype, shape, bytes) }
    }

    fn strings(elements: &[&[u8]]) -> Vec<u8> {
        let mut data = Vec::new();
        elements.iter().for_each(|element| push_bytes_element(&mut data, element));
        data
    }

    fn reason(inputs: Inputs<'_, '_>, outputs: &[Cow<'_, str>]) -> String {
        check_all(&signature(), inputs, outputs).err().expect("refused").reason().to_owned()
    }

    #[test]
    fn inputs_come_out_in_the_signatures_order() {
        let (text, floats) = (strings(&[b"a"]), [0u8; 16]);
        let prepared = check_all(&signature(), smallvec![input("s", Datatype::Bytes, &[1], &text), input("x", Datatype::Fp32, &[2, 2], &floats)], &[]).unwrap();
        assert_eq!(prepared.inputs[0].as_ref().unwrap().datatype, Datatype::Fp32);
        assert_eq!(prepared.byte_size, 5 + 16);
        assert_eq!(prepared.outputs.as_slice(), [0]);
    }

    #[test]
    fn each_mistake_has_its_reason() {
        let (text, floats) = (strings(&[b"a"]), [0u8; 8]);
        let s = || input("s", Datatype::Bytes, &[1], &text);
        let x = || input("x", Datatype::Fp32, &[1, 2], &floats);
        let with = |bad| reason(smallvec![s(), bad], &[]);
        assert_eq!(with(input("x", Datatype::Fp64, &[1, 1], &floats)), "DATATYPE_MISMATCH");
        assert_eq!(with(input("x", Datatype::Fp32, &[2], &floats)), "SHAPE_MISMATCH");
        assert_eq!(with(input("x", Datatype::Fp32, &[2, 1], &floats)), "SHAPE_MISMATCH");
        assert_eq!(with(input("x", Datatype::Fp32, &[-1, 2], &floats)), "INVALID_SHAPE");
        assert_eq!(with(input("x", Datatype::Fp32, &[1 << 62, 1 << 62], &floats)), "INVALID_SHAPE");
        assert_eq!(with(input("x", Datatype::Fp32, &[1 << 62, 1 << 62, 0], &[])), "INVALID_SHAPE");
        assert_eq!(with(input("x", Datatype::Fp32, &[2, 2], &floats)), "BYTE_SIZE_MISMATCH");
        assert_eq!(with(input("z", Datatype::Fp32, &[1, 2], &floats)), "UNKNOWN_INPUT");
        assert_eq!(reason(smallvec![s(), s()], &[]), "DUPLICATE_INPUT");
        assert_eq!(reason(smallvec![s()], &[]), "MISSING_INPUT");
        assert_eq!(reason(smallvec![s(), x()], &["z".into()]), "UNKNOWN_OUTPUT");
        assert_eq!(reason(smallvec![s(), x()], &["y".into(), "y".into()]), "DUPLICATE_OUTPUT");
        assert_eq!(reason(smallvec![x(), input("s", Datatype::Bytes, &[2], &text)], &[]), "BYTE_SIZE_MISMATCH");
        assert_eq!(reason(smallvec![x(), input("s", Datatype::Bytes, &[1], &text[..4])], &[]), "BYTE_SIZE_MISMATCH");
        let more = [&text[..], b"!"].concat();
        assert_eq!(reason(smallvec![x(), input("s", Datatype::Bytes, &[1], &more)], &[]), "BYTE_SIZE_MISMATCH");
    }

    #[test]
    fn a_bool_is_zero_or_one() {
        let signature = Signature { inputs: vec![spec("b", Datatype::Bool, &[2])], outputs: vec![] };
        let refused = check_all(&signature, smallvec![input("b", Datatype::Bool, &[2], &[1, 2])], &[]).err().unwrap();
        assert!(refused.is(Reason::ValueOutOfRange));
    }

    #[test]
    fn the_unused_half_of_a_byte_is_zero() {
        let signature = Signature { inputs: vec![spec("q", Datatype::Int4, &[3])], outputs: vec![] };
        let given = |bytes| check_all(&signature, smallvec![input("q", Datatype::Int4, &[3], bytes)], &[]);
        assert!(given(&[0xff, 0x0f]).is_ok());
        assert!(given(&[0xff, 0x1f]).err().unwrap().is(Reason::ValueOutOfRange));
    }

    #[test]
    fn unaligned_elements_are_copied_and_aligned_ones_are_not() {
        let bytes = AlignedBuf::copy_of(&[7; 12]).into_bytes();
        let signature = Signature { inputs: vec![spec("x", Datatype::Fp32, &[2])], outputs: vec![] };
        let place = |bytes: Bytes| {
            let input = Input { name: "x".into(), tensor: Tensor::shared(Datatype::Fp32, &[2], bytes) };
            let prepared = check_all(&signature, smallvec![input], &[]).unwrap();
            prepared.inputs[0].as_ref().unwrap().bytes().as_ptr() as usize
        };
        assert_eq!(place(bytes.slice(4..12)), bytes.as_ptr() as usize + 4);
        assert_eq!(place(bytes.slice(1..9)) % 4, 0);
    }
}
