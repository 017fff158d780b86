// Package kmod reads and writes the binary indices that depmod(8) makes of a kernel's
// modules, and that libkmod, and so modprobe(8) and udev, look things up in: without
// them it finds nothing. The format is that of kmod's libkmod/libkmod-index.h, version 2.1.
package kmod

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Entry is one value of a key. Of several values that of the lowest priority comes
// first; depmod's is the module's place in modules.order.
type Entry struct {
	Key      string
	Priority uint32
	Value    string
}

const (
	magic   = 0xB007F457
	version = 2<<16 | 1
	head    = 12 // bytes: magic, version, where the root is

	// A reference to a node is its offset, and what it has.
	hasPrefix, hasValues, hasChildren = 1 << 31, 1 << 30, 1 << 29
	offsetMask                        = 1<<28 - 1
)

// Read lists what an index holds, by key. Several values of one key are in its order.
func Read(index []byte) ([]Entry, error) {
	be := binary.BigEndian
	if len(index) < head || len(index) > offsetMask || be.Uint32(index) != magic || be.Uint32(index[4:])>>16 != version>>16 {
		return nil, errors.New("no index of kernel modules, version 2")
	}
	r := reader{index: index, seen: map[int]bool{}}
	if r.node(be.Uint32(index[8:]), nil); r.bad {
		return nil, errors.New("the index of kernel modules makes no sense")
	}
	return r.out, nil
}

// reader walks the nodes, each of which it takes once.
type reader struct {
	index []byte
	out   []Entry
	seen  map[int]bool
	bad   bool
}

func (r *reader) node(ref uint32, key []byte) {
	begin := int(ref & offsetMask)
	if r.bad = r.bad || begin < head || begin > len(r.index) || r.seen[begin]; r.bad {
		return
	}
	r.seen[begin] = true
	at := begin
	if ref&hasPrefix != 0 {
		key = append(slices.Clip(key), r.text(&at)...)
	}
	children := map[byte]uint32{}
	if ref&hasChildren != 0 {
		span := r.bytes(&at, 2)
		for c := int(span[0]); c <= int(span[1]); c++ {
			children[byte(c)] = r.word(&at) // #nosec G115 -- between two bytes
		}
	}
	if ref&hasValues != 0 {
		for n := r.word(&at); n > 0 && !r.bad; n-- {
			r.out = append(r.out, Entry{Priority: r.word(&at), Key: string(key), Value: string(r.text(&at))})
		}
	}
	for _, c := range slices.Sorted(maps.Keys(children)) {
		if child := children[c]; child != 0 {
			r.node(child, append(slices.Clip(key), c))
		}
	}
}

// bytes takes the next n; where there are none it gives zeros.
func (r *reader) bytes(at *int, n int) []byte {
	if r.bad = r.bad || *at+n > len(r.index); r.bad {
		return make([]byte, n)
	}
	*at += n
	return r.index[*at-n : *at]
}

func (r *reader) word(at *int) uint32 { return binary.BigEndian.Uint32(r.bytes(at, 4)) }

func (r *reader) text(at *int) []byte {
	n := bytes.IndexByte(r.index[*at:], 0)
	if r.bad = r.bad || n < 0; r.bad {
		return nil
	}
	return r.bytes(at, n+1)[:n]
}

// Write makes an index, the same as depmod makes of the same entries. Several values of
// one key stay in their order.
func Write(entries []Entry) ([]byte, error) {
	for _, e := range entries {
		if strings.ContainsFunc(e.Key, func(c rune) bool { return c == 0 || c > 127 }) || strings.Contains(e.Value, "\x00") {
			return nil, fmt.Errorf("%q: no key of an index of kernel modules", e.Key)
		}
	}
	sorted := slices.Clone(entries)
	slices.SortStableFunc(sorted, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
	be := binary.BigEndian
	w := writer{out: be.AppendUint32(be.AppendUint32(make([]byte, 0, 1<<16), magic), version)}
	w.out = be.AppendUint32(w.out, 0)
	root := w.node(sorted, 0, true)
	be.PutUint32(w.out[8:], root)
	if len(w.out) > offsetMask {
		return nil, fmt.Errorf("an index of kernel modules of %d bytes", len(w.out))
	}
	return w.out, nil
}

type writer struct{ out []byte }

// node writes the entries, whose keys are alike up to from, as a node and those below
// it. The root has no prefix: depmod makes it before it knows a key.
func (w *writer) node(entries []Entry, from int, root bool) uint32 {
	to := from
	if !root {
		first, last := entries[0].Key, entries[len(entries)-1].Key
		for to < len(first) && to < len(last) && first[to] == last[to] {
			to++
		}
	}
	n := 0 // how many have this very key
	for n < len(entries) && len(entries[n].Key) == to {
		n++
	}
	below := entries[n:]
	ref, be := uint32(len(w.out))&offsetMask, binary.BigEndian // #nosec G115 -- Write looks at the length
	if to > from {
		w.out = append(append(w.out, entries[0].Key[from:to]...), 0)
		ref |= hasPrefix
	}
	table := 0
	if len(below) > 0 {
		low, high := below[0].Key[to], below[len(below)-1].Key[to]
		w.out = append(w.out, low, high)
		table = len(w.out) - 4*int(low)
		w.out = append(w.out, make([]byte, 4*(int(high-low)+1))...)
		ref |= hasChildren
	}
	if n > 0 {
		w.out = be.AppendUint32(w.out, uint32(n)) // #nosec G115 -- entries in memory
		for _, e := range entries[:n] {
			w.out = append(append(be.AppendUint32(w.out, e.Priority), e.Value...), 0)
		}
		ref |= hasValues
	}
	for len(below) > 0 {
		c := below[0].Key[to]
		n := 1
		for n < len(below) && below[n].Key[to] == c {
			n++
		}
		child := w.node(below[:n], to+1, false)
		be.PutUint32(w.out[table+4*int(c):], child)
		below = below[n:]
	}
	return ref
}
