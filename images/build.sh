#!/usr/bin/env bash
# Build images and say how large they are: build.sh server|gateway…
# They are called opencode-relay/server and opencode-relay/gateway, with the project's version and with `latest` as tags.
# BASE_IMAGE names another base than python:3.13-slim, for example one pinned by digest.
# PLATFORM names another processor, such as linux/arm64, which the engine must be able to emulate: the tag then ends in it,
# as in 0.1.0-arm64, and the base comes from the registry.
set -euo pipefail
cd "$(dirname "$0")/.."
. images/builder.sh

[ "$#" -gt 0 ] || {
    printf 'usage: build.sh server|gateway…\n' >&2
    exit 1
}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
revision=$(git rev-parse HEAD 2>/dev/null || printf unknown)
# Not the short form: "dirty" must be told of what is not committed, too.
[ -z "$(git status --porcelain 2>/dev/null)" ] || revision+=-dirty
if [ -n "${PLATFORM:-}" ]; then
    base=${BASE_IMAGE:-python:3.13-slim}
    tags=("$version-${PLATFORM##*/}")
    platform=(--platform "$PLATFORM")
else
    base=${BASE_IMAGE:-$(images/base.sh python)}
    tags=("$version" latest)
    platform=()
fi

for image in "$@"; do
    name=opencode-relay/$image
    # The host's network: a private engine has no default bridge.
    docker build --quiet --network host --file "images/$image/Dockerfile" "${secrets[@]}" "${platform[@]}" \
        --build-arg "BASE_IMAGE=$base" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
        "${tags[@]/#/--tag=$name:}" . >/dev/null
    all=$(docker image inspect --format '{{.Size}}' "$name:${tags[0]}")
    # The base of another processor is not kept under its name.
    below=$(docker image inspect --format '{{.Size}}' "$base" 2>/dev/null || printf 0)
    printf '%s:%s on %s: %d MB, of which %d MB are our own layers\n' \
        "$name" "${tags[0]}" "$base" "$((all / 1000000))" "$(((all - below) / 1000000))"
done
