//! The talking part of NNRP: codecs, the REST and gRPC servers, and a client for each.
//!
//! Every form decodes into [`nnrp_core::Request`], calls the one engine, and encodes its answer or its error.
#![forbid(unsafe_code)]

mod buffer;
pub mod client;
pub mod codec;
pub mod grpc;
mod io;
mod listen;
mod request;
mod rest;
pub mod server;

pub use client::{Client, Pending};
pub use server::{Server, ServerSettings};
