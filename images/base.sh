#!/usr/bin/env bash
# Print the name of a base image that the engine has: base.sh bookworm|trixie|noble|python
# It is the public one, pulled if need be. Where no registry answers, debootstrap makes Debian's from its package archive
# (needs root), and `python` is trixie with its Python 3.13; the engine keeps it, so that only the first time is slow.
set -euo pipefail
PATH=$PATH:/usr/sbin # where debootstrap is, for users too

fail() {
    printf '%s\n' "$1" >&2
    exit 1
}

stock_image() {
    case $1 in
        bookworm | trixie) printf 'debian:%s' "$1" ;;
        noble) printf 'ubuntu:24.04' ;;
        python) printf 'python:3.13-slim' ;;
        *) fail "unknown base: $1 (known: bookworm, trixie, noble, python)" ;;
    esac
}

present() {
    docker image inspect "$1" >/dev/null 2>&1
}

bootstrap() {
    local base=$1 image=$2 stock distribution=$1 work options=() left_out=()
    stock=$(stock_image "$base")
    [ "$base" != noble ] || fail "$stock cannot be pulled. Pull it elsewhere, and load and tag it here as $image."
    [ "$(id -u)" -eq 0 ] || fail "$stock cannot be pulled; as root, this makes it with debootstrap."
    command -v debootstrap >/dev/null || fail "$stock cannot be pulled and debootstrap is missing: install debootstrap."
    if [ "$base" = python ]; then
        distribution=trixie
        options=('--include=ca-certificates,python3,python3-venv,tzdata')
        # Services are run from it; nobody logs in there to read.
        left_out=(doc info locale man)
        left_out=("${left_out[@]/#/--exclude=./usr/share/}")
    fi
    printf 'No registry has %s: making it with debootstrap.\n' "$stock" >&2
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # the directory of now
    trap "rm -rf '$work'" EXIT
    if ! debootstrap --variant=minbase "${options[@]}" "$distribution" "$work/root" >"$work/log" 2>&1; then
        tail -n 20 "$work/log" >&2
        fail "debootstrap of $distribution failed."
    fi
    tar -C "$work/root" --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' "${left_out[@]}" -c . |
        docker import - "$image" >/dev/null
}

[ "$#" -eq 1 ] || fail "usage: base.sh bookworm|trixie|noble|python"
stock=$(stock_image "$1")
own=opencode-relay-base:$1
# Whoever starts at once waits for each other instead of making the same image twice.
exec 9>"${TMPDIR:-/tmp}/opencode-relay-base-$1-$(id -u).lock"
flock 9
if present "$stock"; then
    printf '%s\n' "$stock"
elif present "$own"; then
    printf '%s\n' "$own"
elif docker pull --quiet "$stock" >/dev/null 2>&1; then
    printf '%s\n' "$stock"
else
    bootstrap "$1" "$own"
    printf '%s\n' "$own"
fi
