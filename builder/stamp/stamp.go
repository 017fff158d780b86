// Package stamp writes what is one machine's own into one copy of an image: its node
// config, its name and keys in that, and its network. It lies in the EFI system
// partition as systemd credentials, where systemd-stub(7) looks for them; the root file
// system, and what vouches for it, stay as they are. Taken away again, not a byte of the
// disk is another.
package stamp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/esp"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/sparse"
	"github.com/imgbuild/imgbuild/internal/tree"
	"github.com/imgbuild/imgbuild/internal/whole"
)

// folder is where systemd-stub looks for credentials that are for every kernel, and
// ending what it takes for one. The node's RAM disk hands on those of these names alone.
const folder, ending = "loader/credentials", ".cred"

// maxNetwork bounds a file for the network, bytes.
const maxNetwork = 64 << 10

// Stamp is what one machine is told.
type Stamp struct {
	Config  []byte            // a node config; empty: none
	Network map[string][]byte // files of systemd.network(5), systemd.netdev(5), systemd.link(5): name → text

	// Of an install medium; other images leave both.
	Disk  string // device that it writes
	Again bool   // although that has its image already
}

func (s Stamp) empty() bool { return len(s.Config)+len(s.Network)+len(s.Disk) == 0 }

// Credential is one that an image carries. What is in it is a secret.
type Credential struct {
	Name string `json:"name"`
	Size int64  `json:"size"` // bytes
}

// Write makes dst a copy of an image, raw or qcow2, that carries the stamp, in the place of
// any that it carried; an empty stamp takes that away. dst appears whole, readable by its
// owner alone, or not at all; it may be the image itself.
func Write(ctx context.Context, image, dst string, s Stamp) error {
	credentials, err := s.credentials()
	if err != nil {
		return err
	}
	if dst, err = whole.Target(dst); err != nil {
		return err
	}
	in, err := os.Open(image) // #nosec G304 -- the image that the caller names
	if err != nil {
		return fault.Wrap(fault.Usage, err)
	}
	defer in.Close() //nolint:errcheck // read only
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if from, to := filepath.Ext(image), filepath.Ext(dst); from != to && (from == ".qcow2" || to == ".qcow2") {
		return fault.New(fault.Usage, "%s: a copy has the format of its image: name it *%s", dst, from)
	}
	out, err := os.CreateTemp(filepath.Dir(dst), "."+filepath.Base(dst)+"-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(out.Name()) //nolint:errcheck // gone by then, where all is well
	err = sparse.Copy(ctx, out, in, info.Size())
	if err == nil {
		err = stampDisk(ctx, out, s, credentials)
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("%s: %w", image, err)
	}
	return os.Rename(out.Name(), dst)
}

// Show lists what an image carries.
func Show(image string) ([]Credential, error) {
	out := []Credential{}
	err := reading(image, func(d *disk) error {
		for _, file := range slices.Sorted(maps.Keys(d.files)) {
			if name, ok := credential(file); ok {
				out = append(out, Credential{name, d.files[file].Size()})
			}
		}
		return nil
	})
	return out, err
}

// reading opens an image to look into it.
func reading(image string, look func(*disk) error) error {
	in, err := os.Open(image) // #nosec G304 -- the image that the caller names
	if err != nil {
		return fault.Wrap(fault.Usage, err)
	}
	defer in.Close() //nolint:errcheck // read only
	d, err := open(in)
	if err == nil {
		err = look(d)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", image, err)
	}
	return nil
}

// credential is the name of the credential in a file of the partition.
func credential(file string) (name string, ok bool) {
	name, ok = strings.CutSuffix(path.Base(file), ending)
	return name, ok && strings.EqualFold(path.Dir(file), folder)
}

// credentials are the stamp's, by name.
func (s Stamp) credentials() (map[string][]byte, error) {
	out := map[string][]byte{}
	if len(s.Config) > 0 {
		if _, err := config.Parse(s.Config); err != nil {
			return nil, fault.Wrap(fault.Spec, err)
		}
		out[config.Credential] = s.Config
	}
	for name, text := range s.Network {
		base, kind, _ := strings.Cut(name, ".")
		switch {
		case kind != "network" && kind != "netdev" && kind != "link" || strings.Trim(base, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || base == "":
			return nil, fault.New(fault.Spec, "%q: want a name such as 10-static.network (or .netdev, .link), of a-z, 0-9, - and _", name)
		case len(text) == 0 || len(text) > maxNetwork || bytes.IndexByte(text, 0) >= 0:
			return nil, fault.New(fault.Spec, "%s: want text of 1 to %d bytes", name, maxNetwork)
		case !strings.Contains(string(text), "["+map[string]string{"network": "Match", "netdev": "NetDev", "link": "Match"}[kind]+"]"):
			return nil, fault.New(fault.Spec, "%s: there is no section that says what it is for: see systemd.%s(5)", name, kind)
		}
		out["network."+kind+"."+base] = text
	}
	return out, nil
}

// stampDisk puts credentials, and no others, into the image f.
func stampDisk(ctx context.Context, f *os.File, s Stamp, credentials map[string][]byte) error {
	d, err := open(f)
	if err != nil {
		return err
	}
	if err := d.order(ctx, s, credentials); err != nil {
		return err
	}
	if len(s.Config) > 0 {
		c, err := config.Parse(s.Config)
		if err != nil {
			return err
		}
		if role, err := d.role(); err != nil || role != c.Role {
			return errors.Join(err, fault.New(fault.Spec, "it is a %s's image, the node config is a %s's", role, c.Role))
		}
	}
	for file := range d.files {
		if _, ok := credential(file); ok {
			delete(d.files, file)
		}
	}
	for name, text := range credentials {
		d.files[path.Join(folder, name+ending)] = tree.Bytes(text)
	}
	d.options.Folders = []string{folder}
	scratch, err := os.CreateTemp(filepath.Dir(f.Name()), ".stamp-*") // it holds what the image holds
	if err != nil {
		return err
	}
	defer scratch.Close()                                                                           //nolint:errcheck // thrown away
	if err := errors.Join(os.Remove(scratch.Name()), scratch.Truncate(d.part.Size())); err != nil { // without a name, a killed run leaves no secret in it
		return err
	}
	if err := esp.Write(ctx, scratch, 0, d.part.Size(), d.files, d.options); err != nil {
		return err
	}
	changed, err := difference(d.part, io.NewSectionReader(scratch, 0, d.part.Size()))
	if err != nil {
		return err
	}
	return d.write(changed)
}

// difference is what of want differs from is: offset → a page of pageSize.
func difference(is, want *io.SectionReader) (map[int64][]byte, error) {
	out := map[int64][]byte{}
	a, b := make([]byte, pageSize), make([]byte, pageSize)
	for at := int64(0); at < is.Size(); at += pageSize {
		_, err1 := is.ReadAt(a, at)
		_, err2 := want.ReadAt(b, at)
		if err := errors.Join(notEnd(err1), notEnd(err2)); err != nil {
			return nil, err
		}
		if !bytes.Equal(a, b) {
			out[at] = bytes.Clone(b)
		}
	}
	return out, nil
}

func notEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Role is the role whose image it is.
func Role(image string) (role string, err error) {
	err = reading(image, func(d *disk) (err error) {
		role, err = d.role()
		return err
	})
	return role, err
}
