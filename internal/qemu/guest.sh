#!/bin/bash
# Runs in a guest under test: reads "ID SECONDS BASE64-SCRIPT" lines from the
# virtio port and answers "ID EXIT-CODE o:BASE64-STDOUT e:BASE64-STDERR".
# SECONDS bound the script (0: no bound), so that one that hangs frees the port.
dir=${RUNTIME_DIRECTORY:-/run}
exec 3<>"${1:-/dev/virtio-ports/imgbuild.test}"
while read -r id seconds script <&3; do
	printf '%s' "$script" | base64 -d >"$dir/script"
	timeout --kill-after=5 "$seconds" bash "$dir/script" >"$dir/out" 2>"$dir/err" 3>&- </dev/null
	code=$?
	printf '%s %s o:%s e:%s\n' "$id" "$code" "$(base64 -w0 <"$dir/out")" "$(base64 -w0 <"$dir/err")" >&3
done
