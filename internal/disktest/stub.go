package disktest

import "encoding/binary"

// Stub makes the smallest PE file that a UKI can be built around.
func Stub() []byte {
	b, le := make([]byte, 1024), binary.LittleEndian
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], 64)
	copy(b[64:], "PE\x00\x00\x64\x86")
	le.PutUint16(b[64+6:], 1)      // sections
	le.PutUint16(b[64+20:], 240)   // size of the optional header
	le.PutUint16(b[64+22:], 0x22e) // characteristics
	opt := b[88:]
	le.PutUint16(opt, 0x20b)
	le.PutUint32(opt[32:], 4096) // section alignment
	le.PutUint32(opt[36:], 512)  // file alignment
	le.PutUint32(opt[56:], 8192) // size of the image
	le.PutUint32(opt[60:], 512)  // size of the headers
	le.PutUint32(opt[108:], 16)  // directories
	s := opt[240:]
	copy(s, ".text")
	for i, v := range []uint32{100, 4096, 512, 512} {
		le.PutUint32(s[8+4*i:], v)
	}
	return b
}
