//! Workers: what runs on them, what they give back, and what moves to them.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod common;

use arrayvec::ArrayVec;
use common::{Loop, eal, flatten, headers, options, pattern};
use dpdk::{DATA_ROOM, Eal, Error, Mempool};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Tests of one process share the two workers.
static WORKERS: Mutex<()> = Mutex::new(());

#[test]
fn the_eal_starts_once() {
    let _ = eal();
    assert_eq!(options().start().unwrap_err(), Error::AlreadyStarted);
    assert_eq!(
        Eal::init(&["x".into(), "a\0".into()]).unwrap_err(),
        Error::Argument("a\0".into())
    );
}

#[test]
fn workers_return_what_their_closures_return() {
    let _guard = WORKERS.lock().unwrap_or_else(PoisonError::into_inner);
    let eal = eal();
    assert_eq!(eal.workers(), 2);
    let handles: Vec<_> = (0..2)
        .map(|i| eal.launch(i, move || format!("worker {i}")).unwrap())
        .collect();
    let results: Vec<_> = handles.into_iter().map(|h| h.join().unwrap()).collect();
    assert_eq!(results, ["worker 0", "worker 1"]);
    // A joined worker takes the next closure at once.
    for round in 0..100 {
        assert_eq!(eal.launch(0, move || round).unwrap().join().unwrap(), round);
    }
}

#[test]
fn a_panic_comes_back_as_an_error() {
    let _guard = WORKERS.lock().unwrap_or_else(PoisonError::into_inner);
    let eal = eal();
    let error = eal
        .launch(1, || -> u32 { panic!("out of {}", "luck") })
        .unwrap()
        .join()
        .unwrap_err();
    assert_eq!(
        error,
        Error::Panicked {
            index: 1,
            message: "out of luck".into()
        }
    );
    assert_eq!(eal.launch(1, || 5).unwrap().join(), Ok(5));
}

#[test]
fn a_busy_worker_and_one_that_does_not_exist_are_refused() {
    let _guard = WORKERS.lock().unwrap_or_else(PoisonError::into_inner);
    let eal = eal();
    assert_eq!(
        eal.launch(2, || ()).err(),
        Some(Error::NoWorker {
            index: 2,
            workers: 2
        })
    );
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let running = eal
        .launch(0, move || {
            while !seen.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
        })
        .unwrap();
    let token = Arc::new(());
    let held = Arc::clone(&token);
    assert_eq!(
        eal.launch(0, move || drop(held)).err(),
        Some(Error::Busy(0))
    );
    assert_eq!(Arc::strong_count(&token), 1, "a refused closure is dropped");
    assert!(!running.is_finished());
    stop.store(true, Ordering::Release);
    running.join().unwrap();
}

#[test]
fn queues_move_to_workers_and_frames_cross_between_them() {
    let _guard = WORKERS.lock().unwrap_or_else(PoisonError::into_inner);
    let eal = eal();
    let Loop {
        mut rx,
        mut tx,
        port,
        packets,
        headers: small,
    } = Loop::new();
    const FRAMES: u32 = 20_000;
    let sender = eal
        .launch(0, move || {
            let mut sent = 0u32;
            while sent < FRAMES {
                let mut h = headers(0);
                h[50..54].copy_from_slice(&sent.to_be_bytes());
                match tx.send(&h, None) {
                    Ok(()) => sent += 1,
                    Err(_) => std::thread::yield_now(),
                }
            }
            while tx.pending() > 0 {
                tx.flush();
                std::thread::yield_now();
            }
            tx.counters()
        })
        .unwrap();
    let receiver = eal
        .launch(1, move || {
            let mut next = 0u32;
            while next < FRAMES {
                let mut burst = ArrayVec::new();
                if rx.rx_burst(&mut burst) == 0 {
                    std::thread::yield_now();
                }
                for m in burst {
                    assert_eq!(m.bytes()[50..54], next.to_be_bytes());
                    next += 1;
                }
            }
            next
        })
        .unwrap();
    assert_eq!(sender.join().unwrap().frames, u64::from(FRAMES));
    assert_eq!(receiver.join().unwrap(), FRAMES);
    drop(port);
    assert_eq!((packets.in_use(), small.in_use()), (0, 0));
}

