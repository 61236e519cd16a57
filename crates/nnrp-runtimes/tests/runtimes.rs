//! The runtimes through their real libraries, with real small models.
#![allow(clippy::float_cmp, reason = "the models are exact")]
#[allow(dead_code, reason = "each test program uses its part")]
mod common;
mod onnxruntime;
mod openvino;
#[cfg(target_os = "linux")]
mod plugin;
