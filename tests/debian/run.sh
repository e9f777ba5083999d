#!/usr/bin/env bash
# Prove on another Debian what depends on its Python and its OpenSSH: run.sh trixie [ARGUMENTS OF pytest…]
# The image holds what is committed or added here, as a fresh clone in root's home.
set -euo pipefail
cd "$(dirname "$0")/../.."
. images/builder.sh
# What takes longer hangs.
readonly limit=25m
readonly tests=(
    tests/client tests/gateway/test_commands.py tests/gateway/test_commands_as_root.py tests/relay/test_line.py
    tests/debian/test_real_firewalls.py
    tests/server/test_command.py tests/server/test_fleet.py tests/server/test_stdio.py tests/test_support.py
    # No systemd runs in that container.
    --ignore=tests/client/test_background_systemd.py
    # What the guard lets through, what it thins out and when it follows the agent is the project's own code, and so is
    # which generation of OpenCode a launcher takes up: neither Python nor OpenSSH has a say in it.
    # How it speaks HTTP, reads bodies and paths and passes streams on is proved here too.
    --ignore=tests/client/guard/test_answers.py --ignore=tests/client/guard/test_commands.py
    --ignore=tests/client/guard/test_directories.py --ignore=tests/client/guard/test_list.py
    --ignore=tests/client/guard/test_long_texts.py --ignore=tests/client/guard/test_moving.py
    --ignore=tests/client/guard/test_opening.py --ignore=tests/client/guard/test_policy.py
    --ignore=tests/client/test_generation.py --ignore=tests/client/test_opened.py --ignore=tests/client/test_shared.py
)

distribution=${1:?usage: run.sh trixie [ARGUMENTS OF pytest…]}
shift
image=opencode-relay-test-debian:$distribution
[ "$#" -gt 0 ] || set -- --numprocesses 4 --dist loadfile
base=$(images/base.sh "$distribution")
# The host's network: a private engine has no default bridge.
git ls-files -z | xargs -0 tar -c --ignore-failed-read |
    docker build --quiet --network host --file tests/debian/Dockerfile "${secrets[@]}" \
        --build-arg "BASE_IMAGE=$base" --tag "$image" - >/dev/null

# Tests make namespaces, with networks and mounts in them; the kernel's walls of a container forbid that otherwise.
permissions=(--cap-add SYS_ADMIN --cap-add NET_ADMIN --sysctl net.ipv6.conf.all.disable_ipv6=0)
for wall in seccomp apparmor systempaths; do
    permissions+=(--security-opt "$wall=unconfined")
done
opencodes=()
for variable in OPENCODE_BIN OPENCODE2_BIN; do
    opencodes+=(--env "$variable" --volume "${!variable}:${!variable}:ro")
done
# What fails is run again alone and must pass then, as in `make test`.
# shellcheck disable=SC2016 # the shell in the container expands them
timeout --foreground "$limit" docker run --rm --network none --init "${permissions[@]}" "${opencodes[@]}" \
    --env "OPTIONS=$(printf '%q ' "$@")" "$image" \
    sh -c 'PYTEST_ADDOPTS=$OPTIONS pytest "$@" || pytest --last-failed --last-failed-no-failures none "$@"' sh "${tests[@]}"
