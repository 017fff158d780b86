#!/bin/sh
# A {{.Role}} in libvirt. Usage: sh FILE [NAME] [NODE-CONFIG]
set -eu
name="${1:-{{.Role}}-1}"
config="${2:-cluster/{{.Role}}.yaml}"
pool="${POOL:-/var/lib/libvirt/images}" # what QEMU may read
cp --sparse=always {{.Path}} "$pool/$name.{{.Format}}"
qemu-img resize -q -f {{.Format}} "$pool/$name.{{.Format}}" {{.Disk}}G
install -m 0640 "$config" "$pool/$name.yaml"
virt-install --connect "${LIBVIRT_URI:-qemu:///system}" --name "$name" --import --noautoconsole --osinfo detect=off,require=off \
	--memory {{.Memory}} --vcpus {{.CPUs}} --machine q35 --boot firmware=efi,firmware.feature0.name=secure-boot,firmware.feature0.enabled=no \
	--disk "path=$pool/$name.{{.Format}},format={{.Format}},bus=virtio,discard=unmap" --network "${NETWORK:-network=default},model=virtio" \
	--graphics none --console pty,target.type=serial --rng /dev/urandom \
	--sysinfo "type=fwcfg,entry0.name=opt/io.systemd.credentials/imgbuild.node,entry0.file=$pool/$name.yaml"
