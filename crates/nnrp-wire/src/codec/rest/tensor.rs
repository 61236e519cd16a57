//! A named tensor in a message, the same in requests and responses.
use super::TENSOR_LIMIT;
use crate::codec::data::{self, Owner};
use crate::codec::json::Cursor;
use crate::codec::parameters::{PARAMETER_LIMIT, tensor_parameter};
use crate::codec::write;
use bytes::Bytes;
use nnrp_core::error::excerpt;
use nnrp_core::{Data, Datatype, NnrpError, Parameter, Reason, Result, Shape, Tensor};
use smallvec::SmallVec;
use std::borrow::Cow;

/// Most dimensions of a shape; as many as NumPy has.
const RANK_LIMIT: usize = 64;

/// A body: JSON, then binary tensors in the JSON's order.
pub(super) struct Body<'n> {
    pub(super) json: &'n [u8],
    bytes: &'n Bytes,
    /// Where the next binary tensor starts; `None` when the message is all JSON.
    next: Option<usize>,
}

impl<'n> Body<'n> {
    /// Parts a body at the length that the header gives.
    ///
    /// # Errors
    /// `MALFORMED` when that is nothing or beyond the body.
    pub(super) fn split(bytes: &'n Bytes, json_size: Option<usize>) -> Result<Self> {
        let size = json_size.unwrap_or(bytes.len());
        match bytes.get(..size) {
            Some(json) if json_size != Some(0) => Ok(Body { json, bytes, next: json_size }),
            _ => {
                let message = format!("Inference-Header-Content-Length: expected 1 to {}, the length of the body, got {size}", bytes.len());
                Err(NnrpError::new(Reason::Malformed, message).with("expected", bytes.len()).with("got", size))
            }
        }
    }

    /// The next binary tensor, shared with the body.
    fn take(&mut self, owner: Owner<'_>, size: usize) -> Result<Bytes> {
        let Some(start) = self.next else {
            return Err(owner.error(Reason::Malformed, "binary_data_size without the header Inference-Header-Content-Length"));
        };
        let left = self.bytes.len() - start;
        if size > left {
            let message = format!("binary_data_size: expected at most the {left} bytes left in the body, got {size}");
            return Err(owner.error(Reason::ByteSizeMismatch, &message).with("expected", left).with("got", size));
        }
        self.next = Some(start + size);
        Ok(self.bytes.slice(start..start + size))
    }

    /// Checks that the tensors took the whole body.
    pub(super) fn finish(&self) -> Result<()> {
        let (end, size) = (self.next.unwrap_or(self.bytes.len()), self.bytes.len());
        if end == size {
            return Ok(());
        }
        let message = format!("body: expected {end} bytes by the JSON and its binary_data_size, got {size}");
        Err(NnrpError::new(Reason::ByteSizeMismatch, message).with("expected", end).with("got", size))
    }
}

/// `data`, as far as it is known.
#[derive(Default)]
enum Elements {
    #[default]
    Absent,
    /// Seen before datatype and shape, so to be read later.
    At(usize),
    Read(Bytes),
}

#[derive(Default)]
struct Draft<'n> {
    name: Option<Cow<'n, str>>,
    datatype: Option<Cow<'n, str>>,
    shape: Option<Shape>,
    binary_size: Option<usize>,
    elements: Elements,
}

/// Reads one tensor with its name; `kind` is `input` or `output`.
pub(super) fn read<'n>(cursor: &mut Cursor<'n>, body: &mut Body<'n>, kind: &'static str) -> Result<(Cow<'n, str>, Tensor<'static>)> {
    let mut draft = Draft::default();
    cursor.object(&["name", "shape", "datatype", "parameters", "data"], |cursor, key| {
        match key {
            0 => draft.name = Some(cursor.string()?),
            1 => draft.shape = Some(shape(cursor)?),
            2 => draft.datatype = Some(cursor.string()?),
            3 => draft.binary_size = binary_size(cursor)?,
            _ => draft.elements = draft.data(cursor, kind)?,
        }
        Ok(())
    })?;
    draft.finish(cursor, body, kind)
}

fn shape(cursor: &mut Cursor<'_>) -> Result<Shape> {
    let mut shape = Shape::new();
    cursor.array(RANK_LIMIT + 1, |cursor, index| {
        if index == RANK_LIMIT {
            let message = format!("{}: expected {RANK_LIMIT} dimensions at most, got more", cursor.path);
            return Err(NnrpError::new(Reason::InvalidShape, message).with("path", cursor.path.to_string()).with("expected", RANK_LIMIT));
        }
        let Some(dim) = cursor.integer()? else {
            let path = cursor.path;
            return Err(NnrpError::new(Reason::InvalidShape, format!("{path}: a dimension is beyond 64 bits")).with("path", path.to_string()));
        };
        shape.push(dim);
        Ok(())
    })?;
    Ok(shape)
}

