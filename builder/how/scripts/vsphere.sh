#!/bin/sh
# A template of a {{.Role}} in vSphere by govc, which reads GOVC_URL and its kin. vSphere hands a machine no systemd
# credential: put the node config into the disk (imgbuild stamp a raw or qcow2, build the OVA's disk anew), or attach a
# seed disk: a FAT file system labelled IMGBUILD with node.yaml.
# Usage: sh FILE NAME SEED-DISK.vmdk
set -eu
name="$1"
seed="$2"
if ! govc vm.info -json {{.Stem}}-template | grep -q '"config"'; then
	govc import.ova -name {{.Stem}}-template {{.Path}}
	govc vm.markastemplate {{.Stem}}-template
fi
govc vm.clone -vm {{.Stem}}-template -on=false "$name"
govc vm.disk.change -vm "$name" -disk.label "Hard disk 1" -size {{.Disk}}G
govc import.vmdk "$seed" "$name-seed"
govc vm.disk.attach -vm "$name" -disk "$name-seed/$(basename "$seed")" -link=false
govc vm.power -on "$name"
