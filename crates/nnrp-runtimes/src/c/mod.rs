//! What crosses `spec/nnrp.h` in both directions: applications call nnrp-capi through it, and plug-ins are called through it.
pub mod abi;
pub mod clock;
pub mod dlpack;
pub mod memory;
