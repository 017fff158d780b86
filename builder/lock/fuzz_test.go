package lock

import (
	"bytes"
	"testing"
)

// FuzzParse wants what is read to be written and read again as the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"format":1,"nodes":{"worker":{"asked":[{"kind":"part","name":"kubelet","source":"auto"}],"pins":[{"request":"kubelet","kind":"part","name":"kubelet","version":"1","arch":"amd64","source":"dir","digest":"h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}]}}}`))
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(`{"format":1,"nodes":null}{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(data)
		if err != nil {
			return
		}
		file.Stale("worker", []Request{{Kind: KindPart, Name: "kubelet", Version: "2"}})
		again, err := Parse(file.Bytes())
		if err != nil || !bytes.Equal(again.Bytes(), file.Bytes()) {
			t.Errorf("%v\n%s\n%s", err, file.Bytes(), again.Bytes())
		}
	})
}
