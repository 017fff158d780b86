// Package medium is the shape of a medium that a node is installed from, a CD or a stick: a
// disk whose EFI system partition boots, and one more partition that is the disk image as it is
// installed, with a partition table of its own. What is booted stands on the root file system
// in that image, so that a medium has it once. The package knows neither how an image is made
// nor how one is installed.
package medium

// Word is on the kernel's command line of a medium.
const Word = "imgbuild.medium"

// Partition is the GPT name of the partition that is the image.
const Partition = "imgbuild-image"

// TypeImage is its type: data of Linux (UAPI Discoverable Partitions Specification), which
// nothing mounts by itself.
const TypeImage = "0fc63daf-8483-4772-8e79-3d69d8477de4"

// What the RAM disk leaves for the installer: links to devices.
const (
	Image  = "/run/imgbuild/medium/image"  // the image, read only
	Device = "/run/imgbuild/medium/device" // what it lies on
)
