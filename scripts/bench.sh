#!/bin/bash
# Measures what the engine costs, against references in the same run: CPU a packet at 10 k to 10 M
# sessions, memory of an idle session, allocations on the packet path (there must be none), and
# DPDK's software drivers beside testpmd.
#
# No root, no hugepages and no network are needed. Absolute figures swing with what else the machine
# does; compare the ratios, which are of measurements next to one another, and mind the spread
# beside them.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: bench.sh [--quick] [--json FILE]

--quick      less of everything: under a minute
--json FILE  where the results go (default: bench.json)

Exit code 0: measured, nothing allocated on the packet path; 1: a measurement failed or something allocated; 2: wrong usage.
TEXT
}

quick=()
json=bench.json
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=(--quick) ;;
    --json)
        [ $# -ge 2 ] || { echo "bench.sh: --json needs a file; see bench.sh --help" >&2; exit 2; }
        json=$2
        shift
        ;;
    -h | --help) usage; exit 0 ;;
    *) echo "bench.sh: unknown argument $1; see bench.sh --help" >&2; exit 2 ;;
    esac
    shift
done
json=$(realpath -m -- "$json")

cd "$(dirname "$0")/.."
echo "building" >&2
cargo build --release --quiet -p bench
program=${CARGO_TARGET_DIR:-target}/release/bench

# DPDK keeps a runtime folder even where it shares nothing; root has /var/run for that, others need
# a folder of their own.
if [ "$(id -u)" -ne 0 ] && [ ! -w "${XDG_RUNTIME_DIR:-/nonexistent}" ]; then
    XDG_RUNTIME_DIR=$(mktemp -d)
    export XDG_RUNTIME_DIR
    trap 'rm -rf -- "$XDG_RUNTIME_DIR"' EXIT
fi

# Every measurement has its own limit; this one is for all of them together.
status=0
timeout --kill-after=10 600 "$program" all "${quick[@]}" --json "$json" || status=$?
if [ "$status" -eq 124 ]; then
    echo "bench.sh: ended after ten minutes, which is more than it should ever take" >&2
fi
[ "$status" -eq 0 ] || exit 1
