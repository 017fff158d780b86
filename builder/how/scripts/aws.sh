#!/bin/sh
# An AMI of a {{.Role}}. EC2 hands a machine no systemd credential: stamp a copy for the machine (imgbuild stamp), or
# build with bootstrap=cluster-api and let user data say who it is. Usage: sh FILE BUCKET [IMAGE]
set -eu
bucket="$1"
image="${2:-{{.Path}}}"
key="$(basename "$image")"
aws s3 cp "$image" "s3://$bucket/$key"
task="$(aws ec2 import-snapshot --description "{{.Stem}}" --query ImportTaskId --output text \
	--disk-container "Format={{.Format}},UserBucket={S3Bucket=$bucket,S3Key=$key}")"
aws ec2 wait snapshot-imported --import-task-ids "$task"
snapshot="$(aws ec2 describe-import-snapshot-tasks --import-task-ids "$task" --query 'ImportSnapshotTasks[0].SnapshotTaskDetail.SnapshotId' --output text)"
aws ec2 register-image --name "{{.Stem}}-$snapshot" --architecture x86_64 --boot-mode uefi --ena-support --virtualization-type hvm --root-device-name /dev/xvda \
	--block-device-mappings "DeviceName=/dev/xvda,Ebs={SnapshotId=$snapshot,VolumeSize={{.Disk}},VolumeType=gp3}"
