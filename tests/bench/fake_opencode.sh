#!/bin/sh
# Stands for OpenCode where only the moment matters at which it is started: the time of the file that it makes.
: > "$STARTED_FILE"
