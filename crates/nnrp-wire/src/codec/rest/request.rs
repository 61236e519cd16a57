//! Requests: a server decodes them, a client encodes them.
use super::tensor::{self, Body};
use super::{Encoded, Wanted};
use crate::codec::data::Owner;
use crate::codec::json::Cursor;
use crate::codec::parameters::{PARAMETER_LIMIT, take_binary, tensor_parameter};
use crate::codec::write;
use bytes::Bytes;
use nnrp_core::tensor::push_bytes_element;
use nnrp_core::{Datatype, Input, Names, NnrpError, Parameter, Parameters, Reason, Request, Result, Shape, Signature, Tensor, TensorSpec};
use smallvec::{SmallVec, smallvec};
use std::borrow::Cow;
use std::time::Instant;

/// Reads a request; names and binary tensors are parts of the body, shared.
///
/// `json_size` is `Inference-Header-Content-Length`; `None` says that the body is all JSON.
///
/// # Errors
/// `INVALID_ARGUMENT` or `NOT_OFFERED` with the reason, and the path, input or parameter that is wrong.
pub fn decode_request<'n>(
    model: &'n str,
    version: &'n str,
    body: &'n Bytes,
    json_size: Option<usize>,
    received: Instant,
) -> Result<(Request<'n, 'static>, Wanted)> {
    let mut body = Body::split(body, json_size)?;
    let mut cursor = Cursor::new(body.json);
    let mut request = Request { model: Cow::Borrowed(model), version: Cow::Borrowed(version), received: Some(received), ..Request::default() };
    let (mut wanted, mut inputs) = (Wanted::default(), None);
    cursor.object(&["id", "parameters", "inputs", "outputs"], |cursor, key| match key {
        0 => {
            request.id = Some(cursor.string()?.into());
            Ok(())
        }
        1 => parameters(cursor, &mut request.parameters, &mut wanted),
        2 => tensor::list(cursor, "inputs", |cursor| {
            let (name, tensor) = tensor::read(cursor, &mut body, "input")?;
            request.inputs.push(Input { name, tensor });
            Ok(())
        })
        .map(|()| inputs = Some(())),
        _ => tensor::list(cursor, "outputs", |cursor| output(cursor, &mut request.outputs, &mut wanted)),
    })?;
    cursor.finish()?;
    inputs.ok_or_else(|| cursor.error("'inputs' is missing"))?;
    body.finish()?;
    Ok((request, wanted))
}

fn parameters(cursor: &mut Cursor<'_>, parameters: &mut Parameters, wanted: &mut Wanted) -> Result<()> {
    *parameters = cursor.parameters(PARAMETER_LIMIT)?.into_iter().map(|(name, value)| (name.into_owned(), value)).collect();
    wanted.default = take_binary(parameters)?;
    Ok(())
}

fn output<'n>(cursor: &mut Cursor<'n>, names: &mut Names<'n>, wanted: &mut Wanted) -> Result<()> {
    let (mut name, mut binary) = (None, None);
    cursor.object(&["name", "parameters"], |cursor, key| {
        if key == 0 {
            name = Some(cursor.string()?);
            return Ok(());
        }
        for (name, value) in cursor.parameters(PARAMETER_LIMIT)? {
            match (&*name, value) {
                ("binary_data", Parameter::Bool(value)) => binary = Some(value),
                (name, value) => tensor_parameter(&cursor.path.to_string(), name, &value)?,
            }
        }
        Ok(())
    })?;
    names.push(name.ok_or_else(|| cursor.error("'name' is missing"))?);
    wanted.each.push(binary);
    Ok(())
}

/// Reads a request whose body is the bytes of the model's one input (`Inference-Header-Content-Length: 0`); the answer is all binary.
///
/// The one variable dimension follows from the length; of two, the first is a batch of one. BYTES: the body is the one element, without a
/// length before it.
///
/// # Errors
/// `MISSING_INPUT` when the model has not exactly one input, `SHAPE_MISMATCH` when the dimensions do not follow, `BYTE_SIZE_MISMATCH`.
pub fn decode_raw_request<'n>(model: &'n str, version: &'n str, body: &Bytes, signature: &'n Signature) -> Result<(Request<'n, 'static>, Wanted)> {
    let [spec] = signature.inputs.as_slice() else {
        let got = signature.inputs.len();
        let message = format!("a raw request carries one input, the model takes {got}");
        return Err(NnrpError::new(Reason::MissingInput, message).with("expected", got).with("got", 1));
    };
    let tensor = if spec.datatype == Datatype::Bytes { raw_string(spec, body)? } else { raw_elements(spec, body)? };
    let input = Input { name: Cow::Borrowed(&*spec.name), tensor };
    let request = Request { model: Cow::Borrowed(model), version: Cow::Borrowed(version), inputs: smallvec![input], ..Request::default() };
    Ok((request, Wanted::all(true)))
}

