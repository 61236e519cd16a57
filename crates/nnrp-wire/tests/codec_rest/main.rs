//! What the REST codec promises (spec §4.3, §4.4, §5.2).
mod claims;
mod golden;
mod properties;
mod vectors;
