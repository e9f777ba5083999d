#!/usr/bin/env bash
# Run scenarios of Molecule from beginning to end: scenarios.sh NAME…
# One alone shows what it does. Several run two at a time, as each of them mostly waits, and keep their output in .work.
set -euo pipefail
cd "$(dirname "$0")/../.."

run() {
    # A home of its own: there the roles keep the wheel that they build, and Molecule what it knows.
    ANSIBLE_HOME=$PWD/.work/ansible/$1 molecule test --scenario-name "$1"
}

run_with_log() {
    local name=$1 log=.work/molecule-$1.log
    printf 'scenario %s runs; its log is %s\n' "$name" "$log"
    # Else Molecule frames and colours a file too, wherever TERM says xterm.
    if NO_COLOR=1 run "$name" >"$log" 2>&1; then
        sed -n '/= figures =/,/ passed/p' "$log"
        printf 'scenario %s: passed\n' "$name"
    else
        tail -n 150 "$log"
        printf 'scenario %s: FAILED, the whole log is %s\n' "$name" "$log"
        return 1
    fi
}

mkdir -p .work
if [ "${1:-}" = --log ]; then
    run_with_log "$2"
elif [ "$#" -eq 1 ]; then
    run "$1"
else
    printf '%s\0' "$@" | xargs -0 -P 2 -n 1 tests/support/scenarios.sh --log
fi
