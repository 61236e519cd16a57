//! The REST form's messages: JSON, and JSON followed by binary tensors (spec §4.3, §4.4).
mod failure;
mod request;
mod response;
mod tensor;

pub use failure::{decode_error, encode_error};
pub use request::{decode_raw_request, decode_request, encode_request};
pub use response::{decode_response, encode_response};

use bytes::Bytes;
use smallvec::SmallVec;

/// Most inputs, and most outputs, of one message.
pub const TENSOR_LIMIT: usize = 1_024;

/// How the answer's outputs are wanted, as JSON or as binary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    default: bool,
    /// For each output that was asked for by name, in that order.
    each: SmallVec<[Option<bool>; 4]>,
}

impl Wanted {
    /// All outputs in one form.
    pub fn all(binary: bool) -> Self {
        Wanted { default: binary, each: SmallVec::new() }
    }

    /// Whether the answer's output of that index goes as binary.
    pub fn binary(&self, index: usize) -> bool {
        self.each.get(index).copied().flatten().unwrap_or(self.default)
    }
}

/// A message ready to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The JSON.
    pub json: Bytes,
    /// What follows it, in order. Empty: a plain JSON message; else `Inference-Header-Content-Length` is the length of `json`.
    pub tensors: SmallVec<[Bytes; 2]>,
}
