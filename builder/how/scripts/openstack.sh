#!/bin/sh
# An image of a {{.Role}} in OpenStack, and a server of it. Nova hands a server no systemd credential: stamp a copy of
# the image for the machine (imgbuild stamp), and give that. Usage: sh FILE NAME [IMAGE]
set -eu
name="$1"
image="${2:-{{.Path}}}"
openstack image create "$name" --file "$image" --disk-format {{.Format}} --container-format bare --private --min-disk {{.Disk}} --min-ram {{.Memory}} \
	--property hw_firmware_type=uefi --property hw_machine_type=q35 --property hw_disk_bus=virtio --property hw_vif_model=virtio \
	--property hw_rng_model=virtio --property os_secure_boot=disabled
openstack server create "$name" --image "$name" --flavor "${FLAVOR:?}" --network "${NETWORK:?}" --wait