/// One worker sends the same payload again and again, the other frees the frames: headers must
/// never be written into a buffer that is still being read.
#[test]
fn headers_are_only_written_to_buffers_that_nobody_reads() {
    let _guard = WORKERS.lock().unwrap_or_else(PoisonError::into_inner);
    let eal = eal();
    let l = Loop::new();
    const FRAMES: u32 = 20_000;
    let data = pattern(600, 1);
    let mut payload = l.frame(&data).into_payload(0..600);
    let expected = data.clone();
    let Loop {
        mut rx,
        mut tx,
        port,
        packets,
        headers: small,
    } = l;
    let sender = eal
        .launch(0, move || {
            let mut sent = 0u32;
            while sent < FRAMES {
                let mut h = headers(0);
                h[50..54].copy_from_slice(&sent.to_be_bytes());
                h[20..24].copy_from_slice(&(!sent).to_be_bytes());
                match tx.send(&h, Some((&mut payload, 0..600))) {
                    Ok(()) => sent += 1,
                    Err(_) => std::thread::yield_now(),
                }
                // Now and then the receiver is let catch up, so that the buffer is free again.
                if sent.is_multiple_of(8) {
                    tx.flush();
                    std::thread::yield_now();
                }
            }
            while tx.pending() > 0 {
                tx.flush();
                std::thread::yield_now();
            }
            tx.counters()
        })
        .unwrap();
    let receiver = eal
        .launch(1, move || {
            let mut next = 0u32;
            while next < FRAMES {
                let mut burst = ArrayVec::new();
                if rx.rx_burst(&mut burst) == 0 {
                    std::thread::yield_now();
                }
                for m in burst {
                    assert_eq!(m.bytes()[50..54], next.to_be_bytes());
                    assert_eq!(m.bytes()[20..24], (!next).to_be_bytes());
                    assert!(flatten(m)[54..] == expected);
                    next += 1;
                }
            }
        })
        .unwrap();
    receiver.join().unwrap();
    let c = sender.join().unwrap();
    assert_eq!(c.in_place + c.indirect, u64::from(FRAMES));
    assert!(c.in_place > 0 && c.indirect > 0, "{c:?}");
    drop(port);
    assert_eq!((packets.in_use(), small.in_use()), (0, 0));
}

#[test]
fn a_pool_with_per_worker_caches_is_freed_after_its_workers_are_joined() {
    let _guard = WORKERS.lock().unwrap_or_else(PoisonError::into_inner);
    let eal = eal();
    // Were the pool not freed, the second one of its name could not be made.
    for _ in 0..2 {
        let pool = Mempool::new(&eal, "cached", 1023, DATA_ROOM, 256, None).unwrap();
        let worker = pool.clone();
        let left = eal
            .launch(0, move || {
                let held: Vec<_> = std::iter::from_fn(|| worker.alloc()).take(100).collect();
                held.len()
            })
            .unwrap()
            .join();
        assert_eq!((left, pool.in_use()), (Ok(100), 0));
    }
}

#[test]
fn the_clock_runs_forward_and_at_the_systems_pace() {
    let clock = eal().clock();
    assert!(clock.hz() > 100_000_000);
    let start = std::time::Instant::now();
    let a = clock.now();
    let mut last = a;
    while start.elapsed().as_millis() < 50 {
        let now = clock.now();
        assert!(now >= last);
        last = now;
    }
    // Both readings lie between two of the system's clock, so they cannot be further apart than
    // those, however late the thread ran.
    let real = start.elapsed().as_nanos() as u64;
    assert!(last > a && last - a <= real + real / 100);
}
