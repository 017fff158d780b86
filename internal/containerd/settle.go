package containerd

import (
	"errors"
	"os"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/imgbuild/imgbuild/internal/repro"
)

// What differs between two databases of the same records: when each was written, and
// what the scratch folder's file system says of sizes.
var (
	moments = []string{"createdat", "updatedat"}
	usage   = []string{"inodes", "size"}
)

// settle gives the keys in all buckets of a database a value that is always the same,
// and writes the pages anew, one after the other.
func settle(file string, keys []string) ([]byte, error) {
	moment, err := repro.Epoch().UTC().MarshalBinary() // as containerd's boltutil writes times
	if err != nil {
		return nil, err
	}
	values := map[string][]byte{}
	for _, key := range keys {
		values[key] = moment
		if slices.Contains(usage, key) {
			values[key] = []byte{0} // a varint
		}
	}
	src, err := bolt.Open(file, 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		return nil, err
	}
	defer src.Close() //nolint:errcheck // a scratch file
	if err := src.Update(func(tx *bolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bolt.Bucket) error { return fix(b, values) })
	}); err != nil {
		return nil, err
	}
	dst, err := bolt.Open(file+".settled", 0o600, &bolt.Options{NoSync: true, PageSize: 4096})
	if err != nil {
		return nil, err
	}
	// A transaction for each key: the library writes the buckets of one in any order.
	if err := errors.Join(bolt.Compact(dst, src, 1), dst.Close()); err != nil {
		return nil, err
	}
	return os.ReadFile(file + ".settled") // #nosec G304 -- our own scratch file
}

func fix(b *bolt.Bucket, values map[string][]byte) error {
	var found []string // a bucket must not change while it is walked
	if err := b.ForEach(func(key, value []byte) error {
		if value == nil {
			return fix(b.Bucket(key), values)
		}
		if _, ok := values[string(key)]; ok {
			found = append(found, string(key))
		}
		return nil
	}); err != nil {
		return err
	}
	for _, key := range found {
		if err := b.Put([]byte(key), values[key]); err != nil {
			return err
		}
	}
	return nil
}