fn binary_size(cursor: &mut Cursor<'_>) -> Result<Option<usize>> {
    let mut size = None;
    for (name, value) in cursor.parameters(PARAMETER_LIMIT)? {
        match (&*name, value) {
            ("binary_data_size", Parameter::Int(value)) if value >= 0 => size = usize::try_from(value).ok(),
            ("binary_data_size", _) => {
                let message = format!("{}: parameter 'binary_data_size': expected a whole number of bytes", cursor.path);
                return Err(NnrpError::new(Reason::InvalidParameter, message).with("parameter", "binary_data_size"));
            }
            (name, value) => tensor_parameter(&cursor.path.to_string(), name, &value)?,
        }
    }
    Ok(size)
}

impl<'n> Draft<'n> {
    /// Reads `data` where it stands, or remembers the place when datatype or shape are still to come.
    fn data(&self, cursor: &mut Cursor<'n>, kind: &'static str) -> Result<Elements> {
        let at = cursor.at();
        let (Some(name), Some(datatype), Some(shape)) = (&self.name, &self.datatype, &self.shape) else {
            cursor.skip()?;
            return Ok(Elements::At(at));
        };
        let owner = Owner { kind, name };
        let (bytes, end) = data::read(cursor.text(), at, owner, parse_datatype(owner, datatype)?, shape)?;
        cursor.seek(end);
        Ok(Elements::Read(bytes))
    }

    fn finish(self, cursor: &Cursor<'n>, body: &mut Body<'n>, kind: &'static str) -> Result<(Cow<'n, str>, Tensor<'static>)> {
        let missing = |field: &str| cursor.error(&format!("'{field}' is missing"));
        let name = self.name.ok_or_else(|| missing("name"))?;
        let owner = Owner { kind, name: &name };
        let datatype = parse_datatype(owner, &self.datatype.ok_or_else(|| missing("datatype"))?)?;
        let shape = self.shape.ok_or_else(|| missing("shape"))?;
        let bytes = match (self.elements, self.binary_size) {
            (Elements::Read(bytes), None) => bytes,
            (Elements::At(at), None) => data::read(cursor.text(), at, owner, datatype, &shape)?.0,
            (Elements::Absent, Some(size)) => body.take(owner, size)?,
            (Elements::Absent, None) => return Err(owner.error(Reason::Malformed, "expected data or the parameter binary_data_size, got neither")),
            (_, Some(_)) => return Err(owner.error(Reason::Malformed, "expected data or the parameter binary_data_size, got both")),
        };
        Ok((name, Tensor { datatype, shape, data: Data::Shared(bytes) }))
    }
}

fn parse_datatype(owner: Owner<'_>, name: &str) -> Result<Datatype> {
    Datatype::from_name(name).ok_or_else(|| {
        let got = excerpt(name);
        owner.error(Reason::UnknownDatatype, &format!("unknown datatype '{got}'")).with("got", got)
    })
}

/// Reads a list of at most [`TENSOR_LIMIT`] objects, keeping the path.
pub(super) fn list<'n>(cursor: &mut Cursor<'n>, name: &'static str, mut each: impl FnMut(&mut Cursor<'n>) -> Result<()>) -> Result<()> {
    let outer = cursor.path;
    cursor.array(TENSOR_LIMIT, |cursor, index| {
        (cursor.path.list, cursor.path.index, cursor.path.field) = (name, index, "");
        each(cursor)?;
        cursor.path = outer;
        Ok(())
    })
}

/// Bytes to reserve for one tensor in a message.
pub(super) fn size(name: &str, tensor: &Tensor<'_>, binary: bool) -> usize {
    let data = if binary { 48 } else { write::data_size(tensor) };
    96 + name.len() + 20 * tensor.shape.len() + data
}

/// Appends one tensor; as binary its bytes go to `tensors`, shared.
pub(super) fn append(out: &mut Vec<u8>, tensors: &mut SmallVec<[Bytes; 2]>, owner: Owner<'_>, tensor: &Tensor<'static>, binary: bool) -> Result<()> {
    write::raw(out, "{\"name\":");
    write::value(out, owner.name);
    write::raw(out, ",\"datatype\":\"");
    write::raw(out, tensor.datatype.name());
    write::raw(out, "\",\"shape\":");
    write::value(out, tensor.shape.as_slice());
    if binary {
        write::raw(out, ",\"parameters\":{\"binary_data_size\":");
        write::value(out, &tensor.bytes().len());
        write::raw(out, "}}");
        tensors.push(match &tensor.data {
            Data::Borrowed(bytes) => Bytes::from_static(bytes),
            Data::Shared(bytes) => bytes.clone(),
        });
        return Ok(());
    }
    write::raw(out, ",\"data\":");
    write::data(out, owner, tensor)?;
    out.push(b'}');
    Ok(())
}
