//! Responses: a server encodes them, a client decodes them.
use super::tensor::{self, Body};
use super::{Encoded, Wanted};
use crate::codec::data::Owner;
use crate::codec::json::Cursor;
use crate::codec::write;
use bytes::Bytes;
use nnrp_core::tensor::{bytes_elements, element_count};
use nnrp_core::{Datatype, Output, Reason, Response, Result, Tensor};
use smallvec::SmallVec;

/// Writes a response, each output in the form that is wanted.
///
/// # Errors
/// `DATATYPE_MISMATCH` for a datatype without a JSON form, `VALUE_OUT_OF_RANGE` for NaN, infinities and BYTES that are not UTF-8, when they
/// are wanted as JSON; the message names the output.
pub fn encode_response(response: &Response, wanted: &Wanted) -> Result<Encoded> {
    let outputs = || response.outputs.iter().enumerate().map(|(index, output)| (output, wanted.binary(index)));
    let size: usize = outputs().map(|(output, binary)| tensor::size(&output.name, &output.tensor, binary)).sum();
    let id = response.id.as_deref().unwrap_or_default();
    let mut out = Vec::with_capacity(96 + response.model.len() + response.version.len() + id.len() + size);
    let mut tensors = SmallVec::new();
    write::raw(&mut out, "{\"model_name\":");
    write::value(&mut out, &*response.model);
    write::raw(&mut out, ",\"model_version\":");
    write::value(&mut out, &*response.version);
    if let Some(id) = &response.id {
        write::raw(&mut out, ",\"id\":");
        write::value(&mut out, &**id);
    }
    write::raw(&mut out, ",\"outputs\":[");
    for (output, binary) in outputs() {
        if out.last() == Some(&b'}') {
            out.push(b',');
        }
        tensor::append(&mut out, &mut tensors, Owner { kind: "output", name: &output.name }, &output.tensor, binary)?;
    }
    write::raw(&mut out, "]}");
    Ok(Encoded { json: Bytes::from(out), tensors })
}

/// Reads a response; binary tensors are parts of the body, shared.
///
/// # Errors
/// `MALFORMED` and the other reasons of a message that is not one; the bytes of each output fit its datatype and shape.
pub fn decode_response(body: &Bytes, json_size: Option<usize>) -> Result<Response> {
    let mut body = Body::split(body, json_size)?;
    let mut cursor = Cursor::new(body.json);
    let mut response = Response { model: "".into(), version: "".into(), id: None, outputs: SmallVec::new() };
    let mut found = false;
    cursor.object(&["model_name", "model_version", "id", "outputs"], |cursor, key| {
        match key {
            0 => response.model = (&*cursor.string()?).into(),
            1 => response.version = (&*cursor.string()?).into(),
            2 => response.id = Some(cursor.string()?.into()),
            _ => {
                found = true;
                tensor::list(cursor, "outputs", |cursor| {
                    let (name, tensor) = tensor::read(cursor, &mut body, "output")?;
                    check(Owner { kind: "output", name: &name }, &tensor)?;
                    response.outputs.push(Output { name: (&*name).into(), tensor });
                    Ok(())
                })?;
            }
        }
        Ok(())
    })?;
    cursor.finish()?;
    body.finish()?;
    if found { Ok(response) } else { Err(cursor.error("'outputs' is missing")) }
}

/// No engine stands behind a client, so the bytes are held against datatype and shape here.
fn check(owner: Owner<'_>, tensor: &Tensor<'_>) -> Result<()> {
    let (shape, bytes) = (tensor.shape.as_slice(), tensor.bytes());
    let Some(count) = element_count(shape) else {
        return Err(owner.wrong_shape(shape));
    };
    let fits = match tensor.datatype {
        Datatype::Bytes => bytes_elements(bytes).try_fold(0usize, |found, element| element.map(|_| found + 1)) == Some(count),
        datatype => datatype.byte_size(count) == Some(bytes.len()),
    };
    if fits {
        return Ok(());
    }
    let message = format!("{} bytes are not a tensor of {} and shape {shape:?}", bytes.len(), tensor.datatype.name());
    Err(owner.error(Reason::ByteSizeMismatch, &message).with("got", bytes.len()))
}
