#!/usr/bin/env bash
# A Docker engine for the scenarios: the one that is reachable, else a private one below .work.
#   docker_engine.sh run COMMAND…   run it with DOCKER_HOST set; a private engine lives as long as the command
#   docker_engine.sh start          start a private engine that stays, and print how to reach it
#   docker_engine.sh stop           stop it; its images stay for the next time
#   docker_engine.sh possible       succeed if there is one, or one could be started or installed
# A private engine has its socket, data and pid file of its own, so that it neither meets nor disturbs another one.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
own=$root/.work/docker
pid_file=$own/engine.pid
log=$own/engine.log
address=unix://$own/engine.sock
readonly start_seconds=60 stop_seconds=30

fail() {
    printf '%s\n' "$1" >&2
    exit 1
}

reachable() {
    docker ${1:+--host "$1"} info >/dev/null 2>&1
}

running() {
    [ -f "$pid_file" ] && kill -0 "$(cat "$pid_file")" 2>/dev/null
}

start() {
    if running && reachable "$address"; then
        return
    fi
    [ "$(id -u)" -eq 0 ] || fail "No Docker engine can be reached: start one, set DOCKER_HOST, or run this as root."
    command -v dockerd >/dev/null || fail "No Docker engine can be reached and dockerd is missing: install docker.io."
    [ "${#address}" -lt 110 ] || fail "The path $own is too long for a socket: set DOCKER_HOST to a running engine."
    mkdir -p "$own"
    # No default bridge: two engines would share it. Networks that are made for a scenario get a free subnet each.
    nohup dockerd --host "$address" --data-root "$own/data" --exec-root "$own/run" --pidfile "$pid_file" \
        --bridge none --log-level warn >>"$log" 2>&1 </dev/null &
    local starter=$! deadline=$((SECONDS + start_seconds))
    until reachable "$address"; do
        if ! kill -0 "$starter" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
            tail -n 20 "$log" >&2
            fail "The Docker engine did not start; its whole log is $log."
        fi
        sleep 0.2
    done
}

stop() {
    running || return 0
    local pid deadline=$((SECONDS + stop_seconds))
    pid=$(cat "$pid_file")
    kill "$pid"
    while kill -0 "$pid" 2>/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || fail "The Docker engine (process $pid) does not stop; its log is $log."
        sleep 0.2
    done
}

run() {
    if ! reachable ''; then
        # One that somebody started by hand is left running.
        running || trap stop EXIT
        start
        export DOCKER_HOST=$address
    fi
    "$@"
}

case ${1:-} in
    run)
        shift
        run "$@"
        ;;
    start)
        start
        printf 'export DOCKER_HOST=%s\n' "$address"
        ;;
    stop) stop ;;
    possible) reachable '' || { [ "$(id -u)" -eq 0 ] && command -v dockerd apt-get >/dev/null; } ;;
    *) fail "usage: docker_engine.sh run COMMAND… | start | stop | possible" ;;
esac
