use super::*;

pub(super) fn sources(workers: &[Snapshot], clock_error_us: Option<u64>) -> Sources<'_> {
    let links = clock_error_us.map(|error| {
        vec![LinkStats {
            address: ([127, 0, 0, 1], 1).into(),
            up: true,
            reconnects: 0,
            records: 0,
            records_dropped: 0,
            server_dropped: 0,
            answers_missed: Some(0),
            bytes: 0,
            claims: 0,
            refusals: 0,
            round_trip_ns: None,
            clock_error_us: Some(error),
            resolution_us: Some(1),
            last_error: None,
        }]
    });
    Sources {
        workers,
        cpus: &[0],
        mirrors: Vec::new(),
        capture: None,
        missed: Vec::new(),
        unseen: Unseen::default(),
        spread: "alone",
        links_up: &[],
        clocks: Vec::new(),
        replay: vec![(String::new(), PortStats::default())],
        answers_missed: Some(0),
        targets: &[],
        links,
        copies: 1,
        mbufs: [(0, 0); 2],
        elapsed: Duration::ZERO,
        is_final: true,
        failed_writes: 0,
    }
}

#[test]
fn a_clock_that_is_not_known_well_enough_is_told() {
    let mut worker = Snapshot::default();
    assert_eq!(clock_doubt(&sources(&[worker.clone()], Some(1_000))), None);
    for _ in 0..9 {
        worker.core.target_latency.record(1_000_000);
    }
    let workers = [worker];
    assert_eq!(clock_doubt(&sources(&workers, None)), None, "embedded");
    assert_eq!(clock_doubt(&sources(&workers, Some(400))), None);
    let doubt = clock_doubt(&sources(&workers, Some(600))).unwrap();
    assert!(doubt.contains("600 us"), "{doubt}");
    let links = &json(&sources(&workers, Some(600)))["intercept"]["links"];
    assert_eq!(links[0]["clock_error_us"], 600);
}
