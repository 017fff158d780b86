package stamp

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/imgbuild/imgbuild/builder/inventory"
	"github.com/imgbuild/imgbuild/internal/fault"
)

// maxConfig bounds what is read of a node config, bytes: more than one may have.
const maxConfig = 1 << 20

// Of reads what a machine is told from the files that it names.
func Of(m *inventory.Machine) (Stamp, error) {
	s := Stamp{Network: map[string][]byte{}, Disk: m.Disk}
	if m.Config != "" {
		text, err := read(m.Config, maxConfig)
		if err != nil {
			return s, fault.New(fault.Usage, "reading the node config: %w", err)
		}
		if s.Config, err = Personal(text, m.Name, m.SSHAuthorizedKeys); err != nil {
			return s, fmt.Errorf("%s: %w", m.Config, err)
		}
	}
	for _, file := range m.Network {
		text, err := read(file, maxNetwork)
		if err != nil {
			return s, fault.New(fault.Usage, "reading a file for the network: %w", err)
		}
		if _, twice := s.Network[filepath.Base(file)]; twice {
			return s, fault.New(fault.Usage, "%s: two files for the network are called so", filepath.Base(file))
		}
		s.Network[filepath.Base(file)] = text
	}
	return s, nil
}

// read stops one byte behind the limit, so that what is too large is seen to be so.
func read(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name) // #nosec G304 -- the file that the caller names
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	return io.ReadAll(io.LimitReader(f, limit+1))
}
