//! Typed contents of a protobuf tensor: the one field that belongs to the datatype, as the tensor's bytes (spec §4.5).
use super::proto::messages::InferTensorContents;
use bytes::Bytes;
use nnrp_core::error::excerpt;
use nnrp_core::tensor::{element_count, expected_shape, push_bytes_element, values_to_bytes};
use nnrp_core::{Datatype, NnrpError, Reason, Result};

/// The field of InferTensorContents that carries a datatype; `None` where only raw bytes can.
pub(super) const fn field(datatype: Datatype) -> Option<&'static str> {
    match datatype {
        Datatype::Bool => Some("bool_contents"),
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => Some("int_contents"),
        Datatype::Int64 => Some("int64_contents"),
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => Some("uint_contents"),
        Datatype::Uint64 => Some("uint64_contents"),
        Datatype::Fp32 => Some("fp32_contents"),
        Datatype::Fp64 => Some("fp64_contents"),
        Datatype::Bytes => Some("bytes_contents"),
        Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp8E4m3 | Datatype::Fp8E5m2 | Datatype::Int4 | Datatype::Uint4 => None,
    }
}

/// The bytes of the tensor `kind 'name'`; a copy only where the elements' width changes.
pub(super) fn decode(kind: &str, name: &str, datatype: Datatype, shape: &[i64], contents: InferTensorContents) -> Result<Bytes> {
    let tensor = Place { kind, name, datatype };
    let filled = [
        ("bool_contents", contents.bool_contents.len()),
        ("int_contents", contents.int_contents.len()),
        ("int64_contents", contents.int64_contents.len()),
        ("uint_contents", contents.uint_contents.len()),
        ("uint64_contents", contents.uint64_contents.len()),
        ("fp32_contents", contents.fp32_contents.len()),
        ("fp64_contents", contents.fp64_contents.len()),
        ("bytes_contents", contents.bytes_contents.len()),
    ];
    let own = field(datatype);
    if let Some((got, _)) = filled.into_iter().find(|(field, length)| *length > 0 && Some(*field) != own) {
        return Err(tensor.wrong_field(own, got));
    }
    let expected = element_count(shape).ok_or_else(|| tensor.invalid_shape(shape))?;
    let got = filled.into_iter().find(|(field, _)| Some(*field) == own).map_or(0, |(_, length)| length);
    if got != expected {
        return Err(tensor.wrong_count(expected, got));
    }
    match datatype {
        Datatype::Bool => Ok(contents.bool_contents.into_iter().map(u8::from).collect()),
        Datatype::Int8 => tensor.narrow::<_, i8>(contents.int_contents),
        Datatype::Int16 => tensor.narrow::<_, i16>(contents.int_contents),
        Datatype::Int32 => Ok(values_to_bytes(contents.int_contents)),
        Datatype::Int64 => Ok(values_to_bytes(contents.int64_contents)),
        Datatype::Uint8 => tensor.narrow::<_, u8>(contents.uint_contents),
        Datatype::Uint16 => tensor.narrow::<_, u16>(contents.uint_contents),
        Datatype::Uint32 => Ok(values_to_bytes(contents.uint_contents)),
        Datatype::Uint64 => Ok(values_to_bytes(contents.uint64_contents)),
        Datatype::Fp32 => Ok(values_to_bytes(contents.fp32_contents)),
        Datatype::Fp64 => Ok(values_to_bytes(contents.fp64_contents)),
        Datatype::Bytes => Ok(join(&contents.bytes_contents)),
        Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp8E4m3 | Datatype::Fp8E5m2 | Datatype::Int4 | Datatype::Uint4 => Ok(Bytes::new()),
    }
}

fn join(elements: &[Bytes]) -> Bytes {
    let mut bytes = Vec::with_capacity(elements.iter().map(|element| element.len() + 4).sum());
    elements.iter().for_each(|element| push_bytes_element(&mut bytes, element));
    bytes.into()
}

struct Place<'a> {
    kind: &'a str,
    name: &'a str,
    datatype: Datatype,
}

impl Place<'_> {
    fn narrow<W: Copy + Into<i64>, T: TryFrom<W> + bytemuck::NoUninit + Send>(&self, values: Vec<W>) -> Result<Bytes> {
        let fit = |(index, value): (usize, W)| T::try_from(value).map_err(|_| self.out_of_range(index, value.into()));
        values.into_iter().enumerate().map(fit).collect::<Result<Vec<T>>>().map(values_to_bytes)
    }

    #[cold]
    fn error(&self, reason: Reason, what: &str) -> NnrpError {
        let name = excerpt(self.name);
        NnrpError::new(reason, format!("{} '{name}': {what}", self.kind)).with(self.kind, name)
    }

    #[cold]
    fn wrong_field(&self, expected: Option<&str>, got: &str) -> NnrpError {
        let expected = expected.unwrap_or("raw contents");
        self.error(Reason::Malformed, &format!("expected {} in {expected}, got {got}", self.datatype.name())).with("expected", expected).with("got", got)
    }

    #[cold]
    fn invalid_shape(&self, shape: &[i64]) -> NnrpError {
        let expected = expected_shape(shape);
        self.error(Reason::InvalidShape, &format!("expected {expected}, got shape {shape:?}")).with("expected", expected).with("got", shape)
    }

    #[cold]
    fn wrong_count(&self, expected: usize, got: usize) -> NnrpError {
        self.error(Reason::ByteSizeMismatch, &format!("expected {expected} elements, got {got}")).with("expected", expected).with("got", got)
    }

    #[cold]
    fn out_of_range(&self, index: usize, got: i64) -> NnrpError {
        let name = self.datatype.name();
        self.error(Reason::ValueOutOfRange, &format!("element {index}: expected {name}, got {got}"))
            .with("index", index)
            .with("datatype", name)
            .with("got", got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_agree_with_the_table() {
        let table: toml::Table = include_str!("../../../../spec/datatypes.toml").parse().unwrap();
        for datatype in Datatype::ALL {
            assert_eq!(table[datatype.name()].get("contents").and_then(toml::Value::as_str), field(*datatype), "{}", datatype.name());
        }
    }
}
