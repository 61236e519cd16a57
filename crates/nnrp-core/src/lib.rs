//! The thinking part of NNRP: what a tensor, a request, an error, a model is, and how a request goes down the corridor.
//!
//! No sockets, no Python, no unsafe. Doors, in the order a request takes them: [`Engine::infer`] → [`route`] → [`schedule`] →
//! [`Session::run`].
#![forbid(unsafe_code)]

pub mod clock;
pub mod engine;
pub mod error;
pub mod message;
pub mod metrics;
pub mod model;
pub mod route;
pub mod runtime;
pub mod schedule;
pub mod stop;
pub mod tensor;
mod validate;

pub use engine::{Answer, Engine, Settings};
pub use error::{Code, NnrpError, Reason, Result};
pub use message::{Input, Inputs, Names, Output, Parameter, Parameters, Request, Response};
pub use model::{Loaded, ModelSpec, Signature, TensorSpec};
pub use runtime::{Concurrency, Control, Outputs, Runtime, RuntimeInfo, Session, SessionInfo};
pub use stop::{Cause, Stop};
pub use tensor::{AlignedBuf, Data, Datatype, Shape, Tensor};
