//! LiteRT, through the C library inside its Python wheel: models whose shapes are fixed. All others, and the decision, are Python's.
mod compiled;
mod instance;
mod library;
mod signature;
mod table;

pub use compiled::{Compiled, Example};

const NAME: &str = "litert";
