//go:build linux

// Command imgbuild-initrd is /init in a node's initial RAM disk.
package main

import "github.com/imgbuild/imgbuild/internal/node/initrd"

func main() {
	initrd.Fail(initrd.Run())
}
