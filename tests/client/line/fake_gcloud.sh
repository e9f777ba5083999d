#!/bin/sh
# A stand-in for `gcloud compute ssh VM --zone Z -- ARGS`: its noise, its `-t`, and ssh as a child that outlives it if it can.
# FAKE_GCLOUD_SSH is the ssh command that the real one would find out.
[ "$1 $2" = 'compute ssh' ] || exit 2
while [ "$1" != -- ]; do
	[ "$#" -gt 1 ] || exit 2
	shift
done
shift
echo 'WARNING: To increase the performance of the tunnel, consider installing NumPy.' >&2
echo 'Updating project ssh metadata...' >&2
if [ -n "$FAKE_GCLOUD_ERROR" ]; then
	echo "ERROR: (gcloud.compute.ssh) $FAKE_GCLOUD_ERROR" >&2
	exit 1
fi
eval "set -- $FAKE_GCLOUD_SSH -t"' "$@"'
"$@"
status=$?
[ "$status" = 0 ] || echo "ERROR: (gcloud.compute.ssh) [/usr/bin/ssh] exited with return code [$status]." >&2
exit "$status"
