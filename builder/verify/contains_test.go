package verify

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// TestContains finds a word wherever reads happen to end.
func TestContains(t *testing.T) {
	for _, at := range []int{0, 1, 1<<20 - 4, 1<<20 - 1, 1 << 20, 3<<20 - 7} {
		text := append(bytes.Repeat([]byte("v1.37."), 3<<20/6), "v1.37."...)
		copy(text[at:], "v1.37.2")
		for name, r := range map[string]io.Reader{"whole": bytes.NewReader(text), "halves": iotest.HalfReader(bytes.NewReader(text)), "with the end": iotest.DataErrReader(bytes.NewReader(text))} {
			if found, err := contains(r, []byte("v1.37.2")); !found || err != nil {
				t.Errorf("%s: at %d: %v, %v", name, at, found, err)
			}
		}
	}
	if found, err := contains(iotest.OneByteReader(strings.NewReader("v1.37.v1.37.")), []byte("v1.37.2")); found || err != nil {
		t.Errorf("not there: %v, %v", found, err)
	}
	if _, err := contains(iotest.ErrReader(io.ErrUnexpectedEOF), []byte("v1")); err == nil {
		t.Error("an error was lost")
	}
}
