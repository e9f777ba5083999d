#!/bin/sh
# An ssh before 8.7: it knows none of three options, and says so as those did.
for word; do
	case $word in
	ForkAfterAuthentication=* | StdinNull=* | SessionType=*)
		option=$(printf %s "${word%%=*}" | tr '[:upper:]' '[:lower:]')
		echo "command-line: line 0: Bad configuration option: $option" >&2
		exit 255
		;;
	esac
done
exec ssh "$@"
