package qcow2

import (
	"bufio"
	"encoding/binary"
	"io"
	"os"

	"github.com/imgbuild/imgbuild/internal/sparse"
)

const (
	entriesPerTable = clusterSize / 8 // second-level entries in one table
	refsPerBlock    = clusterSize / 2

	copied     = 1 << 63 // reference count is exactly one
	compressed = 1 << 62
	// sectorShift is where a compressed cluster's entry keeps its number of sectors.
	sectorShift = 62 - (clusterBits - 8)

	headerLength = 112 // with the kind of compression, which is one byte, up to a multiple of 8
)

// image is the file being written, from front to back: header and first-level
// table (left blank until the end), data, second-level tables, reference counts.
type image struct {
	f    *os.File
	opt  Options
	out  *bufio.Writer
	at   int64
	size int64
	l1   []uint64
	l2   map[int64][]uint64 // by first-level index
	refs []uint16           // by host cluster
	zero []byte
}

func newImage(f *os.File, size int64, opt Options) (*image, error) {
	if err := f.Truncate(0); err != nil {
		return nil, err
	}
	img := &image{f: f, opt: opt, size: size, l2: map[int64][]uint64{}, zero: make([]byte, clusterSize)}
	img.l1 = make([]uint64, divUp(size, clusterSize*entriesPerTable))
	img.at = clusterSize * (1 + img.l1Clusters())
	img.claim(0, img.at)
	if _, err := f.Seek(img.at, io.SeekStart); err != nil {
		return nil, err
	}
	img.out = bufio.NewWriterSize(f, 1<<20)
	return img, nil
}

func divUp(n, by int64) int64 { return (n + by - 1) / by }

func (img *image) l1Clusters() int64 { return divUp(int64(len(img.l1))*8, clusterSize) }

// claim counts one reference to each host cluster that the range touches.
func (img *image) claim(from, to int64) {
	for c := from >> clusterBits; c <= (to-1)>>clusterBits; c++ {
		for int64(len(img.refs)) <= c {
			img.refs = append(img.refs, 0)
		}
		img.refs[c]++
	}
}

// append writes b at the end and returns where it lies.
func (img *image) append(b []byte) (int64, error) {
	at := img.at
	_, err := img.out.Write(b)
	img.at += int64(len(b))
	img.claim(at, img.at)
	return at, err
}

// align fills the file up to a whole cluster.
func (img *image) align() error {
	n := -img.at & (clusterSize - 1)
	_, err := img.out.Write(img.zero[:n])
	img.at += n
	return err
}

// put stores a guest cluster and enters it in its table.
func (img *image) put(b *sparse.Block) error {
	var entry uint64
	if packed := b.Packed.Bytes(); len(packed) > 0 {
		at, err := img.append(packed)
		if err != nil {
			return err
		}
		sectors := (at+int64(len(packed))-1)>>9 - at>>9                // besides the first
		entry = compressed | uint64(sectors)<<sectorShift | uint64(at) // #nosec G115 -- offsets are not negative
	} else {
		if err := img.align(); err != nil {
			return err
		}
		at, err := img.append(b.Plain)
		if err != nil {
			return err
		}
		entry = copied | uint64(at) // #nosec G115 -- offsets are not negative
	}
	index := b.At >> clusterBits
	first := index / entriesPerTable
	if img.l2[first] == nil {
		img.l2[first] = make([]uint64, entriesPerTable)
	}
	img.l2[first][index%entriesPerTable] = entry
	return nil
}

// finish writes the tables, then the header, without which nothing is an image.
func (img *image) finish() error {
	if err := img.align(); err != nil {
		return err
	}
	for i := range img.l1 {
		table := img.l2[int64(i)]
		if table == nil {
			continue
		}
		at, err := img.append(bigEndian(table))
		if err != nil {
			return err
		}
		img.l1[i] = copied | uint64(at) // #nosec G115 -- offsets are not negative
	}
	tableAt, tableClusters, err := img.writeRefs()
	if err != nil {
		return err
	}
	if err := img.out.Flush(); err != nil {
		return err
	}
	if _, err := img.f.WriteAt(bigEndian(img.l1), clusterSize); err != nil {
		return err
	}
	_, err = img.f.WriteAt(img.header(tableAt, tableClusters), 0)
	return err
}

// writeRefs writes the reference counts, which count themselves too.
func (img *image) writeRefs() (tableAt, tableClusters int64, err error) {
	tableAt = img.at
	used := img.at >> clusterBits
	blocks := int64(0)
	for {
		tableClusters = divUp(blocks*8, clusterSize)
		need := divUp(used+tableClusters+blocks, refsPerBlock)
		if need == blocks {
			break
		}
		blocks = need
	}
	firstBlock := tableAt + tableClusters*clusterSize
	img.claim(tableAt, firstBlock+blocks*clusterSize)
	table := make([]uint64, tableClusters*entriesPerTable)
	for i := range blocks {
		table[i] = uint64(firstBlock + i*clusterSize) // #nosec G115 -- offsets are not negative
	}
	if _, err := img.out.Write(bigEndian(table)); err != nil {
		return 0, 0, err
	}
	counts := make([]byte, blocks*clusterSize)
	for i, n := range img.refs {
		binary.BigEndian.PutUint16(counts[2*i:], n)
	}
	if _, err := img.out.Write(counts); err != nil {
		return 0, 0, err
	}
	return tableAt, tableClusters, nil
}

func bigEndian(words []uint64) []byte {
	b := make([]byte, 0, 8*len(words))
	for _, w := range words {
		b = binary.BigEndian.AppendUint64(b, w)
	}
	return b
}

func (img *image) header(refsAt, refClusters int64) []byte {
	be := binary.BigEndian
	b := make([]byte, headerLength+8) // the end of the (absent) header extensions
	copy(b, "QFI\xfb")
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], clusterBits)
	be.PutUint64(b[24:], uint64(img.size))    // #nosec G115 -- checked positive
	be.PutUint32(b[36:], uint32(len(img.l1))) // #nosec G115 -- maxSize bounds it
	be.PutUint64(b[40:], clusterSize)         // first-level table
	be.PutUint64(b[48:], uint64(refsAt))      // #nosec G115 -- not negative
	be.PutUint32(b[56:], uint32(refClusters)) // #nosec G115 -- small
	be.PutUint32(b[96:], 4)                   // 2⁴ bits for each reference count
	be.PutUint32(b[100:], headerLength)
	if img.opt.Compress {
		be.PutUint64(b[incompatField:], compressionType)
		b[compressionField] = zstdType
	}
	return b
}
