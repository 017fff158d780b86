// Package inventory reads the list of an operator's machines: who each is, what it is
// told, and how it is known on the network.
package inventory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/google/uuid"
	"go.yaml.in/yaml/v3"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/node/config"
)

// Kind is what the file calls itself, beside the API version of node configs.
const Kind = "Inventory"

// maxFile bounds the file, bytes; maxMachines how many it can name.
const maxFile, maxMachines = 4 << 20, 10000

// Inventory is the machines, and what one gets that is not named.
type Inventory struct {
	APIVersion string    `yaml:"apiVersion"`
	Kind       string    `yaml:"kind"`
	Machines   []Machine `yaml:"machines"`
	Default    *Machine  `yaml:"default,omitempty"` // without names: of any machine that is not listed; none: it is refused
}

// Machine is one machine. Files are relative to the inventory's folder until Read returns.
type Machine struct {
	Name   string   `yaml:"name"`             // its host name; of what is made for it
	Role   string   `yaml:"role"`             // master or worker
	Config string   `yaml:"config,omitempty"` // file: its node config
	MAC    []string `yaml:"mac,omitempty"`    // of its links, lower case once read
	Serial string   `yaml:"serial,omitempty"` // as its firmware says (SMBIOS type 1)
	UUID   string   `yaml:"uuid,omitempty"`   // as its firmware says; lower case once read
	// Files for its network: systemd.network(5), .netdev, .link.
	Network           []string `yaml:"network,omitempty"`
	SSHAuthorizedKeys []string `yaml:"sshAuthorizedKeys,omitempty"`
	// When it boots from the network: install (the default), diskless or local.
	Boot string `yaml:"boot,omitempty"`
	Disk string `yaml:"disk,omitempty"` // device: installed onto; of a diskless machine, what /var is on
	// File for a machine with another operating system, in the place of all that makes a
	// node of it: its Ignition config, or cloud-init user data.
	UserData string `yaml:"userData,omitempty"`

	line int
}

// What a machine does that boots from the network.
const (
	Install  = "install"  // the image is written to its disk
	Diskless = "diskless" // it runs from memory
	Local    = "local"    // nothing: its firmware goes on to its disk
)

// Line is the machine's line in the file.
func (m *Machine) Line() int { return m.line }

// UnmarshalYAML keeps the line for what is wrong with it.
func (m *Machine) UnmarshalYAML(n *yaml.Node) error {
	type plain Machine
	if n.Kind == yaml.MappingNode { // the decoder's strictness ends at such a method
		for i := 0; i < len(n.Content); i += 2 {
			if key := n.Content[i]; !fields[key.Value] {
				return fmt.Errorf("line %d: field %s is not one of a machine", key.Line, key.Value)
			}
		}
	}
	m.line = n.Line
	return n.Decode((*plain)(m))
}

var fields = map[string]bool{"name": true, "role": true, "config": true, "mac": true, "serial": true, "uuid": true, "network": true, "sshAuthorizedKeys": true, "boot": true, "disk": true, "userData": true}

// Read reads an inventory and reports all that is wrong with it, each by its line.
func Read(file string) (*Inventory, error) {
	f, err := os.Open(file) // #nosec G304 -- the file that the caller names
	if err != nil {
		return nil, fault.Wrap(fault.Usage, err)
	}
	defer f.Close() //nolint:errcheck // read only
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	inv, err := Parse(data)
	if err != nil {
		return nil, fault.New(fault.Spec, "%s: %w", file, err)
	}
	for _, m := range inv.all() {
		for _, name := range append(m.paths(), &m.Config, &m.UserData) {
			if *name != "" && !filepath.IsAbs(*name) {
				*name = filepath.Join(filepath.Dir(file), *name)
			}
		}
	}
	return inv, nil
}

// Parse reads an inventory; its files are as it spells them.
func Parse(data []byte) (*Inventory, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("more than %d bytes", maxFile)
	}
	var inv Inventory
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&inv); err != nil {
		return nil, err
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("a second document follows the first")
	}
	return &inv, inv.check()
}

func (inv *Inventory) all() []*Machine {
	var out []*Machine
	for i := range inv.Machines {
		out = append(out, &inv.Machines[i])
	}
	if inv.Default != nil {
		out = append(out, inv.Default)
	}
	return out
}

