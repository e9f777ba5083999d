#!/usr/bin/env bash
# Build the hosts of the scenarios: build.sh bookworm|trixie|noble…
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

build() {
    local distribution=$1 base
    base=$("$here/../base.sh" "$distribution")
    # Scenarios that start at once build one after the other: the second finds everything done.
    exec 9>"${TMPDIR:-/tmp}/opencode-relay-test-host-$distribution-$(id -u).lock"
    flock 9
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
