//! OpenVINO through its real library, with real small models in each format that it reads.
mod loading;
mod refusing;
mod room;
mod running;
mod stopping;

use crate::common::{file, model, openvino, spec};
use nnrp_core::{ModelSpec, Precision, Result, Runtime, Session};
use serde_json::{Value, json};

fn load_with(name: &str, options: Value) -> Result<Box<dyn Session>> {
    openvino().load(&spec(&model(name), options))
}

fn load_as(name: &str, device: &str, precision: Precision) -> Result<Box<dyn Session>> {
    openvino().load(&ModelSpec { device: device.to_owned(), precision, ..spec(&model(name), json!({})) })
}

fn load(name: &str) -> Box<dyn Session> {
    load_with(name, json!({})).expect("the model loads")
}

fn load_file(name: &str) -> Box<dyn Session> {
    openvino().load(&spec(&file(name), json!({}))).expect("the model loads")
}
