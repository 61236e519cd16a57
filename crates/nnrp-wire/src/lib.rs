//! The talking part of NNRP: codecs, the REST and gRPC servers, and a client for each.
//!
//! Every form decodes into [`nnrp_core::Request`], calls the one engine, and encodes its answer or its error.
#![forbid(unsafe_code)]

mod buffer;
mod client;
pub mod codec;
mod frame;
mod grpc;
mod io;
mod listen;
mod request;
mod rest;
mod server;
mod settings;
mod shared;
mod unread;

pub use client::{Client, Pending, Question, Told};
pub use server::Server;
pub use settings::ServerSettings;
