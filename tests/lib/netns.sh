#!/bin/sh
# Run a command in a network namespace of its own with loopback up: no port is ever taken, nothing leaves the machine.
exec unshare --net -- sh -c 'ip link set lo up && exec "$@"' sh "$@"
