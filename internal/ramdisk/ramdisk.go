// Package ramdisk is the shape of a node's initial RAM disk, beside its init and its kernel
// modules: the two lists that the builder writes and the init reads. It knows neither.
package ramdisk

const (
	// ModuleList has a module a line with its file and the names that it depends on, in load
	// order ("name file dep dep …"); a leading "!" loads it always.
	ModuleList = "imgbuild/modules"
	// AliasList is modules.alias as kmod writes it, cut down to those modules.
	AliasList = "imgbuild/aliases"
)
