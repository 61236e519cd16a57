//! ONNX Runtime through its real library, with real small models.
#![allow(clippy::float_cmp, reason = "the models are exact")]
mod common;
mod inspecting;
mod loading;
mod refusing;
mod running;
mod stopping;