func (m *Machine) paths() (out []*string) {
	for i := range m.Network {
		out = append(out, &m.Network[i])
	}
	return out
}

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (inv *Inventory) check() error {
	var errs []error
	if inv.APIVersion != config.APIVersion || inv.Kind != Kind {
		errs = append(errs, fmt.Errorf("apiVersion, kind: want %s and %s", config.APIVersion, Kind))
	}
	if len(inv.Machines) > maxMachines {
		return fmt.Errorf("%d machines, at most %d", len(inv.Machines), maxMachines)
	}
	seen := map[string]int{} // what a machine is known by → its line
	for i := range inv.Machines {
		m := &inv.Machines[i]
		errs = append(errs, m.check()...)
		if !nameForm.MatchString(m.Name) {
			errs = append(errs, m.bad("name", "%q: want a DNS label", m.Name))
		}
		for _, key := range m.Keys() {
			if other, ok := seen[key]; ok {
				errs = append(errs, m.bad(key, "the machine of line %d is known by it, too", other))
			}
			seen[key] = m.line
		}
	}
	if d := inv.Default; d != nil {
		errs = append(errs, d.check()...)
		if len(d.Keys()) > 0 || len(d.Network) > 0 {
			errs = append(errs, d.bad("default", "name, mac, serial, uuid and network are one machine's own"))
		}
	}
	return errors.Join(errs...)
}

// Keys are what a machine is known by, each with its kind: no two machines share one.
func (m *Machine) Keys() (out []string) {
	for _, mac := range m.MAC {
		out = append(out, "mac "+mac)
	}
	for kind, v := range map[string]string{"name": m.Name, "serial": m.Serial, "uuid": m.UUID} {
		if v != "" {
			out = append(out, kind+" "+v)
		}
	}
	return out
}

// check looks at one machine, and brings its addresses into one form.
func (m *Machine) check() (errs []error) {
	if m.Role != config.Master && m.Role != config.Worker && (m.UserData == "" || m.Role != "") {
		errs = append(errs, m.bad("role", "%q: want master or worker", m.Role))
	}
	for i, text := range m.MAC {
		mac, err := net.ParseMAC(text)
		if err != nil || len(mac) != 6 {
			errs = append(errs, m.bad(fmt.Sprintf("mac[%d]", i), "%q: want six bytes such as 52:54:00:00:00:0a", text))
			continue
		}
		m.MAC[i] = mac.String()
	}
	if m.UUID != "" {
		id, err := uuid.Parse(m.UUID)
		if err != nil || len(m.UUID) != 36 {
			errs = append(errs, m.bad("uuid", "%q: want one such as 4c4c4544-0042-3510-8051-b4c04f303132", m.UUID))
		}
		m.UUID = id.String()
	}
	if len(m.Serial) > 64 || strings.ContainsFunc(m.Serial, func(r rune) bool { return r < ' ' || r > '~' }) {
		errs = append(errs, m.bad("serial", "%q: want at most 64 characters that can be printed", m.Serial))
	}
	for i, key := range m.SSHAuthorizedKeys {
		if strings.ContainsAny(key, "\n\r\x00") || !strings.Contains(key, " ") {
			errs = append(errs, m.bad(fmt.Sprintf("sshAuthorizedKeys[%d]", i), "want one public key on one line"))
		}
	}
	return append(errs, m.checkBoot()...)
}

var diskForm = regexp.MustCompile(`^/dev/[A-Za-z0-9_.:+/-]{1,200}$`)

// IsDisk says whether a text can be the name of a disk.
func IsDisk(name string) bool { return diskForm.MatchString(name) && path.Clean(name) == name }

func (m *Machine) checkBoot() (errs []error) {
	switch m.Boot {
	case "", Install, Diskless, Local:
	default:
		errs = append(errs, m.bad("boot", "%q: want install, diskless or local", m.Boot))
	}
	if m.Disk != "" && !IsDisk(m.Disk) {
		errs = append(errs, m.bad("disk", "%q: want a device such as /dev/vda or /dev/disk/by-id/…", m.Disk))
	}
	if m.Disk != "" && m.Boot == Local {
		errs = append(errs, m.bad("disk", "nothing is written where boot is local: take one of the two away"))
	}
	if m.UserData != "" && (m.Role+m.Config+m.Boot+m.Disk != "" || len(m.Network)+len(m.SSHAuthorizedKeys) > 0) {
		errs = append(errs, m.bad("userData", "it is for another operating system: leave role, config, boot, disk, network and sshAuthorizedKeys out"))
	}
	return errs
}

func (m *Machine) bad(at, format string, args ...any) error {
	return fmt.Errorf("line %d: %s: %w", m.line, at, fmt.Errorf(format, args...))
}
