#!/bin/sh
# An image of a {{.Role}} in Azure, generation 2. Azure hands a machine no systemd credential: stamp a raw copy for the
# machine, or build with bootstrap=cluster-api. Usage: sh FILE RESOURCE-GROUP STORAGE-ACCOUNT CONTAINER
set -eu
group="$1"
account="$2"
container="$3"
az storage blob upload --auth-mode login --account-name "$account" --container-name "$container" --name {{.Base}} --type page --file {{.Path}}
az image create --resource-group "$group" --name {{.Stem}} --os-type Linux --hyper-v-generation V2 \
	--source "https://$account.blob.core.windows.net/$container/{{.Base}}"
az vm create --resource-group "$group" --name {{.Role}}-1 --image {{.Stem}} --size "${SIZE:-Standard_D2s_v5}" --os-disk-size-gb {{.Disk}} --security-type Standard \
	--generate-ssh-keys
