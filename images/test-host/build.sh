#!/usr/bin/env bash
# Build the hosts of the scenarios: build.sh bookworm|trixie|noble…
# The base is the distribution's own image. Where no registry answers, debootstrap makes Debian's from its package archive
# (needs root); the engine keeps it, so that only the first time is slow.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
PATH=$PATH:/usr/sbin # where debootstrap is, for users too

fail() {
    printf '%s\n' "$1" >&2
    exit 1
}

stock_image() {
    case $1 in
        bookworm | trixie) printf 'debian:%s' "$1" ;;
        noble) printf 'ubuntu:24.04' ;;
        *) fail "unknown distribution: $1 (known: bookworm, trixie, noble)" ;;
    esac
}

present() {
    docker image inspect "$1" >/dev/null 2>&1
}

bootstrap() {
    local distribution=$1 image=$2 work
    [ "$distribution" != noble ] ||
        fail "$(stock_image noble) cannot be pulled. Pull it elsewhere, and load and tag it here as $image."
    [ "$(id -u)" -eq 0 ] || fail "$(stock_image "$distribution") cannot be pulled; as root, this makes it with debootstrap."
    command -v debootstrap >/dev/null ||
        fail "$(stock_image "$distribution") cannot be pulled and debootstrap is missing: install debootstrap."
    printf 'No registry has %s: making it with debootstrap.\n' "$(stock_image "$distribution")"
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # the directory of now
    trap "rm -rf '$work'" EXIT
    if ! debootstrap --variant=minbase "$distribution" "$work/root" >"$work/log" 2>&1; then
        tail -n 20 "$work/log" >&2
        fail "debootstrap of $distribution failed."
    fi
    tar -C "$work/root" -c . | docker import - "$image" >/dev/null
}

build() {
    local distribution=$1 base own=opencode-relay-base:$1
    # Scenarios that start at once wait for each other instead of making the same image twice.
    exec 9>"${TMPDIR:-/tmp}/opencode-relay-test-host-$distribution-$(id -u).lock"
    flock 9
    base=$(stock_image "$distribution")
    if ! present "$base"; then
        if present "$own" || ! docker pull --quiet "$base" >/dev/null 2>&1; then
            base=$own
            present "$base" || bootstrap "$distribution" "$base"
        fi
    fi
    # The host's network: a private engine has no default bridge.
    docker build --quiet --network host --build-arg BASE_IMAGE="$base" \
        --tag "opencode-relay-test-host:$distribution" "$here" >/dev/null
}

# One process each: downloading and unpacking take turns with the processors.
jobs=()
for distribution in "$@"; do
    build "$distribution" &
    jobs+=("$!")
done
for job in "${jobs[@]}"; do
    wait "$job"
done
