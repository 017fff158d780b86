package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
)

// ClusterSize is how large the pieces are in which Patch changes an image, bytes.
const ClusterSize = clusterSize

// Fields of the header (docs/interop/qcow2.txt) that decide what may be changed.
const (
	backingField   = 8
	sizeField      = 24
	cryptField     = 32
	l1SizeField    = 36
	l1AtField      = 40
	refsAtField    = 48
	refsLenField   = 56
	snapshotsField = 60
	incompatField  = 72
	refOrderField  = 96

	compressionType  = 1 << 3 // of the incompatible features
	compressionField = 104
	zstdType         = 1

	hostMask = 0x00fffffffffffe00 // of an entry that is not compressed
)

// Patch puts whole clusters into an image of the kind that Write makes: guest offset →
// content. A cluster that is compressed, or not there, comes to lie uncompressed at the
// end of the file; one that is there is written where it lies. An image with a backing
// file, snapshots, encryption or clusters of another size is refused. After an error
// the file's content is worthless.
func Patch(f *os.File, clusters map[int64][]byte) error {
	p, err := newPatch(f)
	if err != nil {
		return fmt.Errorf("changing qcow2: %w", err)
	}
	for _, at := range slices.Sorted(maps.Keys(clusters)) {
		if at < 0 || at%clusterSize != 0 || at >= p.size || len(clusters[at]) != clusterSize {
			return fmt.Errorf("changing qcow2: %d bytes at %d are no cluster of a disk of %d bytes", len(clusters[at]), at, p.size)
		}
		if err := p.put(at, clusters[at]); err != nil {
			return fmt.Errorf("changing qcow2: the cluster at %d: %w", at, err)
		}
	}
	return nil
}

// Plain says why an image is not one that Patch changes, if so. It looks for no other file.
func Plain(f io.ReaderAt) error {
	_, err := readHeader(f)
	return err
}

// patch is an image that is changed.
type patch struct {
	f                *os.File
	size             int64 // of the disk
	end              int64 // of the file, whole clusters
	l1At, l1Len      int64
	refsAt, refsClus int64
}

func newPatch(f *os.File) (*patch, error) {
	p, err := readHeader(f)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	p.f, p.end = f, divUp(info.Size(), clusterSize)*clusterSize
	return p, nil
}

func readHeader(f io.ReaderAt) (*patch, error) {
	head := make([]byte, compressionField)
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, err
	}
	be := binary.BigEndian
	if string(head[:4]) != "QFI\xfb" || be.Uint32(head[4:]) != 3 {
		return nil, errors.New("no qcow2 of version 3")
	}
	for _, c := range []struct {
		what string
		bad  bool
	}{
		{"a backing file", be.Uint64(head[backingField:]) != 0},
		{fmt.Sprintf("clusters of 2^%d bytes", be.Uint32(head[20:])), be.Uint32(head[20:]) != clusterBits},
		{"encryption", be.Uint32(head[cryptField:]) != 0},
		{"snapshots", be.Uint32(head[snapshotsField:]) != 0},
		{"features that this program does not know", be.Uint64(head[incompatField:])&^compressionType != 0},
		{"reference counts of another size", be.Uint32(head[refOrderField:]) != 4},
	} {
		if c.bad {
			return nil, fmt.Errorf("the image has %s: `qemu-img convert -O qcow2` makes a plain one", c.what)
		}
	}
	p := &patch{l1Len: int64(be.Uint32(head[l1SizeField:])), refsClus: int64(be.Uint32(head[refsLenField:]))}
	for field, to := range map[int]*int64{sizeField: &p.size, l1AtField: &p.l1At, refsAtField: &p.refsAt} {
		w := be.Uint64(head[field:])
		if w > maxSize {
			return nil, errors.New("the header makes no sense")
		}
		*to = int64(w) // #nosec G115 -- checked
	}
	return p, nil
}

