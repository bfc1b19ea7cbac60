# shellcheck shell=bash
# What every script here begins with: the root of the checkout as working directory, a voice on
# stderr (stdout belongs to the data a script prints), and a Rust that is new enough.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# Ends the script: what failed, then what to do about it, one argument a line.
die() {
    say "error: $1"
    shift
    if (($#)); then printf '  %s\n' "$@" >&2; fi
    exit 1
}

# True when version $1 is at least version $2.
at_least() { [[ $(printf '%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

# Puts cargo on PATH, or says how to get it. The version wanted is the one in Cargo.toml.
need_rust() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    if ! command -v cargo >/dev/null && [[ -x ${CARGO_HOME:-${HOME:-/root}/.cargo}/bin/cargo ]]; then
        export PATH="${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:$PATH"
    fi
    command -v rustc >/dev/null || die "Rust is not installed" \
        "dr is built with Rust $wanted or later. Install it with rustup, as the user who builds:" \
        "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" \
        "then open a new shell and repeat the command."
    found=$(rustc --version | cut -d ' ' -f 2)
    at_least "${found%%-*}" "$wanted" || die "Rust $found is too old: dr needs $wanted or later" \
        "With rustup: rustup update stable"
}

# Where cargo puts what it builds, and these scripts what they fetch.
target=${CARGO_TARGET_DIR:-$PWD/target}
[[ $target == /* ]] || target=$PWD/$target
