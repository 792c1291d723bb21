#!/bin/bash
# Installs what it takes to build and run the replay appliance on Debian 12 (or a derivative with
# DPDK 22.11).
#
# Run it as root; it changes nothing when everything is there. No service that a package brings is
# started: this machine's ports and memory are not ours to take. Rust, which Debian 12 has too old a
# version of, comes from its project, for the user who called sudo.
set -euo pipefail

# Oldest versions that the sources build with.
RUST_MIN=1.88
DPDK_MIN=22.11

BUILD=(build-essential clang dpdk libclang-dev libdpdk-dev pkg-config)
# curl and its certificates fetch Rust.
RUN=(ca-certificates curl iproute2)
LAB=(apache2-utils dpdk-dev ethtool exim4-daemon-light nftables nginx-light redis-server redis-tools tcpdump wireshark-common wrk)

# Where Rust's installer and its checksums are:
# https://rust-lang.github.io/rustup/installation/other.html
RUSTUP=https://static.rust-lang.org/rustup/dist

# Tests put a folder of their own here.
POLICY=${SETUP_POLICY_RC:-/usr/sbin/policy-rc.d}

usage() {
    cat <<'TEXT'
usage: setup.sh [--lab] [--check]

--lab     also what the end-to-end tests and the demo need: real servers, load generators, capture tools
--check   install nothing, say what is missing (exit code 1 if anything is)
TEXT
}

die() {
    echo "setup.sh: $*" >&2
    exit 1
}

# True if the first version is at least the second.
at_least() {
    [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]
}

# Names of the packages that are not installed.
missing_packages() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) == installed ]] || echo "$package"
    done
}

# Installs packages while a policy denies that any service starts. A policy that is there already
# comes back afterwards.
install() {
    local saved=''
    if [[ -e $POLICY || -L $POLICY ]]; then
        saved=$POLICY.before-setup.$$
        mv "$POLICY" "$saved"
    fi
    # shellcheck disable=SC2064 # the names of now are meant
    trap "rm -f '$POLICY'; [[ -z '$saved' ]] || mv '$saved' '$POLICY'" EXIT
    # A signal ends the script by exit, so that the line above is run.
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"

    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q || die "apt-get update failed; check the network and /etc/apt/sources.list"
    apt-get install -q -y --no-install-recommends "$@" ||
        die "apt-get could not install $*; its messages above say why"

    rm -f "$POLICY"
    [[ -z $saved ]] || mv "$saved" "$POLICY"
    trap - EXIT INT TERM HUP
}

# The cargo to build with: on the path, or of the user that called sudo, or root's own.
find_cargo() {
    local home cargo
    if command -v cargo; then
        return
    fi
    for home in "$(getent passwd "${SUDO_USER:-}" 2>/dev/null | cut -d: -f6)" "${HOME:-/root}"; do
        cargo=$home/.cargo/bin/cargo
        if [[ -n $home && -x $cargo ]]; then
            echo "$cargo"
            return
        fi
    done
    return 1
}

# Installs Rust for the user who called sudo, or else for whoever runs this, below their home; no
# file of their shell is changed.
install_rust() {
    local user=${SUDO_USER:-} machine folder
    machine=$(uname -m)-unknown-linux-gnu
    [[ $(id -u) == 0 && -n $user ]] && id "$user" >/dev/null 2>&1 || user=$(id -un)
    folder=$(mktemp -d)
    # shellcheck disable=SC2064 # the name of now is meant
    trap "rm -rf '$folder'" EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    echo "Rust is missing: its stable version is installed for $user"
    if ! curl --proto =https --tlsv1.2 -sSf --retry 3 -o "$folder/rustup-init" "$RUSTUP/$machine/rustup-init" ||
        ! curl --proto =https --tlsv1.2 -sSf --retry 3 -o "$folder/sum" "$RUSTUP/$machine/rustup-init.sha256"; then
        die "Rust's installer for $machine could not be fetched from $RUSTUP; check the network, or install Rust $RUST_MIN or newer by other means"
    fi
    [[ $(sha256sum <"$folder/rustup-init" | cut -c -64) == $(cut -c -64 "$folder/sum") ]] ||
        die "$RUSTUP/$machine/rustup-init does not have the checksum that is stated beside it"
    chmod 755 "$folder" "$folder/rustup-init"
    local command=("$folder/rustup-init" -y -q --no-modify-path --profile minimal -c clippy -c rustfmt --default-toolchain stable)
    if [[ $user != "$(id -un)" ]]; then
        command=(runuser -u "$user" -- env "HOME=$(getent passwd "$user" | cut -d: -f6)" "${command[@]}")
    fi
    # Where the caller stands may be out of that user's reach.
    (cd / && "${command[@]}") || die "Rust's installer failed; its messages above say why"
    rm -rf "$folder"
    trap - EXIT INT TERM HUP
}

# rustup's cargo looks for its toolchains in the home of whoever runs it, so ask as that user.
cargo_version() { # path
    local owner
    owner=$(stat -c %U "$1")
    if [[ $(id -u) == 0 && $owner != root && $owner != UNKNOWN ]]; then
        runuser -u "$owner" -- env HOME="$(getent passwd "$owner" | cut -d: -f6)" "$1" --version
    else
        "$1" --version
    fi
}

check_rust() {
    local cargo version
    if ! cargo=$(find_cargo); then
        echo "Rust is missing ($RUST_MIN or newer): setup.sh without --check installs it, and so does https://rustup.rs" >&2
        return 1
    fi
    version=$(cargo_version "$cargo" 2>/dev/null | cut -d' ' -f2) || version=
    if [[ -z $version ]]; then
        echo "$cargo does not run; as the user who builds: rustup default stable" >&2
        return 1
    fi
    # A nightly's or a beta's suffix says nothing about its age.
    if ! at_least "${version%%-*}" "$RUST_MIN"; then
        echo "$cargo is $version, and $RUST_MIN or newer is needed; as the user who builds: rustup update stable" >&2
        return 1
    fi
    echo "Rust $version ($cargo)"
}

check_dpdk() {
    local version
    if ! command -v pkg-config >/dev/null || ! version=$(pkg-config --modversion libdpdk 2>/dev/null); then
        echo "DPDK's development files are missing: pkg-config finds no libdpdk (package libdpdk-dev)" >&2
        return 1
    fi
    if ! at_least "$version" "$DPDK_MIN"; then
        echo "DPDK is $version, and $DPDK_MIN or newer is needed" >&2
        return 1
    fi
    echo "DPDK $version"
}

lab='' check=''
while (($# > 0)); do
    case $1 in
        --lab) lab=yes ;;
        --check) check=yes ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            echo "setup.sh: $1: not an option that is known; see setup.sh --help" >&2
            exit 2
            ;;
    esac
    shift
done

command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
    die "this system has no apt; install the packages named in this script by hand"

packages=("${BUILD[@]}" "${RUN[@]}")
[[ -z $lab ]] || packages+=("${LAB[@]}")
mapfile -t missing < <(missing_packages "${packages[@]}")

failed=
if ((${#missing[@]} == 0)); then
    echo "all ${#packages[@]} packages are installed"
elif [[ -n $check ]]; then
    echo "packages missing: ${missing[*]}" >&2
    failed=yes
elif [[ $(id -u) != 0 ]]; then
    die "packages missing: ${missing[*]}; run as root to install them"
else
    install "${missing[@]}"
    echo "installed ${missing[*]}"
fi
check_dpdk || failed=yes
[[ -n $check ]] || find_cargo >/dev/null || install_rust
check_rust || failed=yes
[[ -z $failed ]] || die "something is missing, see above"
