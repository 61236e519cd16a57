//! ONNX Runtime through its real library, with real small models.
mod files;
mod inspecting;
mod loading;
mod refusing;
mod room;
mod running;
mod stopping;

use crate::common::{model, onnxruntime, spec};
use nnrp_core::{Result, Runtime, Session};
use serde_json::{Value, json};

fn load_with(name: &str, options: Value) -> Result<Box<dyn Session>> {
    onnxruntime().load(&spec(&model(name), options))
}

fn load(name: &str) -> Box<dyn Session> {
    load_with(name, json!({})).expect("the model loads")
}
