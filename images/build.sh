#!/usr/bin/env bash
# Build images and say how large they are: build.sh server|gateway…
# They are called opencode-relay/server and opencode-relay/gateway, with the project's version and with `latest` as tags.
# BASE_IMAGE names another base than python:3.13-slim, for example one pinned by digest.
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
base=${BASE_IMAGE:-$(images/base.sh python)}

for image in "$@"; do
    name=opencode-relay/$image
    # The host's network: a private engine has no default bridge.
    docker build --quiet --network host --file "images/$image/Dockerfile" "${secrets[@]}" \
        --build-arg "BASE_IMAGE=$base" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
        --tag "$name:$version" --tag "$name:latest" . >/dev/null
    all=$(docker image inspect --format '{{.Size}}' "$name:$version")
    below=$(docker image inspect --format '{{.Size}}' "$base")
    printf '%s:%s on %s: %d MB, of which %d MB are our own layers\n' \
        "$name" "$version" "$base" "$((all / 1000000))" "$(((all - below) / 1000000))"
done
