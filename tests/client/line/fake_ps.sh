#!/bin/sh
# ps after the clock was set a century ahead: by it, whatever runs was started a century later than was told before.
PATH=${PATH#*:}
ps "$@" | sed 's/20\([0-9][0-9]\)$/21\1/'
