# Sourced by scripts that build: makes `cargo` run, whoever calls, and leaves no file of root's in a
# user's folders.
#
# sudo gives a script root's home and a short PATH, while Rust lies in the home of the user who
# called. Then that user's toolchain and registry are used, and what root has written there and in
# the build folder is given to the user at the end.
# shellcheck shell=bash

# Folders in which the build may leave files of root's; empty if they need not be given back.
cargo_env_folders=()

cargo_env_setup() { # the repository's root
    local home
    if ! command -v cargo >/dev/null; then
        for home in "$(getent passwd "${SUDO_USER:-}" 2>/dev/null | cut -d: -f6)" "${HOME:-/root}" /root; do
            [[ -n $home && -x $home/.cargo/bin/cargo ]] || continue
            export PATH=$home/.cargo/bin:$PATH
            export CARGO_HOME=${CARGO_HOME:-$home/.cargo}
            # Debian's own cargo has no rustup.
            [[ ! -d $home/.rustup ]] || export RUSTUP_HOME=${RUSTUP_HOME:-$home/.rustup}
            break
        done
    fi
    if ! cargo --version >/dev/null 2>&1; then
        echo "${0##*/}: no cargo that runs is on the PATH, in the home of ${SUDO_USER:-$(id -un)}, or in /root; see https://rustup.rs" >&2
        return 1
    fi
    if [[ $(id -u) == 0 && -n ${SUDO_UID:-} && $SUDO_UID != 0 ]]; then
        cargo_env_folders=("${CARGO_TARGET_DIR:-$1/target}" "$1/Cargo.lock" "$1/fuzz")
        [[ -z ${CARGO_HOME:-} ]] || cargo_env_folders+=("$CARGO_HOME")
    fi
}

# Gives back what root has made. For a trap on EXIT.
cargo_env_give_back() {
    local folder
    for folder in "${cargo_env_folders[@]}"; do
        [[ ! -e $folder ]] || chown -R --no-dereference --from=0 "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$folder" || true
    done
}
