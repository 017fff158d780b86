package firstboot

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// FuzzJournal wants a record that is taken to name a phase, and to be written
// back as it was.
func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"phase":"dirty","attempt":2,"config":"00","bootID":"x","hostname":"h","images":"unfinished"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(t.TempDir(), "journal.json")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := readJournal(file)
		if err != nil {
			return
		}
		if err := j.write(file); err != nil {
			t.Fatal(err)
		}
		if again, err := readJournal(file); err != nil || fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", j) {
			t.Errorf("%+v became %+v (%v)", j, again, err)
		}
	})
}
