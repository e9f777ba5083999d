#!/usr/bin/env bash
# Build the gateway's image and save it to .work/gateway.tar, from where the role takes it to the relay of a scenario.
set -euo pipefail
cd "$(dirname "$0")/../../.."
readonly archive=.work/gateway.tar image=opencode-relay/gateway:latest

images/build.sh gateway
id=$(docker image inspect --format '{{.Id}}' "$image")
if [ ! -f "$archive" ] || [ "$(cat "$archive.id" 2>/dev/null)" != "$id" ]; then
    mkdir -p .work
    docker save --output "$archive.new" "$image"
    mv "$archive.new" "$archive"
    printf '%s' "$id" >"$archive.id"
fi
