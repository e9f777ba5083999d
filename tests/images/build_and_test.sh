#!/usr/bin/env bash
# What `make images` does once there is an engine.
set -euo pipefail
cd "$(dirname "$0")/../.."
# What takes longer hangs.
readonly limit=20m

fail() {
    printf '%s failed, or hung and was ended after %s.\n' "$1" "$limit" >&2
    exit 1
}

# Other people's launchers download meanwhile.
timeout "$limit" python -m images.others >/dev/null &
timeout --foreground "$limit" images/build.sh server gateway || fail 'The build of the images'
wait "$!" || fail "The download of other people's launchers"
pytest tests/images
