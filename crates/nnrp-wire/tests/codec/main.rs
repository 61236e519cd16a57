//! What the codecs promise (spec §4.3, §4.4, §5.2).
mod proto;
mod rest_claims;
mod rest_golden;
mod rest_properties;
mod vectors;
