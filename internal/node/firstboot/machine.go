package firstboot

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

// Machine is what tells one machine from another: the journal holds the one that
// the disk first booted on. A copy of the disk that starts elsewhere would be that
// node's twin: two kubelets of one name, or two halves of one etcd member.
//
// A copy on a machine with the same identifiers cannot be told from the original.
type Machine struct {
	UUID    string   `json:"uuid,omitempty"`    // SMBIOS system UUID; empty where the firmware has none of its own
	MACs    []string `json:"macs,omitempty"`    // of links with hardware behind them, sorted
	Serials []string `json:"serials,omitempty"` // of mainboard and disk, sorted
}

// placeholders are what firmware says that was never told who it is.
var placeholders = []string{
	"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "03000200-0400-0500-0006-000700080009",
	"not settable", "not present", "not specified", "not applicable", "none", "n/a", "default string", "to be filled by o.e.m.",
	"system serial number", "base board serial number", "0", "00000000", "0123456789", "123456789", "",
}

// thisMachine reads the identifiers; what is not there is left out.
func (a *Agent) thisMachine() Machine {
	m := Machine{UUID: a.identifier("/sys/class/dmi/id/product_uuid")}
	links, _ := filepath.Glob(a.path("/sys/class/net/*/device"))
	for _, link := range links {
		// Not 1, a random address of this boot, nor 3, one that somebody set.
		kind, _ := readLine(filepath.Join(filepath.Dir(link), "addr_assign_type"))
		if mac := a.identifier("/sys/class/net", filepath.Base(filepath.Dir(link)), "address"); mac != "" && mac != "00:00:00:00:00:00" && (kind == "0" || kind == "") {
			m.MACs = append(m.MACs, mac)
		}
	}
	for _, name := range []string{"/sys/class/dmi/id/board_serial", "/sys/class/dmi/id/product_serial"} {
		if id := a.identifier(name); id != "" {
			m.Serials = append(m.Serials, filepath.Base(name)+" "+id)
		}
	}
	if id := a.diskSerial(); id != "" {
		m.Serials = append(m.Serials, "disk "+id)
	}
	slices.Sort(m.MACs)
	slices.Sort(m.Serials)
	return m
}

// diskSerial is the number of the disk that holds the state, by NVMe, SCSI or virtio.
func (a *Agent) diskSerial() string {
	part, err := filepath.EvalSymlinks(a.path("/dev/disk/by-partlabel/imgbuild-var"))
	if err != nil {
		return ""
	}
	dir, err := filepath.EvalSymlinks(a.path("/sys/class/block", filepath.Base(part)))
	if err != nil {
		return ""
	}
	disk, err := filepath.Rel(a.path("/"), filepath.Dir(dir))
	if err != nil {
		return ""
	}
	for _, name := range []string{"wwid", "device/wwid", "serial"} {
		if id := a.identifier(disk, name); id != "" {
			return id
		}
	}
	return ""
}

// identifier is one line in lower case, or nothing where it identifies nothing.
func (a *Agent) identifier(parts ...string) string {
	id, err := readLine(a.path(parts...))
	if id = strings.ToLower(id); err != nil || slices.Contains(placeholders, id) {
		return ""
	}
	return id
}

// same says whether both are one machine. A system UUID decides, unless a link
// went over with the disk (a new mainboard). Without one, anything in common will
// do, so that a changed network card or disk locks nobody out; and where nothing
// can be compared, nothing is claimed.
func (m Machine) same(o Machine) bool {
	if m.UUID != "" && m.UUID == o.UUID || meet(m.MACs, o.MACs) {
		return true
	}
	if m.UUID != "" && o.UUID != "" {
		return false
	}
	return meet(m.Serials, o.Serials) || len(m.MACs) == 0 || len(o.MACs) == 0
}

func (m Machine) equal(o Machine) bool {
	return m.UUID == o.UUID && slices.Equal(m.MACs, o.MACs) && slices.Equal(m.Serials, o.Serials)
}

// over keeps what was known and is not seen now, such as a link whose driver is late.
func (m Machine) over(was Machine) Machine {
	m.UUID = orDefault(m.UUID, was.UUID)
	if len(m.MACs) == 0 {
		m.MACs = was.MACs
	}
	if len(m.Serials) == 0 {
		m.Serials = was.Serials
	}
	return m
}

func (m Machine) empty() bool { return m.equal(Machine{}) }

func meet(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// name is by what a person knows the machine, and what a node config adopts it by.
func (m Machine) name() string {
	if m.UUID == "" && len(m.MACs) > 0 {
		return m.MACs[0]
	}
	return m.UUID
}

// knowMachine records the machine at the first boot, and stops on any other later.
// What was changed on the same one, a network card or a disk, is recorded anew.
func (a *Agent) knowMachine(ctx context.Context) error {
	now, was := a.thisMachine(), a.journal.Machine
	switch {
	case now.empty(), now.equal(was):
		return nil
	case now.same(was):
		now = now.over(was)
	case !a.adopted(ctx, now):
		// The console is all that a twin has: it may not use the node's credentials.
		return &fault{
			fmt.Sprintf("give the machine a new disk, made from the image; if the disk was moved here for good, and no machine runs with the old one, a node config with `adopt: %q`", now.name()),
			fmt.Errorf("this disk belongs to another machine: it is %s of %s, and this is %s", orDefault(a.journal.Hostname, "the disk"), was.name(), now.name())}
	}
	a.journal.Machine = now
	return a.record(a.journal.Phase)
}

// adopted says whether the node config that is there now names this very machine,
// so that the same config beside another copy adopts nothing.
func (a *Agent) adopted(ctx context.Context, m Machine) bool {
	data, err := a.findConfig(ctx)
	if err != nil {
		return false
	}
	c, err := config.Parse(data)
	id := ""
	if err == nil {
		id = strings.ToLower(c.Adopt)
	}
	return id != "" && c.Role == a.facts.Role && (id == m.UUID || slices.Contains(m.MACs, id))
}