// put writes one cluster of the disk.
func (p *patch) put(at int64, data []byte) error {
	table, err := p.table(at)
	if err != nil {
		return err
	}
	slot := table + at/clusterSize%entriesPerTable*8
	entry, err := p.word(slot)
	if err != nil {
		return err
	}
	if host := hostOf(entry); entry&compressed == 0 && host != 0 {
		if err := p.inside(host); err != nil {
			return err
		}
		return errors.Join(p.write(data, host), p.refer(slot, host, copied))
	}
	if entry&compressed != 0 {
		if err := p.release(entry); err != nil {
			return err
		}
	}
	host, err := p.claim()
	if err != nil {
		return err
	}
	return errors.Join(p.write(data, host), p.refer(slot, host, copied))
}

// table is where the second-level table of a guest offset lies; it is made where there is none.
func (p *patch) table(at int64) (int64, error) {
	i := at / (clusterSize * entriesPerTable)
	if i >= p.l1Len {
		return 0, errors.New("the first-level table is too short")
	}
	entry, err := p.word(p.l1At + i*8)
	if err != nil {
		return 0, err
	}
	if host := hostOf(entry); host != 0 {
		return host, p.inside(host)
	}
	host, err := p.claim()
	if err != nil {
		return 0, err
	}
	return host, errors.Join(p.write(make([]byte, clusterSize), host), p.refer(p.l1At+i*8, host, copied))
}

// claim appends a cluster with one reference.
func (p *patch) claim() (int64, error) {
	host := p.end
	p.end += clusterSize
	if err := p.f.Truncate(p.end); err != nil {
		return 0, err
	}
	return host, p.count(host/clusterSize, 1)
}

// release takes one reference from each host cluster that a compressed one touches.
func (p *patch) release(entry uint64) error {
	from := int64(entry & (1<<sectorShift - 1))                      // #nosec G115 -- 54 bits
	sectors := int64(entry>>sectorShift)&(1<<(62-sectorShift)-1) + 1 // #nosec G115 -- 8 bits
	for c := from / clusterSize; c*clusterSize < from/512*512+sectors*512; c++ {
		if err := p.count(c, -1); err != nil {
			return err
		}
	}
	return nil
}

// count changes how often a host cluster is referred to. A block of counts that is not
// there yet is appended, and counts itself.
func (p *patch) count(cluster int64, by int) error {
	i := cluster / refsPerBlock
	if i >= p.refsClus*entriesPerTable {
		return errors.New("the file is too large for its table of reference counts")
	}
	entry, err := p.word(p.refsAt + i*8)
	if err != nil {
		return err
	}
	block := int64(entry &^ 511) // #nosec G115 -- checked next
	if block == 0 {
		block = p.end
		p.end += clusterSize
		if err := errors.Join(p.f.Truncate(p.end), p.refer(p.refsAt+i*8, block, 0), p.count(block/clusterSize, 1)); err != nil {
			return err
		}
	}
	if err := p.inside(block); err != nil {
		return err
	}
	var ref [2]byte
	at := block + cluster%refsPerBlock*2
	if _, err := p.f.ReadAt(ref[:], at); err != nil {
		return err
	}
	n := int(binary.BigEndian.Uint16(ref[:])) + by
	if n < 0 || n > 1<<16-1 {
		return fmt.Errorf("the reference count of host cluster %d makes no sense", cluster)
	}
	binary.BigEndian.PutUint16(ref[:], uint16(n))
	return p.write(ref[:], at)
}

// inside wants a host offset to be that of a whole cluster behind the header.
func (p *patch) inside(host int64) error {
	if host < clusterSize || host%clusterSize != 0 || host+clusterSize > p.end {
		return fmt.Errorf("the file has no cluster at %d", host)
	}
	return nil
}

func (p *patch) word(at int64) (uint64, error) {
	var b [8]byte
	_, err := p.f.ReadAt(b[:], at)
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("the file has no table at %d", at)
	}
	return binary.BigEndian.Uint64(b[:]), err
}

// refer writes a table's entry: where something lies in the file.
func (p *patch) refer(at, host int64, flags uint64) error {
	return p.write(binary.BigEndian.AppendUint64(nil, uint64(host)|flags), at) // #nosec G115 -- an offset
}

// hostOf is where what an entry stands for lies, unless it is compressed.
func hostOf(entry uint64) int64 { return int64(entry & hostMask) } // #nosec G115 -- 56 bits

func (p *patch) write(b []byte, at int64) error {
	_, err := p.f.WriteAt(b, at)
	return err
}
