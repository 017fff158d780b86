// Package writelog reads a record of everything that was written to a disk, in
// order, in the format of Linux' dm-log-writes target (Documentation/admin-guide/
// device-mapper/log-writes.rst), as QEMU's blklogwrites driver writes it, and
// replays it up to any point: the disk as a power cut there would have left it.
package writelog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	magic   = 0x6a736677736872
	version = 1

	flagFlush   = 1 << 0
	flagFUA     = 1 << 1
	flagDiscard = 1 << 2

	superSize = 8 + 8 + 8 + 4
	entrySize = 8 + 8 + 8 + 8
)

// Entry is one write.
type Entry struct {
	Offset, Size int64 // bytes on the disk; Size is 0 for a flush alone
	Flush        bool  // all entries before this one are on the disk for good
	FUA          bool  // so is this one
	Discard      bool  // no data: the range may read as anything, here as zeros
	at           int64 // of the data in the log
}

// Log is an open record.
type Log struct {
	file    io.ReaderAt
	Entries []Entry
}

// Open reads the entries of a record of size bytes. One that was cut off ends with
// its last whole entry: what the record's own head counts is not waited for.
func Open(file io.ReaderAt, size int64) (*Log, error) {
	head := make([]byte, superSize)
	if _, err := file.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("the record of writes has no head: %w", err)
	}
	le := binary.LittleEndian
	sector := int64(le.Uint32(head[24:]))
	if le.Uint64(head) != magic || le.Uint64(head[8:]) != version || sector < 512 || sector > 1<<16 || sector&(sector-1) != 0 {
		return nil, errors.New("this is no record of writes in the dm-log-writes format, version 1")
	}
	l := &Log{file: file}
	for at := sector; at+sector <= size; {
		raw := make([]byte, entrySize)
		if _, err := file.ReadAt(raw, at); err != nil {
			return nil, err
		}
		start, count, flags := le.Uint64(raw), le.Uint64(raw[8:]), le.Uint64(raw[16:])
		if start > 1<<50/512 || count > 1<<32/512 {
			return nil, fmt.Errorf("entry %d of the record of writes lies outside any disk", len(l.Entries))
		}
		e := Entry{Offset: int64(start) * sector, Size: int64(count) * sector, Flush: flags&flagFlush != 0, FUA: flags&flagFUA != 0, Discard: flags&flagDiscard != 0, at: at + sector}
		at += sector
		if !e.Discard {
			at += e.Size
		}
		if at > size || flags == 0 && count == 0 { // cut off; or not written yet
			break
		}
		l.Entries = append(l.Entries, e)
	}
	return l, nil
}

// Flushes are the indexes of the entries at which all before is on the disk.
func (l *Log) Flushes() (out []int) {
	for i, e := range l.Entries {
		if e.Flush {
			out = append(out, i)
		}
	}
	return out
}

// Replay writes entries from (included) to to (excluded) that keep says yes to; a
// nil keep takes them all.
func (l *Log) Replay(disk io.WriterAt, from, to int, keep func(i int, e Entry) bool) error {
	buf := make([]byte, 1<<20)
	for i := from; i < to; i++ {
		e := l.Entries[i]
		if keep != nil && !keep(i, e) {
			continue
		}
		for done := int64(0); done < e.Size; {
			part := buf[:min(int64(len(buf)), e.Size-done)]
			if e.Discard {
				clear(part)
			} else if _, err := l.file.ReadAt(part, e.at+done); err != nil {
				return fmt.Errorf("entry %d of the record of writes: %w", i, err)
			}
			if _, err := disk.WriteAt(part, e.Offset+done); err != nil {
				return err
			}
			done += int64(len(part))
		}
	}
	return nil
}
