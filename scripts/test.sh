#!/bin/bash
# Installs what is missing, builds everything, and runs every test there is:
# sudo scripts/test.sh [FILTER...]
#
# What is given is passed on to the test runner: cargo-nextest if it is there, else cargo test. Its
# closing lines are the last ones. The end-to-end tests build namespaces of their own; nothing
# outside of them is touched, and nothing is left behind.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/cargo-env.sh
source scripts/cargo-env.sh

usage() {
    cat <<'TEXT'
usage: test.sh [FILTER...]

FILTER   tests to run, passed on to the test runner: part of a name or, with cargo-nextest, also -E 'EXPRESSION'

Without root: REPLAY_SKIP_ROOT=1 scripts/test.sh leaves out, loudly, what needs namespaces.
TEXT
}

die() {
    echo "test.sh: $*" >&2
    exit 1
}

case ${1:-} in
    -h | --help)
        usage
        exit 0
        ;;
esac

if [[ $(id -u) == 0 ]]; then
    scripts/setup.sh --lab
elif [[ ${REPLAY_SKIP_ROOT:-} == 1 ]]; then
    scripts/setup.sh --check
else
    die "the end-to-end tests need root: sudo scripts/test.sh (or REPLAY_SKIP_ROOT=1 scripts/test.sh, which leaves them out)"
fi

cargo_env_setup "$PWD"
trap cargo_env_give_back EXIT
# A signal ends the script by exit, so that the line above is run.
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The dev profile, for tests and binaries alike: overflow checks and debug assertions are on in what
# the end-to-end tests start, and everything is compiled once. No input is waited for.
exec </dev/null
# A binary from elsewhere would be tested instead of what is built here.
unset REPLAY_BIN_DIR
echo "== build"
cargo build --workspace --all-targets --locked
if (($# == 0)); then
    echo "== documentation tests"
    cargo test --workspace --locked --doc --quiet
fi
if (($# == 0)) && [[ $(id -u) == 0 ]]; then
    # The tests would do it themselves; here its time is not theirs, and what is missing is seen.
    echo "== virtual machine"
    scripts/vm-lab.sh || echo "== virtual machine: its tests are skipped, see above"
fi
echo "== tests"
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --locked --no-fail-fast "$@"
else
    # One thread: labs must not share the cores, and all DPDK tests of one file share an EAL.
    cargo test --workspace --locked --no-fail-fast --lib --bins --tests -- --test-threads=1 "$@"
fi