fn raw_string(spec: &TensorSpec, body: &Bytes) -> Result<Tensor<'static>> {
    let shape: Shape = spec.wire_shape().iter().map(|dim| if *dim == -1 { 1 } else { *dim }).collect();
    if shape.iter().any(|dim| *dim != 1) || u32::try_from(body.len()).is_err() {
        return Err(raw_error(spec, Reason::ShapeMismatch, "a raw request carries one BYTES element"));
    }
    let mut element = Vec::with_capacity(4 + body.len());
    push_bytes_element(&mut element, body);
    Ok(Tensor::shared(Datatype::Bytes, &shape, Bytes::from(element)))
}

fn raw_elements(spec: &TensorSpec, body: &Bytes) -> Result<Tensor<'static>> {
    let mut shape = spec.wire_shape();
    if shape.iter().filter(|dim| **dim == -1).count() == 2 && shape.first() == Some(&-1) {
        shape[0] = 1;
    }
    let open = shape.iter().position(|dim| *dim == -1);
    let known = shape.iter().filter(|dim| **dim != -1).try_fold(1usize, |count, dim| count.checked_mul(usize::try_from(*dim).ok()?));
    let bits = known.and_then(|count| count.checked_mul(spec.datatype.bits())).filter(|bits| *bits > 0);
    match (open, bits) {
        (None, _) => {}
        (Some(index), Some(bits)) if !shape[index + 1..].contains(&-1) => {
            let whole = (body.len().checked_mul(8)).filter(|size| size % bits == 0).and_then(|size| i64::try_from(size / bits).ok());
            let message = format!("a raw request: expected a multiple of {bits} bits, got {} bytes", body.len());
            shape[index] = whole.ok_or_else(|| raw_error(spec, Reason::ByteSizeMismatch, &message).with("got", body.len()))?;
        }
        _ => return Err(raw_error(spec, Reason::ShapeMismatch, "a raw request cannot tell more than one variable dimension")),
    }
    Ok(Tensor::shared(spec.datatype, &shape, body.clone()))
}

#[cold]
fn raw_error(spec: &TensorSpec, reason: Reason, message: &str) -> NnrpError {
    let shape = spec.wire_shape();
    let message = format!("{message}; its shape is {:?}", shape.as_slice());
    Owner { kind: "input", name: &spec.name }.error(reason, &message).with("expected", shape.as_slice())
}

/// Writes a request; as binary, the answer is asked for as binary too. A deadline becomes `timeout`, counted from now.
///
/// # Errors
/// `DATATYPE_MISMATCH`, `VALUE_OUT_OF_RANGE` where an input has no JSON form; `INVALID_PARAMETER` for a number that JSON cannot say.
pub fn encode_request(request: &Request<'_, 'static>, binary: bool) -> Result<Encoded> {
    let inputs: usize = request.inputs.iter().map(|input| tensor::size(&input.name, &input.tensor, binary)).sum();
    let mut out = Vec::with_capacity(128 + inputs);
    let mut tensors = SmallVec::new();
    out.push(b'{');
    if let Some(id) = &request.id {
        write::raw(&mut out, "\"id\":");
        write::value(&mut out, &**id);
        out.push(b',');
    }
    append_parameters(&mut out, request, binary)?;
    write::raw(&mut out, "\"inputs\":[");
    for (index, input) in request.inputs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        tensor::append(&mut out, &mut tensors, Owner { kind: "input", name: &input.name }, &input.tensor, binary)?;
    }
    out.push(b']');
    for (index, name) in request.outputs.iter().enumerate() {
        write::raw(&mut out, if index == 0 { ",\"outputs\":[{\"name\":" } else { ",{\"name\":" });
        write::value(&mut out, &**name);
        out.push(b'}');
    }
    write::raw(&mut out, if request.outputs.is_empty() { "}" } else { "]}" });
    Ok(Encoded { json: Bytes::from(out), tensors })
}

fn append_parameters(out: &mut Vec<u8>, request: &Request<'_, '_>, binary: bool) -> Result<()> {
    let timeout = request.deadline.map(|deadline| {
        // Zero would say that there is none.
        let micros = deadline.saturating_duration_since(Instant::now()).as_micros().max(1);
        Parameter::Int(i64::try_from(micros).unwrap_or(i64::MAX))
    });
    let own = [("binary_data_output", binary.then_some(Parameter::Bool(true))), ("timeout", timeout)];
    // What the request says itself counts; the client keeps its deadline anyway.
    let said = |name: &str| request.parameters.iter().any(|(said, _)| said == name);
    let own = own.iter().filter(|(name, _)| !said(name)).filter_map(|(name, value)| value.as_ref().map(|value| (*name, value)));
    let mut before = "\"parameters\":{";
    for (name, value) in own.chain(request.parameters.iter().map(|(name, value)| (&**name, value))) {
        write::raw(out, before);
        write::parameter(out, name, value)?;
        before = ",";
    }
    if before == "," {
        write::raw(out, "},");
    }
    Ok(())
}
