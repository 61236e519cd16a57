//! Counts what a protobuf message would unfold to, before anything is allocated for it.
//!
//! Two bytes are an empty input, which takes a hundred times as much once decoded: a bound on the message alone does not bound the memory.
use super::parameters::check_count;
use nnrp_core::{NnrpError, Reason, Result};
use prost::DecodeError;
use prost::bytes::Bytes;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Most inputs, outputs or raw contents of one message.
const TENSOR_LIMIT: usize = 1_024;

/// Most dimensions of one tensor.
const RANK_LIMIT: usize = 64;

/// The error of bytes that are not the message they should be.
#[cold]
pub(crate) fn malformed(error: DecodeError) -> NnrpError {
    NnrpError::new(Reason::Malformed, format!("message: {error}"))
}

/// Checks the bytes of a ModelInferRequest. One that names its model twice would be gathered for the first and be asked of the last (spec §4.5).
pub(super) fn check_request(message: &[u8], limit: usize) -> Result<()> {
    let mut bounds = Bounds { limit, parameters: 0, unfolded: 0, tensors: [0; 3] };
    let mut named = [false; 2];
    each_field(message, |tag, field| match tag {
        1 | 2 if std::mem::replace(&mut named[tag as usize - 1], true) => {
            Err(NnrpError::new(Reason::Malformed, "message: expected one model name and one version at most, got more"))
        }
        4 => bounds.parameter(),
        5 => bounds.tensor(tag, field),
        6 => {
            bounds.count(tag)?;
            each_field(field.content, |tag, _| if tag == 2 { bounds.parameter() } else { Ok(()) })
        }
        7 => bounds.count(tag),
        _ => Ok(()),
    })
}

/// Checks the bytes of a ModelInferResponse.
pub(super) fn check_response(message: &[u8], limit: usize) -> Result<()> {
    let mut bounds = Bounds { limit, parameters: 0, unfolded: 0, tensors: [0; 3] };
    each_field(message, |tag, field| match tag {
        4 => bounds.parameter(),
        5 => bounds.tensor(tag, field),
        6 => bounds.count(tag),
        _ => Ok(()),
    })
}

/// Checks the bytes of a ModelStreamInferResponse. Of its answer, which is one field, more than one would unfold to more than one.
pub(super) fn check_stream_response(message: &[u8], limit: usize) -> Result<()> {
    let mut answers = 0;
    each_field(message, |tag, field| {
        answers += usize::from(tag == 2);
        match tag {
            2 if answers > 1 => Err(NnrpError::new(Reason::Malformed, "message: expected one answer, got more")),
            2 => check_response(field.content, limit),
            _ => Ok(()),
        }
    })
}

/// One field as it stands on the wire.
struct Field<'a> {
    wire_type: WireType,
    /// Of a length-delimited field; empty for the others.
    content: &'a [u8],
}

impl Field<'_> {
    /// How many varints there are, packed or one alone.
    fn varints(&self) -> usize {
        match self.wire_type {
            WireType::LengthDelimited => self.content.iter().filter(|byte| **byte < 0x80).count(),
            _ => 1,
        }
    }

    /// How many bytes of fixed-width elements there are, packed or one alone.
    fn fixed(&self) -> usize {
        match self.wire_type {
            WireType::LengthDelimited => self.content.len(),
            _ => 8,
        }
    }
}

fn each_field<'a>(mut rest: &'a [u8], mut visit: impl FnMut(u32, Field<'a>) -> Result<()>) -> Result<()> {
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest).map_err(malformed)?;
        let mut content: &[u8] = &[];
        if wire_type == WireType::LengthDelimited {
            let length = decode_varint(&mut rest).map_err(malformed)?;
            (content, rest) = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length)).ok_or_else(|| too_long(length, rest.len()))?;
        } else {
            skip_field(wire_type, tag, &mut rest, DecodeContext::default()).map_err(malformed)?;
        }
        visit(tag, Field { wire_type, content })?;
    }
    Ok(())
}

#[cold]
fn too_long(expected: u64, got: usize) -> NnrpError {
    let message = format!("message: a field of {expected} bytes runs past the end, {got} bytes are left");
    NnrpError::new(Reason::Malformed, message).with("expected", expected).with("got", got)
}

struct Bounds {
    limit: usize,
    parameters: usize,
    /// Bytes that typed contents take once decoded.
    unfolded: usize,
    /// Fields 5, 6 and 7.
    tensors: [usize; 3],
}

impl Bounds {
    fn parameter(&mut self) -> Result<()> {
        self.parameters += 1;
        check_count(self.parameters)
    }

    fn count(&mut self, tag: u32) -> Result<()> {
        let count = &mut self.tensors[tag as usize - 5];
        *count += 1;
        if *count <= TENSOR_LIMIT {
            return Ok(());
        }
        let message = format!("message: expected {TENSOR_LIMIT} inputs, outputs or raw contents at most, got more");
        Err(NnrpError::new(Reason::Malformed, message).with("expected", TENSOR_LIMIT))
    }

    fn tensor(&mut self, tag: u32, field: Field<'_>) -> Result<()> {
        self.count(tag)?;
        let mut rank = 0;
        each_field(field.content, |tag, field| {
            match tag {
                3 => rank += field.varints(),
                4 => self.parameter()?,
                5 => each_field(field.content, |tag, field| self.contents(tag, &field))?,
                _ => {}
            }
            if rank > RANK_LIMIT {
                return Err(NnrpError::new(Reason::InvalidShape, format!("message: expected {RANK_LIMIT} dimensions at most, got {rank}")));
            }
            Ok(())
        })
    }

    fn contents(&mut self, tag: u32, field: &Field<'_>) -> Result<()> {
        self.unfolded += match tag {
            1 => field.varints(),
            2 | 4 => field.varints() * 4,
            3 | 5 => field.varints() * 8,
            6 | 7 => field.fixed(),
            8 => size_of::<Bytes>(),
            _ => 0,
        };
        if self.unfolded <= self.limit {
            return Ok(());
        }
        let message = format!("message: typed contents take more than {} bytes once decoded; raw contents do not grow", self.limit);
        Err(NnrpError::new(Reason::BodyTooLarge, message).with("limit", self.limit))
    }
}
