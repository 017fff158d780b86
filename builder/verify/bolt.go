package verify

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// boltPage is the size of the pages of the databases that images have.
const boltPage = 4096

// bucket is a level of a bolt database, read whole: values, and buckets below it. The
// library that writes the format maps a file into memory and trusts it; an image may
// be anybody's, so this reads bytes and believes nothing.
type bucket struct {
	values  map[string]string
	buckets map[string]*bucket
}

// readBolt reads a database of bbolt's format, version 2.
func readBolt(data []byte) (*bucket, error) {
	r := &boltReader{data: data, seen: map[uint64]bool{}}
	var root, newest uint64
	for n := range 2 { // the meta page of the last transaction counts
		if len(data) < (n+1)*boltPage {
			return nil, errors.New("shorter than two pages")
		}
		m := data[n*boltPage+16 : n*boltPage+80]
		if binary.LittleEndian.Uint32(m) != 0xED0CDAED || binary.LittleEndian.Uint32(m[4:]) != 2 || binary.LittleEndian.Uint32(m[8:]) != boltPage {
			return nil, errors.New("no bolt database with pages of 4096 bytes")
		}
		if tx := binary.LittleEndian.Uint64(m[48:]); n == 0 || tx > newest {
			root, newest = binary.LittleEndian.Uint64(m[16:]), tx
		}
	}
	b := newBucket()
	return b, r.read(root, b, 0)
}

func newBucket() *bucket { return &bucket{map[string]string{}, map[string]*bucket{}} }

// under follows the names of buckets; nil where there is none.
func (b *bucket) under(names ...string) *bucket {
	for _, name := range names {
		if b == nil {
			return nil
		}
		b = b.buckets[name]
	}
	return b
}

// value is that of a key; empty where there is none.
func (b *bucket) value(key string) string {
	if b == nil {
		return ""
	}
	return b.values[key]
}

type boltReader struct {
	data []byte
	seen map[uint64]bool // no page belongs to two
}

// read adds what lies on a page, and on those that it leads to, to a bucket.
func (r *boltReader) read(id uint64, into *bucket, depth int) error {
	pages := uint64(len(r.data) / boltPage) // #nosec G115 -- a length is not negative
	if id >= pages || r.seen[id] || depth > 32 {
		return fmt.Errorf("page %d is not where it could be", id)
	}
	r.seen[id] = true
	page := r.data[id*boltPage:]
	if more := uint64(binary.LittleEndian.Uint32(page[12:])); (more+1)*boltPage <= uint64(len(page)) {
		page = page[:(more+1)*boltPage]
	}
	return r.elements(page, into, depth)
}

// elements reads a page: of a leaf keys with values or buckets, of a branch the pages below.
func (r *boltReader) elements(page []byte, into *bucket, depth int) error {
	le := binary.LittleEndian
	if len(page) < 16 {
		return errors.New("a page is cut")
	}
	flags, count := le.Uint16(page[8:]), int(le.Uint16(page[10:]))
	if len(page) < 16+16*count {
		return errors.New("a page holds less than it says")
	}
	for i := range count {
		at := 16 + 16*i
		e := page[at:]
		if flags == 1 { // a branch
			if err := r.read(le.Uint64(e[8:]), into, depth+1); err != nil {
				return err
			}
			continue
		}
		begin := uint64(at) + uint64(le.Uint32(e[4:])) // #nosec G115 -- not negative
		middle := begin + uint64(le.Uint32(e[8:]))
		end := middle + uint64(le.Uint32(e[12:]))
		if flags != 2 || end > uint64(len(page)) {
			return errors.New("a page holds less than it says")
		}
		key, value := string(page[begin:middle]), page[middle:end]
		if le.Uint32(e) == 0 {
			into.values[key] = string(value)
			continue
		}
		below := newBucket()
		into.buckets[key] = below
		if err := r.bucket(value, below, depth+1); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

// bucket reads one by its header: on pages of its own, or, where it is small, behind it.
func (r *boltReader) bucket(header []byte, into *bucket, depth int) error {
	if len(header) < 16 || depth > 32 {
		return errors.New("a bucket is cut")
	}
	if root := binary.LittleEndian.Uint64(header); root != 0 {
		return r.read(root, into, depth)
	}
	return r.elements(header[16:], into, depth)
}
