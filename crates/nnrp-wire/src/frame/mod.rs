//! Messages as they travel, the same from both ends: bodies of HTTP/1.1, messages of gRPC, and what both compress.
pub(crate) mod body;
pub(crate) mod grpc;
pub(crate) mod messages;
mod packing;
pub(crate) mod pieces;
pub(crate) mod status;
pub(crate) mod streamed;
pub(crate) mod timeout;

use nnrp_core::{NnrpError, Reason};

/// `what` is more than `limit` bytes; how many, as far as that is known.
#[cold]
fn too_large(what: &str, limit: usize, got: Option<u64>) -> NnrpError {
    let told = got.map_or_else(|| "more".to_owned(), |got| got.to_string());
    let error = NnrpError::new(Reason::BodyTooLarge, format!("{what}: expected at most {limit} bytes, got {told}")).with("limit", limit);
    match got {
        Some(got) => error.with("got", got),
        None => error,
    }
}
