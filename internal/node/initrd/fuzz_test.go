//go:build linux

package initrd

import (
	"os"
	"path/filepath"
	"testing"
)

func FuzzPartitionUUIDs(f *testing.F) {
	disk := make([]byte, 8192)
	copy(disk[512:], "EFI PART")
	disk[512+72], disk[512+80], disk[512+84] = 2, 4, 128
	f.Add(disk)
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		partitionUUIDs(file)
	})
}

func FuzzRootHash(f *testing.F) {
	f.Add("roothash=00 quiet")
	f.Fuzz(func(t *testing.T, cmdline string) {
		if hash, err := rootHash(cmdline); err == nil && len(hash) != 32 {
			t.Errorf("%q gives %d bytes", cmdline, len(hash))
		}
	})
}
