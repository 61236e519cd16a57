//! The server and the clients over real sockets, both forms.
mod grpc_attacks;
mod grpc_calls;
mod grpc_client;
mod grpc_endings;
mod grpc_stream_client;
mod grpc_streams;
mod grpc_support;
mod idle;
mod rest_client;
mod rest_framing;
mod rest_infer;
mod rest_paths;
mod rest_server;
mod support;
mod unread;
#[path = "../codec/vectors.rs"]
mod vectors;
