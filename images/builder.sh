# shellcheck shell=bash
# To be sourced, in the repository's directory: readies `docker build` for this machine. Sets DOCKER_BUILDKIT and PATH, and
# `secrets`, the options that bring this machine's index and certificates into a build and leave nothing of them there.

# Debian's client has BuildKit built in; a newer one that lies before it on the PATH may lack its plugin.
if [ -x /usr/bin/docker ]; then
    PATH=/usr/bin:$PATH
fi
export DOCKER_BUILDKIT=1

# pip's settings on this machine as far as they mean something in a build: packages may come from an index of one's own.
settings=$(mktemp)
trap 'rm -f "$settings"' EXIT
# A variable of the environment comes first in the list and wins. Directories of this machine are not in the build.
{
    printf '[global]\n'
    python3 -m pip config list 2>/dev/null |
        sed -n "s/^[a-z:]*\.\(index-url\|extra-index-url\|trusted-host\|proxy\|timeout\|retries\)='\(.*\)'$/\1 = \2/p" |
        sed 's#file://[^ ]*##g' | awk '$3 != "" && !seen[$1]++'
} >"$settings"
secrets=(--secret "id=pip.conf,src=$settings")
certificates=${PIP_CERT:-${REQUESTS_CA_BUNDLE:-${SSL_CERT_FILE:-}}}
if [ -n "$certificates" ]; then
    # shellcheck disable=SC2034 # whoever sources this uses it
    secrets+=(--secret "id=ca.crt,src=$certificates")
fi
