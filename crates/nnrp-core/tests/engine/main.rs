//! The engine's promises (spec §7), on a real session that computes y = 2x + 1.
mod models;
mod overrides;
mod stopping;
mod streaming;
mod threads;
mod tiny;
mod turns;
