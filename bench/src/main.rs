//! What the engine costs: packets a second, memory a session, allocations a packet, and how that compares with what is possible on the
//! same machine in the same minutes.

#![forbid(unsafe_code)]

mod frames;
mod measure;
mod memory;
mod target;
mod traffic;

fn main() {
    for kind in [memory::Kind::Long, memory::Kind::Short] {
        for sessions in [10_000, 100_000, 1_000_000] {
            let t = std::time::Instant::now();
            match memory::run(kind, memory::Size { sessions, frames: 600_000, windows: 5 }) {
                Ok(o) => println!("{kind:?} {sessions} net {:.1} floor {:.1} {:.2}s {}", o.net(), o.net_floor(), t.elapsed().as_secs_f64(), serde_json::to_string(&o).unwrap_or_default()),
                Err(e) => println!("{kind:?} {sessions}: {e:#}"),
            }
        }
    }
}
