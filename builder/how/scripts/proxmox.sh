#!/bin/sh
# A template of a {{.Role}} in Proxmox VE 8, and a machine of it. Runs on the Proxmox host.
# Usage: sh FILE TEMPLATE-ID MACHINE-ID [NODE-CONFIG]
set -eu
template="$1"
machine="$2"
config="${3:-cluster/{{.Role}}.yaml}"
store="${STORE:-local-lvm}"
if ! qm config "$template" >/dev/null 2>&1; then
	qm create "$template" --name {{.Stem}}-template --ostype l26 --machine q35 --bios ovmf --memory {{.Memory}} --cores {{.CPUs}} --cpu host \
		--efidisk0 "$store:1,efitype=4m,pre-enrolled-keys=0" --scsihw virtio-scsi-single --scsi0 "$store:0,import-from={{.Path}},discard=on" \
		--net0 "virtio,bridge=${BRIDGE:-vmbr0}" --serial0 socket --rng0 source=/dev/urandom --boot order=scsi0
	qm template "$template"
fi
qm clone "$template" "$machine" --name "{{.Role}}-$machine" --full
qm disk resize "$machine" scsi0 {{.Disk}}G
install -d -m 0700 /etc/pve/priv/imgbuild
install -m 0600 "$config" "/etc/pve/priv/imgbuild/$machine.yaml"
qm set "$machine" --args "-fw_cfg name=opt/io.systemd.credentials/imgbuild.node,file=/etc/pve/priv/imgbuild/$machine.yaml"
qm start "$machine"
