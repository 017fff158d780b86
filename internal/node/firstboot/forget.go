package firstboot

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

// cloudState is where cloud-init keeps what its provider said, in files of several
// forms (plain text, JSON, pickle).
const cloudState = "/var/lib/cloud"

// maxState bounds what is searched of one such file.
const maxState = 8 << 20

// forget removes the node config that a config for a host has put on this disk, and
// writes over its token where cloud-init has kept a copy. What the provider itself
// keeps is out of reach. A member it is all the same where that fails; the next boot
// tries again, for the file goes last.
func (a *Agent) forget() {
	if err := a.forgetToken(); err != nil {
		a.say("the join token is on this disk still: %v", err)
	}
}

func (a *Agent) forgetToken() error {
	file := a.path(config.Credstore)
	data, err := os.ReadFile(file) // #nosec G304 -- a fixed path of the node
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if c, err := config.Parse(data); err == nil {
		if err := overwrite(a.path(cloudState), []byte(c.Token.Reveal())); err != nil {
			return err
		}
	}
	if err := os.Remove(file); err != nil {
		return err
	}
	return syncDir(filepath.Dir(file))
}

// overwrite puts as many x in the place of text, wherever it stands in a file below dir.
func overwrite(dir string, text []byte) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return overwriteIn(name, text)
	})
}

func overwriteIn(name string, text []byte) (err error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0) // #nosec G304 -- cloud-init's own state
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err := io.ReadAll(io.LimitReader(f, maxState))
	if err != nil || !bytes.Contains(data, text) {
		return err
	}
	blank := bytes.ReplaceAll(data, text, bytes.Repeat([]byte("x"), len(text)))
	if _, err := f.WriteAt(blank, 0); err != nil {
		return err
	}
	return f.Sync()
}
