#!/usr/bin/env bash
# Set-up steps of the Makefile:
#   setup.sh packages demo|test|lint|images|molecule   install the Debian packages that this needs and that are missing
#   setup.sh venv                               make .venv and install the project with its development tools into it
#   setup.sh tools                              make .work/tools, with what checks and describes a release
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # where sshd and nft are, for users too

fail() {
    printf '%s\n' "$1" >&2
    exit 1
}

# A Python that is new enough, or nothing.
find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

# Print the packages that bring the given "command:package" pairs, as far as the commands are missing.
missing() {
    local pair
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || printf '%s\n' "${pair#*:}"
    done
}

install_packages() {
    local as_root=() log
    if [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo)
    fi
    if ! command -v apt-get >/dev/null; then
        fail "Missing: $*. Install what corresponds to these Debian packages, then run make again."
    fi
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        fail "Missing Debian packages. As root, run: apt-get update && apt-get install -y $*"
    fi
    printf 'Installing Debian packages: %s\n' "$*"
    # The tests run an sshd and a Docker engine of their own; nobody who runs them wants such services from now on.
    local quiet=() installed=yes
    if [ -d /run/systemd/system ]; then
        [[ " $* " == *" openssh-server "* ]] && quiet+=(ssh.service ssh.socket)
        [[ " $* " == *" docker.io "* ]] && quiet+=(docker.service docker.socket containerd.service)
    fi
    if [ "${#quiet[@]}" -gt 0 ]; then
        "${as_root[@]}" systemctl mask --quiet "${quiet[@]}"
    fi
    log=$(mktemp)
    {
        "${as_root[@]}" apt-get update &&
            "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
    } >"$log" 2>&1 || installed=''
    if [ "${#quiet[@]}" -gt 0 ]; then
        "${as_root[@]}" systemctl unmask --quiet "${quiet[@]}"
        "${as_root[@]}" systemctl disable --quiet "${quiet[@]}" 2>>"$log" || true
    fi
    if [ -z "$installed" ]; then
        tail -n 20 "$log" >&2
        fail "Debian packages could not be installed; the whole log is in $log."
    fi
    rm "$log"
}

packages() {
    local pairs=() wanted=() python
    case $1 in
        demo)
            pairs+=(ps:procps)
            [ -n "${REAL:-}" ] || pairs+=(node:nodejs npm:npm)
            if [ -n "${RELAY:-}" ]; then
                pairs+=(ssh:openssh-client sshd:openssh-server)
            fi
            ;;
        test)
            pairs+=(node:nodejs npm:npm ssh:openssh-client sshd:openssh-server ip:iproute2 nft:nftables)
            pairs+=(fish:fish tcsh:tcsh zsh:zsh dash:dash busybox:busybox tmux:tmux ps:procps git:git)
            pairs+=(curl:curl wget:wget nc:netcat-openbsd perl:perl caddy:caddy systemctl:systemd)
            # Without a font it shows boxes.
            command -v chromium >/dev/null || pairs+=(chromium:chromium fonts:fonts-dejavu-core)
            ;;
        images | molecule)
            pairs+=(node:nodejs npm:npm ssh-keygen:openssh-client git:git)
            if ! docker info >/dev/null 2>&1; then
                # Where no engine runs, and perhaps no registry answers either.
                pairs+=(dockerd:docker.io debootstrap:debootstrap curl:curl)
            fi
            ;;
        lint) pairs+=(git:git) ;;
        *) fail "unknown set of packages: $1" ;;
    esac
    mapfile -t wanted < <(missing "${pairs[@]}")
    python=$(find_python)
    if [ -z "$python" ]; then
        wanted+=(python3 python3-venv)
    elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        wanted+=("$(basename "$python")-venv")
    fi
    if [ "${#wanted[@]}" -gt 0 ]; then
        install_packages "${wanted[@]}"
    fi
    # Newer releases have Docker's client apart from the engine.
    if [[ "$1" = @(images|molecule) ]] && ! command -v docker >/dev/null; then
        install_packages docker-cli
    fi
    if [ -z "$(find_python)" ]; then
        fail "Python 3.11 or newer is needed, and this system's python3 is older: install python3.11 and python3.11-venv."
    fi
}

venv() {
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        "$(find_python)" -m venv --clear .venv
    fi
    # Dependency groups need pip 25.1.
    .venv/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
    .venv/bin/python -m pip install --quiet --editable '.[gateway]' --group dev
}

tools() {
    if ! .work/tools/bin/python -m pip --version >/dev/null 2>&1; then
        "$(find_python)" -m venv --clear .work/tools
    fi
    .work/tools/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
    .work/tools/bin/python -m pip install --quiet --group release
}

case ${1:-} in
    packages) packages "${2:-}" ;;
    venv) venv ;;
    tools) tools ;;
    *) fail "usage: setup.sh packages demo|test|lint|images|molecule | setup.sh venv | setup.sh tools" ;;
esac
