#!/usr/bin/env bash
# Run scenarios of Molecule from beginning to end: scenarios.sh NAME…
# One alone shows what it does. Several run two at a time, as each of them mostly waits, and keep their output in .work;
# the end of the output then says again what failed, as another scenario may have said much meanwhile.
set -euo pipefail
cd "$(dirname "$0")/../../.."
# What takes longer hangs: 12 minutes are usual.
readonly limit=60m

run() {
    # A home of its own: there the roles keep the wheel that they build, and Molecule what it knows.
    # In the foreground, so that an interrupt reaches it.
    ANSIBLE_HOME=$PWD/.work/ansible/$1 timeout --foreground --kill-after 60 "$limit" molecule test --scenario-name "$1"
}

run_with_log() {
    local name=$1 log=.work/molecule-$1.log status=0
    printf 'scenario %s runs; its log is %s\n' "$name" "$log"
    # Else Molecule frames and colours a file too, wherever TERM says xterm.
    NO_COLOR=1 run "$name" >"$log" 2>&1 || status=$?
    if [ "$status" -eq 0 ]; then
        sed -n '/= figures =/,/ passed/p' "$log"
        printf 'scenario %s: passed\n' "$name" | tee -a "$log"
    else
        [ "$status" -ne 124 ] || printf 'It hung: ended after %s.\n' "$limit" >>"$log"
        tail -n 150 "$log"
        printf 'scenario %s: FAILED, the whole log is %s\n' "$name" "$log"
        return 1
    fi
}

# Say which of the scenarios failed, and in what.
say_failures() {
    local name log
    for name in "$@"; do
        log=.work/molecule-$name.log
        grep -q "^scenario $name: passed\$" "$log" && continue
        printf '\n= scenario %s FAILED =\n' "$name"
        grep -E '^(FAILED|ERROR|It hung)|^fatal: |^CRITICAL' "$log" | cut -c 1-400 | tail -n 20 || tail -n 5 "$log"
    done
}

mkdir -p .work
if [ "${1:-}" = --log ]; then
    run_with_log "$2"
elif [ "$#" -eq 1 ]; then
    run "$1"
else
    if ! printf '%s\0' "$@" | xargs -0 -P 2 -n 1 tests/support/hosts/scenarios.sh --log; then
        say_failures "$@"
        exit 1
    fi
fi
