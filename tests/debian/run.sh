#!/usr/bin/env bash
# Prove on another Debian what depends on its Python and its OpenSSH: run.sh trixie [ARGUMENTS OF pytest…]
# The image holds what is committed or added here, as a fresh clone in root's home.
set -euo pipefail
cd "$(dirname "$0")/../.."
. images/builder.sh
# What takes longer hangs.
readonly limit=25m
readonly tests=(
    # The line and its ssh, the programs of the relay's end, and how launcher, guard and server start, speak and end.
    tests/client/line tests/client/test_cli.py tests/client/test_foreground.py tests/client/test_guarded.py
    tests/client/test_guardian.py tests/client/test_odd_machines.py tests/client/test_relay.py
    tests/client/guard/test_attacks.py tests/client/guard/test_bodies.py tests/client/guard/test_through.py
    tests/gateway/test_commands_as_root.py tests/relay/test_line.py tests/debian/test_real_firewalls.py
    tests/server/test_command.py tests/server/test_fleet.py tests/server/test_stdio.py tests/test_support.py
    # All else is the project's own code, in which neither Python nor OpenSSH has a say; and the scenario `trixie` enrols
    # a machine of that Debian, drives it and runs its doctor.
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
