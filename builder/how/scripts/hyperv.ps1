# A {{.Role}} in Hyper-V. The node config comes on a seed disk: a FAT volume labelled IMGBUILD with node.yaml.
# Usage: FILE -Name NAME -Seed SEED-DISK.vhdx
param([Parameter(Mandatory)] [string] $Name, [Parameter(Mandatory)] [string] $Seed, [string] $Switch = 'Default Switch')
$ErrorActionPreference = 'Stop'
$disk = Join-Path (Get-VMHost).VirtualHardDiskPath "$Name.vhdx"
Copy-Item '{{.Path}}' $disk
Resize-VHD $disk -SizeBytes {{.Disk}}GB
New-VM -Name $Name -Generation 2 -MemoryStartupBytes {{.Memory}}MB -VHDPath $disk -SwitchName $Switch
Set-VM -Name $Name -ProcessorCount {{.CPUs}} -StaticMemory
Set-VMFirmware -VMName $Name -EnableSecureBoot Off
Add-VMHardDiskDrive -VMName $Name -Path $Seed
Start-VM -Name $Name
