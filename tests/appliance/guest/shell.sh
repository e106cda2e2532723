#!/bin/bash
# The test's hands inside the machine: one line in (number, seconds, command in base64), one line out (number, exit code,
# output in base64). Commands run as root, in a cgroup of their own unit.
set -u
port=/dev/virtio-ports/skep.test
[ -e $port ] || exit 1
exec 3<>$port
echo "hello $(cat /proc/sys/kernel/random/boot_id) -" >&3
while read -r number seconds command <&3; do
    output=$(timeout -k 1 "$seconds" bash -c "$(base64 -d <<<"$command")" 2>&1 3>&- </dev/null | base64 -w0; exit "${PIPESTATUS[0]}")
    echo "$number $? ${output:--}" >&3
done
