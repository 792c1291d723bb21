#!/bin/bash
# Shows the appliance at work on this machine alone: a lab of network namespaces with nginx in
# production, nginx as the target, wrk as the clients and the engine between them. Prints what each
# of them has counted; the exit code is not 0 if they disagree.
#
# Installs what is missing and builds a release first. The lab is removed afterwards, whatever
# happens, and no interface of the machine is touched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/cargo-env.sh
source scripts/cargo-env.sh

usage() {
    cat <<'TEXT'
usage: demo.sh [--seconds N]

--seconds N   how long the clients ask, 1 to 3600; 12 unless given
TEXT
}

case ${1:-} in
    -h | --help)
        usage
        exit 0
        ;;
esac

if [[ $(id -u) != 0 ]]; then
    echo "demo.sh: the lab makes network namespaces and needs root: sudo scripts/demo.sh" >&2
    exit 1
fi

scripts/setup.sh --lab
cargo_env_setup "$PWD"
trap cargo_env_give_back EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# What was built elsewhere would be shown instead of this.
unset REPLAY_BIN_DIR
echo "building a release (a few minutes the first time)"
cargo build --release --locked --quiet -p engine -p intercept -p tests --bins
"${CARGO_TARGET_DIR:-target}/release/lab" demo "$@"
