//! A request and its answer, the same whichever form they came in (spec §4).
use crate::model::Name;
use crate::stop::Stop;
use crate::tensor::Tensor;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

/// A value of a request parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number too large for `Int`.
    Uint(u64),
    /// A number with a fraction.
    Double(f64),
    /// Text.
    String(String),
}

/// Request parameters, in the order they came.
pub type Parameters = Vec<(String, Parameter)>;

/// A named tensor.
#[derive(Clone, Debug)]
pub struct Input<'n, 'd> {
    /// The input's name.
    pub name: Cow<'n, str>,
    /// Its elements.
    pub tensor: Tensor<'d>,
}

/// The inputs of a request; one is usual and costs no allocation.
pub type Inputs<'n, 'd> = SmallVec<[Input<'n, 'd>; 1]>;

/// Names of outputs, likewise.
pub type Names<'n> = SmallVec<[Cow<'n, str>; 1]>;

/// One inference request. `'n` is how long the names live, `'d` the bytes of the tensors.
#[derive(Clone, Default)]
pub struct Request<'n, 'd> {
    /// The model's name.
    pub model: Cow<'n, str>,
    /// The version; empty means the latest.
    pub version: Cow<'n, str>,
    /// Echoed in the answer.
    pub id: Option<Box<str>>,
    /// What the form does not take for itself; the engine takes what the protocol gives a meaning.
    pub parameters: Parameters,
    /// When it began to come, which the parameter `timeout` counts from; `None`: when the engine takes it.
    pub received: Option<Instant>,
    /// The inputs, in any order.
    pub inputs: Inputs<'n, 'd>,
    /// Names of the outputs wanted, in the order wanted; empty means all.
    pub outputs: Names<'n>,
    /// The instant after which nobody wants the answer.
    pub deadline: Option<Instant>,
    /// Lets a blocking caller stop its request from another thread.
    pub stop: Option<Arc<Stop>>,
}

/// A named output.
#[derive(Clone, Debug)]
pub struct Output {
    /// The output's name.
    pub name: Name,
    /// Its elements.
    pub tensor: Tensor<'static>,
}

/// The answer to one request.
#[derive(Clone, Debug)]
pub struct Response {
    /// The model that answered.
    pub model: Name,
    /// The version that answered.
    pub version: Name,
    /// The request's id.
    pub id: Option<Box<str>>,
    /// The outputs, in the order asked for or the signature's.
    pub outputs: SmallVec<[Output; 1]>,
}
