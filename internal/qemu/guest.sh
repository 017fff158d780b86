#!/bin/bash
# Runs in a guest under test: reads "ID BASE64-SCRIPT" lines from the virtio port and answers "ID EXIT-CODE BASE64-OUTPUT".
exec 3<>/dev/virtio-ports/imgbuild.test
while read -r id script <&3; do
	printf '%s' "$script" | base64 -d >/run/imgbuild-test.sh
	bash /run/imgbuild-test.sh >/run/imgbuild-test.out 2>&1 </dev/null
	code=$?
	printf '%s %s %s\n' "$id" "$code" "$(base64 -w0 </run/imgbuild-test.out)" >&3
done
