//! A start that fails says why. A process of its own.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod common;

use dpdk::{Eal, EalOptions, Error, Hugepages, Memory};

#[test]
fn a_failed_start_says_what_was_wrong() {
    // Checked before anything is started, so none of these counts as a start.
    let far = EalOptions {
        workers: vec![4096],
        ..common::options()
    };
    assert!(matches!(far.start(), Err(Error::Cpu { cpu: 4096, .. })));
    let many = EalOptions {
        workers: vec![0; 100_000],
        ..common::options()
    };
    assert!(matches!(
        many.start(),
        Err(Error::TooManyWorkers { asked: 100_000, .. })
    ));
    let absent = EalOptions {
        nics: vec!["fffe:1f:1e.7".into()],
        ..common::options()
    };
    let e = absent.start().unwrap_err().to_string();
    assert!(
        e.starts_with("NIC fffe:1f:1e.7: there is no PCI device"),
        "{e}"
    );
    if Hugepages::of_machine().free == 0 {
        let e = EalOptions {
            memory: Memory::Hugepages,
            ..common::options()
        }
        .start()
        .unwrap_err()
        .to_string();
        assert!(
            e.starts_with("no free hugepages") && e.contains("scripts/hugepages.sh"),
            "{e}"
        );
    }

    let wrong = EalOptions {
        extra: vec!["--no-such-option".into()],
        ..common::options()
    };
    let e = wrong.start().unwrap_err();
    assert!(matches!(e, Error::Eal { .. }));
    assert!(e.to_string().contains("--no-such-option"), "{e}");
    assert!(!e.to_string().ends_with(": "), "{e}");
    // DPDK leaves a failed start half done.
    assert_eq!(
        Eal::init(&common::options().args()).unwrap_err(),
        Error::AlreadyStarted
    );
}
