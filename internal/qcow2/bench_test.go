package qcow2

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkWrite packs 256 MiB that deflate to about a third.
func BenchmarkWrite(b *testing.B) {
	const size = 256 * mib
	src, err := os.Create(filepath.Join(b.TempDir(), "disk"))
	if err != nil {
		b.Fatal(err)
	}
	defer src.Close()
	part := make([]byte, mib)
	for i := range part {
		part[i] = byte(i * (i >> 7) % 251 & 0x3f)
	}
	if _, err := src.Write(bytes.Repeat(part, size/mib)); err != nil {
		b.Fatal(err)
	}
	for name, opt := range kinds {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				convert(b, src, size, opt)
			}
		})
	}
}
