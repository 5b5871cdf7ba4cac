#!/bin/sh
# Run a command in network and pid namespaces of its own with loopback up: no port is ever taken, nothing leaves the machine, and
# when the command ends, or is killed, all that it has started ends with it.
exec unshare --net --pid --fork --kill-child --mount-proc -- sh -c 'ip link set lo up && "$@"' sh "$@"
