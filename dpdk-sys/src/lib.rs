//! Raw bindings to the system's libdpdk.
//!
//! Two sources make up this crate. `bindgen` reads a narrow list of functions, types and constants
//! out of the installed headers, so the bindings always have the layout of the library that is
//! linked. `shim.c` exports what headers only offer inline or as macros. `struct rte_mbuf` is
//! opaque here: its anonymous unions are named differently by every release, so its fields are
//! reached through the `SHIM_MBUF_*` offsets, which the compiler of the shim works out.
//!
//! Everything is `unsafe` and says nothing about ownership. The `dpdk` crate is the one user.

#[allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unsafe_op_in_unsafe_fn,
    unused,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub use bindings::*;

/// Version of the DPDK that this was built against, as pkg-config gives it, for example `22.11.11`.
pub const VERSION: &str = env!("DPDK_VERSION");
