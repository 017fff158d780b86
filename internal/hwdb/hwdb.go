// Package hwdb compiles the hardware database of udev, hwdb(7), as systemd-hwdb(8) of
// systemd 257 does: text records into one file that holds a trie of what they match
// (systemd's src/libsystemd/sd-hwdb/hwdb-internal.h). The same files in the same order
// give the same bytes as systemd-hwdb's.
package hwdb

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// toolVersion is what the file says of who wrote it: systemd 257.
const toolVersion = 257

const (
	signature                                  = "KSLPHHRH"
	headSize, nodeSize, childSize, recordBytes = 80, 24, 16, 32
)

// Database is a hardware database in the making.
type Database struct {
	root    *node
	strings pool
	files   uint16
}

// New returns an empty database.
func New() *Database {
	return &Database{root: &node{}, strings: pool{buf: []byte{0}}}
}

type node struct {
	prefix   int // of the string pool
	children []child
	values   []value
}

type child struct {
	c    byte
	node *node
}

type value struct {
	key, value, file int // of the string pool
	line             uint32
	priority         uint16
}

// Add reads one file. A later file's values go before an earlier one's. Lines that
// systemd-hwdb would pass over with a warning are an error.
func (d *Database) Add(name string, text []byte) error {
	d.files++
	var matches []string
	inData := false
	number := uint32(0)
	for line := range bytes.Lines(text) {
		number++
		if line[0] == '#' {
			continue
		}
		kept, _, _ := strings.Cut(string(line), "#")
		kept = strings.TrimRight(kept, " \t\n\v\f\r")
		switch {
		case kept == "":
			if matches != nil && !inData {
				return fmt.Errorf("%s:%d: a record without properties", name, number)
			}
			matches, inData = nil, false
		case kept[0] == ' ':
			if matches == nil {
				return fmt.Errorf("%s:%d: a property without a match", name, number)
			}
			inData = true
			key, v, ok := strings.Cut(kept, "=")
			if key = " " + strings.TrimLeft(key, " \t"); !ok || key == " " {
				return fmt.Errorf("%s:%d: a property is KEY=value", name, number)
			}
			for _, m := range matches {
				d.insert(m, value{file: -1, line: number, priority: d.files}, key, v, name)
			}
		case inData:
			return fmt.Errorf("%s:%d: a match right after a property: an empty line is missing", name, number)
		default:
			matches = append(matches, kept)
		}
	}
	return nil
}

// insert puts a value where the match leads.
func (d *Database) insert(match string, v value, key, val, file string) {
	n := d.root
	for i := 0; ; i++ {
		prefix := d.strings.at(n.prefix)
		p := 0
		for p < len(prefix) && i+p < len(match) && prefix[p] == match[i+p] {
			p++
		}
		if p < len(prefix) { // the node's prefix goes on otherwise: split it
			lower := &node{n.prefix + p + 1, n.children, n.values}
			c := prefix[p]
			*n = node{prefix: d.strings.add(prefix[:p])}
			n.add(c, lower)
		}
		i += p
		if i == len(match) {
			d.set(n, v, key, val, file)
			return
		}
		next := n.find(match[i])
		if next == nil {
			next = &node{prefix: d.strings.add(match[i+1:])}
			n.add(match[i], next)
			d.set(next, v, key, val, file)
			return
		}
		n = next
	}
}

func (n *node) search(c byte) (int, bool) {
	return slices.BinarySearchFunc(n.children, c, func(x child, c byte) int { return int(x.c) - int(c) })
}

func (n *node) find(c byte) *node {
	if i, ok := n.search(c); ok {
		return n.children[i].node
	}
	return nil
}

func (n *node) add(c byte, below *node) {
	i, _ := n.search(c)
	n.children = slices.Insert(n.children, i, child{c, below})
}

// set adds a value, or puts it in place of an earlier file's of the same key.
func (d *Database) set(n *node, v value, key, val, file string) {
	v.key, v.value, v.file = d.strings.add(key), d.strings.add(val), d.strings.add(file)
	i, ok := slices.BinarySearchFunc(n.values, key, func(x value, key string) int { return strings.Compare(d.strings.at(x.key), key) })
	if ok {
		n.values[i] = v
		return
	}
	n.values = slices.Insert(n.values, i, v)
}

// Bytes is the compiled file.
func (d *Database) Bytes() []byte {
	w := writer{base: headSize + size(d.root), out: make([]byte, headSize, headSize+size(d.root)+len(d.strings.buf))}
	root := w.node(d.root)
	nodes := len(w.out) - headSize
	w.out = append(w.out, d.strings.buf...)
	copy(w.out, signature)
	for i, v := range []int{toolVersion, len(w.out), headSize, nodeSize, childSize, recordBytes, root, nodes, len(d.strings.buf)} {
		binary.LittleEndian.PutUint64(w.out[8+8*i:], uint64(v)) // #nosec G115 -- sizes in memory
	}
	return w.out
}

func size(n *node) int {
	total := nodeSize + childSize*len(n.children) + recordBytes*len(n.values)
	for _, c := range n.children {
		total += size(c.node)
	}
	return total
}

type writer struct {
	base int // where the strings begin
	out  []byte
}

func (w *writer) word(v int) { w.out = binary.LittleEndian.AppendUint64(w.out, uint64(v)) } // #nosec G115 -- sizes in memory

// node writes what is below n, then n itself, and returns where that lies.
func (w *writer) node(n *node) int {
	places := make([]int, len(n.children))
	for i, c := range n.children {
		places[i] = w.node(c.node)
	}
	at := len(w.out)
	w.word(w.base + n.prefix)
	w.word(len(n.children)) // a byte, and seven that stay empty
	w.word(len(n.values))
	for i, c := range n.children {
		w.word(int(c.c))
		w.word(places[i])
	}
	for _, v := range n.values {
		w.word(w.base + v.key)
		w.word(w.base + v.value)
		w.word(w.base + v.file)
		w.out = binary.LittleEndian.AppendUint32(w.out, v.line)
		w.out = binary.LittleEndian.AppendUint32(w.out, uint32(v.priority))
	}
	return at
}

// pool keeps strings, each closed by a NUL. One that ends an earlier one lies in it, as
// far as a search from the last byte finds it (systemd's src/basic/strbuf.c).
type pool struct {
	buf  []byte
	root tail
}

type tail struct {
	offset, length int
	below          map[byte]*tail
}

func (p *pool) at(offset int) string {
	return string(p.buf[offset : offset+bytes.IndexByte(p.buf[offset:], 0)])
}

func (p *pool) add(s string) int {
	if s == "" {
		return 0
	}
	n := &p.root
	for depth := 0; ; depth++ {
		offset := n.offset + n.length - len(s)
		if depth == len(s) || n.length >= len(s) && string(p.buf[offset:offset+len(s)]) == s {
			return offset
		}
		c := s[len(s)-1-depth]
		next := n.below[c]
		if next == nil {
			next = &tail{offset: len(p.buf), length: len(s)}
			if n.below == nil {
				n.below = map[byte]*tail{}
			}
			n.below[c] = next
			p.buf = append(append(p.buf, s...), 0)
			return next.offset
		}
		n = next
	}
}
