#!/usr/bin/env bash
# Write the locked requirements of the images anew: lock.sh [--upgrade]
# Every file of every package by its hash, for amd64 and arm64. Builds need none of this.
set -euo pipefail
cd "$(dirname "$0")/.."
python=3.13
tools=.work/lock

compile() {
    "$tools/bin/uv" pip compile --quiet --universal --python-version "$python" --generate-hashes --no-annotate \
        --custom-compile-command images/lock.sh "${options[@]}" "$@"
}

# All of it must come as wheels: the images have no compiler.
check() {
    local machine
    for machine in x86_64 aarch64; do
        "$tools/bin/pip" install --quiet --dry-run --ignore-installed --target "$tools/unused" --require-hashes --no-deps \
            --only-binary :all: --python-version "$python" --platform "manylinux_2_28_$machine" \
            --platform "manylinux_2_17_$machine" --platform "manylinux2014_$machine" --requirement "$1"
    done
}

options=("$@")
[ -x "$tools/bin/uv" ] || {
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet uv
}
"$tools/bin/python" - >"$tools/build.in" <<'PYTHON'
import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")
PYTHON
compile "$tools/build.in" --output-file images/build-requirements.txt
for image in server gateway; do
    compile pyproject.toml --extra "$image" --output-file "images/$image/requirements.txt"
done
for file in images/build-requirements.txt images/*/requirements.txt; do
    check "$file"
done
