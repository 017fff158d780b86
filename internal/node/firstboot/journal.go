package firstboot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

// Phase is how far a node has come, as its journal says. It only ever moves
// forward, but for Dirty, which a wipe turns back into Fresh.
type Phase string

// The phases. Before Published a node may be wiped and tried again; from then on
// others may have seen the cluster, and it is only ever resumed.
const (
	Fresh     Phase = "fresh"     // nothing of a cluster is on the disk
	Dirty     Phase = "dirty"     // kubeadm has begun to write
	Published Phase = "published" // the control plane answers; others may know it
	Committed Phase = "committed" // a member of its cluster, for good
)

// Journal is the record that decides what a boot does.
type Journal struct {
	Phase    Phase   `json:"phase"`
	Attempt  int     `json:"attempt"` // tries since the node config changed
	Config   string  `json:"config"`  // sha256 of the node config that the tries used
	BootID   string  `json:"bootID"`
	Hostname string  `json:"hostname"`
	Machine  Machine `json:"machine,omitzero"` // that the disk belongs to

	Note *config.Note `json:"note,omitempty"` // of a member: what its cluster was not told yet

	// Of a master; the lists have blanks between.
	Address string `json:"address,omitempty"` // its own, which other masters know
	Virtual string `json:"virtual,omitempty"` // the address that masters hold among themselves
	Masters string `json:"masters,omitempty"` // the addresses of all masters that hold it
	Peers   string `json:"peers,omitempty"`   // the members of etcd before this machine joined
	Cluster string `json:"cluster,omitempty"` // sha256 of the authority of the cluster that the tries were for
	Stopped string `json:"stopped,omitempty"` // why the node config is not tried again
}

// readJournal returns the record, or a fresh one where there is none. A record
// that cannot be read is an error: guessing could wipe a member of a cluster.
func readJournal(file string) (Journal, error) {
	data, err := os.ReadFile(file) // #nosec G304 -- a fixed path of the node
	if errors.Is(err, fs.ErrNotExist) {
		return Journal{Phase: Fresh}, nil
	}
	if err != nil {
		return Journal{}, err
	}
	var j Journal
	if err := json.Unmarshal(data, &j); err != nil {
		return Journal{}, fmt.Errorf("%s is damaged: %w", file, err)
	}
	switch j.Phase {
	case Fresh, Dirty, Published, Committed:
		return j, nil
	}
	return Journal{}, fmt.Errorf("%s is damaged: phase %q", file, j.Phase)
}

// write puts the record on the disk: temporary file, fsync, rename, fsync of the
// folder, so that a power cut leaves the old record or the new one.
func (j Journal) write(file string) error {
	data, err := json.MarshalIndent(j, "", " ")
	if err != nil {
		return err
	}
	return writeDurably(file, append(data, '\n'), 0o600)
}

func writeDurably(file string, data []byte, perm os.FileMode) (err error) {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o755); err != nil { // #nosec G301 -- as the folders of /var and /etc are
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(file)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone by the rename if all went well
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(perm), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir) // #nosec G304 -- a folder that was just written
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
