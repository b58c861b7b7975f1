#!/bin/sh
# Programs are often started by a script. This one stays, passes TERM on, and ends
# with what it has started. LISTEN_PID is to be the pid of who takes the sockets.
sh -c 'LISTEN_PID=$$ exec "$@"' sh "$@" &
child=$!
trap 'kill -TERM $child' TERM
wait $child
status=$?
while kill -0 $child 2>/dev/null; do
	wait $child
	status=$?
done
exit $status
