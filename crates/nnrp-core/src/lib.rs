//! The thinking part of NNRP: what a tensor, a request, an error, a model is, and how a request goes down the corridor.
//!
//! No sockets, no Python, no unsafe. Doors, in the order a request takes them: [`Engine::infer`] → [`route`] → [`schedule`] →
//! [`Session::run`].
#![forbid(unsafe_code)]

mod adapt;
pub mod choose;
pub mod clock;
pub mod condvar;
mod convert;
pub mod engine;
pub mod error;
pub mod message;
pub mod metrics;
pub mod model;
pub mod overrides;
pub mod parameters;
pub mod plain;
pub mod route;
pub mod runtime;
pub mod schedule;
pub mod stop;
mod symbols;
pub mod tensor;
mod ticket;
mod told;
mod validate;
mod watch;

pub use choose::NotTaken;
pub use engine::{Answer, Answers, Engine, Settings, SharedAnswers};
pub use error::{Code, NnrpError, Reason, Result};
pub use message::{Input, Inputs, Names, Output, Parameter, Parameters, Request, Response};
pub use model::{Isolation, Loaded, ModelSpec, Precision, Preference, Signature, Symbols, TensorSpec};
pub use overrides::{Overrides, Range};
pub use runtime::{Concurrency, Control, Isolate, Outputs, Runtime, RuntimeInfo, Session, SessionInfo, Sink, Threads, Verb};
pub use stop::{Cause, Stop};
pub use tensor::{AlignedBuf, Data, Datatype, Shape, Tensor};
pub use validate::{check_output, wrong_output};
