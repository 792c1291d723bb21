//! What proves the appliance: ports in plain memory for unit tests and benches, and a lab of
//! network namespaces with real servers, a mirror port and recorders for end-to-end tests.
//!
//! Nothing here is part of the product; the product's crates use it as a development dependency
//! only, without its `lab` feature.
#![forbid(unsafe_code)]

#[cfg(feature = "lab")]
pub mod answer;
#[cfg(feature = "lab")]
pub mod lab;
#[cfg(feature = "lab")]
pub mod load;
pub mod memory;
#[cfg(feature = "lab")]
pub mod record;
pub mod rng;
