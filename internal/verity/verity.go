// Package verity makes the dm-verity hash tree of a file system image, the same
// bytes for the same data, salt and UUID. It follows the Linux kernel's
// Documentation/admin-guide/device-mapper/verity.rst (hash type 1, SHA-256,
// blocks of 4096 bytes) and the super block of cryptsetup's veritysetup. It
// opens no device: that is the initrd's work.
package verity

import (
	"errors"
	"fmt"
	"os"

	"github.com/containerd/go-dmverity/pkg/verity"
	"github.com/google/uuid"
)

const (
	// BlockSize is the size of data and of hash blocks.
	BlockSize = 4096
	// MaxSalt is the longest salt that the super block can hold.
	MaxSalt = verity.MaxSaltSize
)

// Result is what has to be known to open the data again.
type Result struct {
	RootHash []byte // 32 bytes
	HashSize int64  // of the hash file, a multiple of BlockSize
}

// Create writes the super block and the hash tree of dataPath to hashPath,
// which is replaced. The super block lies at offset 0 of the hash file, the tree
// at 4096, as veritysetup expects of a hash device of its own. The data must be
// a whole number of blocks, at least one.
func Create(dataPath, hashPath string, salt []byte, id uuid.UUID) (Result, error) {
	if len(salt) > MaxSalt {
		return Result{}, fmt.Errorf("creating the verity tree: salt of %d bytes, at most %d", len(salt), MaxSalt)
	}
	info, err := os.Stat(dataPath)
	if err != nil {
		return Result{}, fmt.Errorf("creating the verity tree: %w", err)
	}
	if info.Size() == 0 || info.Size()%BlockSize != 0 {
		return Result{}, fmt.Errorf("creating the verity tree: data has %d bytes, not a whole number of %d-byte blocks", info.Size(), BlockSize)
	}
	if dst, err := os.Stat(hashPath); err == nil && os.SameFile(info, dst) {
		return Result{}, errors.New("creating the verity tree: data and hash file are the same")
	}
	params := verity.DefaultParams()
	params.DataBlockSize, params.HashBlockSize = BlockSize, BlockSize
	params.DataBlocks = uint64(info.Size() / BlockSize)    // #nosec G115 -- a size is not negative
	params.Salt, params.SaltSize = salt, uint16(len(salt)) // #nosec G115 -- checked
	params.HashAreaOffset = BlockSize
	params.UUID = id
	root, err := verity.Create(&params, dataPath, hashPath)
	if err != nil {
		return Result{}, fmt.Errorf("creating the verity tree: %w", err)
	}
	size, err := seal(hashPath, &params)
	if err != nil {
		return Result{}, fmt.Errorf("creating the verity tree: %w", err)
	}
	return Result{RootHash: root, HashSize: size}, nil
}

// seal makes the file whole blocks even where the tree is empty (one data
// block is its own tree), and holds its size against what the tree must have.
func seal(hashPath string, params *verity.Params) (int64, error) {
	tree, err := verity.GetHashTreeSize(params)
	if err != nil {
		return 0, err
	}
	size := int64(BlockSize + tree) // #nosec G115 -- under 1% of the data's size
	info, err := os.Stat(hashPath)
	if err != nil {
		return 0, err
	}
	if info.Size() > size {
		return 0, fmt.Errorf("hash file has %d bytes, expected %d", info.Size(), size)
	}
	return size, os.Truncate(hashPath, size)
}
