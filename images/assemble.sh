#!/bin/sh
# Runs in the build stage of both images and makes /opt/opencode-relay, which is all that the final stage takes over.
#   assemble.sh tools          what builds the project, in a place of its own
#   assemble.sh dependencies   what the project needs: locked, each file by its hash, nothing compiled here
#   assemble.sh project NAME…  the project itself, then bytecode of what its packages NAME… import: on a read-only file
#                              system Python cannot keep its own
set -eu
target=/opt/opencode-relay

# What the machine that builds has of its own, see build.sh; nothing of it stays.
if [ -f /run/secrets/pip.conf ]; then
    export PIP_CONFIG_FILE=/run/secrets/pip.conf
fi
if [ -f /run/secrets/ca.crt ]; then
    export PIP_CERT=/run/secrets/ca.crt
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

install() {
    /build/tools/bin/pip install --quiet --require-hashes --only-binary :all: "$@"
}

into_target() {
    /build/tools/bin/pip --python "$target/bin/python" "$@"
}

step=$1
shift
case $step in
    tools)
        python3 -m venv /build/tools
        install --requirement /build/build-requirements.txt
        ;;
    dependencies)
        # Without pip: at run time there is nothing to install.
        python3 -m venv --without-pip "$target"
        into_target install --quiet --require-hashes --only-binary :all: --no-compile --requirement /build/requirements.txt
        ;;
    project)
        /build/tools/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /build/wheel /build/source
        into_target install --quiet --no-deps --no-index --no-compile /build/wheel/*.whl
        into_target check
        # Type stubs serve editors, sources of extensions who builds those, tests who tests them; activate scripts serve
        # shells.
        find "$target" \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.[ch]' \) -delete
        find "$target"/lib -type d \( -name tests -o -name benchmarks \) -prune -exec rm -r {} +
        "$target/bin/python" -B /build/strip.py "$target"
        rm -f "$target"/bin/activate* "$target"/bin/Activate*
        # The same input gives the same layer: all files are of one time, and bytecode goes by what is in its source.
        "$target/bin/python" -B /build/imported.py "$@" >/build/imported
        "$target/bin/python" -m compileall -q -i /build/imported --invalidation-mode unchecked-hash
        find "$target" -exec touch --no-dereference --date=@"${SOURCE_DATE_EPOCH:-1577836800}" {} +
        ;;
esac
