#!/bin/sh
# Runs in the build of the image: the project and what its tests import, in an environment of its own.
set -eu
if [ -f /run/secrets/pip.conf ]; then
    export PIP_CONFIG_FILE=/run/secrets/pip.conf
fi
if [ -f /run/secrets/ca.crt ]; then
    export PIP_CERT=/run/secrets/ca.crt
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
python3 -m venv .venv
.venv/bin/pip install --quiet --upgrade 'pip>=25.1'
.venv/bin/pip install --quiet --editable '.[gateway]' --group test
