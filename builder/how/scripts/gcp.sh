#!/bin/sh
# An image of a {{.Role}} in Google Compute Engine. It hands a machine no systemd credential: stamp a raw copy for the
# machine, or build with bootstrap=cluster-api. Usage: sh FILE BUCKET ZONE
set -eu
bucket="$1"
zone="$2"
gcloud storage cp {{.Path}} "gs://$bucket/{{.Base}}"
gcloud compute images create {{.Stem}} --source-uri "gs://$bucket/{{.Base}}" --guest-os-features UEFI_COMPATIBLE,GVNIC,VIRTIO_SCSI_MULTIQUEUE --architecture X86_64
gcloud compute instances create {{.Role}}-1 --zone "$zone" --image {{.Stem}} --boot-disk-size {{.Disk}}GB --machine-type "${TYPE:-e2-standard-2}" --no-shielded-secure-boot
