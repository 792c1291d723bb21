//! Offline replay: capture files, played at the pace they were recorded at, at a multiple of that,
//! or as fast as the targets answer.
//!
//! A thread of its own reads ahead ([`Tape`]) and leaves each worker the frames that are its own,
//! each with the time it is due at ([`Player`]). Nothing of a file is ever dropped for lack of
//! speed: where buffers, rings, sessions or addresses run out, reading waits ([`Backpressure`]).

mod backpressure;
mod pipe;
mod player;
mod reader;
mod tape;

pub use backpressure::Backpressure;
pub use player::{Ahead, Due, Played, Player, Ring};
pub use reader::{Make, Owner, Reading, Whose, read_ahead};
pub use tape::{CaptureStats, Tape};
