//! Between the bytes of a form and the engine's messages; no sockets, and nothing in a message is trusted.
//!
//! Decoders check what is needed to build a [`nnrp_core::Request`]; whether it fits the model is the engine's to say.
mod data;
mod elements;
mod json;
mod parameters;
pub mod proto;
mod proto_bounds;
mod proto_contents;
pub mod rest;
mod write;

pub use elements::check_elements;

/// The reason of an error whose server gave none.
pub(crate) const UNSPECIFIED: &str = "UNSPECIFIED";
