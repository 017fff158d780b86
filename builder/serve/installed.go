package serve

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"
)

// installed is the file of the machines that are installed, a line for each: its name, a
// tab, the time. It outlives the server: a machine that boots from the network first is
// not to lose its disk to a restart. Who wants it installed anew takes its line out.
type installed struct {
	file  string
	mu    sync.Mutex
	stamp time.Time // of the file, as it was read
	size  int64
	names map[string]bool
}

// maxInstalled bounds the file, bytes.
const maxInstalled = 4 << 20

func openInstalled(file string) (*installed, error) {
	i := &installed{file: file, names: map[string]bool{}}
	if err := i.read(); err != nil {
		return nil, err
	}
	return i, nil
}

// read reads the file, where it is another one than before.
func (i *installed) read() error {
	info, err := os.Stat(i.file)
	if errors.Is(err, fs.ErrNotExist) {
		i.names, i.size = map[string]bool{}, 0
		return nil
	}
	if err != nil {
		return err
	}
	if info.ModTime().Equal(i.stamp) && info.Size() == i.size {
		return nil
	}
	if !info.Mode().IsRegular() || info.Size() > maxInstalled {
		return fmt.Errorf("%s: want a file of at most %d bytes", i.file, maxInstalled)
	}
	text, err := os.ReadFile(i.file) // #nosec G304 -- the file that the user names
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for n, line := range strings.Split(string(text), "\n") {
		name, when, _ := strings.Cut(line, "\t")
		if _, err := time.Parse(time.RFC3339, when); err == nil {
			names[name] = true
		} else if strings.TrimSpace(line) != "" && n != strings.Count(string(text), "\n") { // a last line may be torn
			return fmt.Errorf("%s: line %d: want a machine's name, a tab and a time", i.file, n+1)
		}
	}
	i.names, i.stamp, i.size = names, info.ModTime(), info.Size()
	return nil
}

// has says whether a machine is installed. Where the file cannot be read, it is as it was.
func (i *installed) has(name string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	_ = i.read() // what is known stays
	return i.names[name]
}

// add writes a machine down; it counts as installed even where that fails.
func (i *installed) add(name string, now time.Time) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.names[name] {
		return nil
	}
	i.names[name] = true
	f, err := os.OpenFile(i.file, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644) // #nosec G302 G304 -- names, in the file that the user names
	if err != nil {
		return err
	}
	line := fmt.Appendf(nil, "%s\t%s\n", name, now.UTC().Format(time.RFC3339))
	if info, err := f.Stat(); err == nil && info.Size() > 0 { // a line that a power cut tore ends here
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			line = bytes.Join([][]byte{nil, line}, []byte("\n"))
		}
	}
	_, err = f.Write(line)
	return errors.Join(err, f.Sync(), f.Close())
}
