package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/imgbuild/imgbuild/builder/inventory"
	"github.com/imgbuild/imgbuild/builder/stamp"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/node/install"
)

// who is what a machine says of itself when it asks; any of it may be empty.
type who struct {
	mac    string
	uuids  []string // firmware does not agree on the order of their bytes
	serial string
}

// userData is what a machine with another operating system boots for, beside the
// inventory's install, diskless and local.
const userData = "userData"

// What becomes of a machine.
const (
	phaseAsked     = "asked"
	phaseFetching  = "fetching"
	phaseFetched   = "fetched"
	phaseInstalled = "installed"
)

// machine is one that has asked.
type machine struct {
	m       *inventory.Machine
	name    string // in the inventory, or its MAC
	phase   string
	handed  bool // it has had its config since the server started
	mac     string
	addr    string
	last    time.Time
	fetched map[string]int64 // file → bytes
}

// maxUnknown bounds the machines that are not listed: what became of each is remembered,
// so that none is installed twice.
const maxUnknown = 10000

// machines knows who gets what.
type machines struct {
	mu      sync.Mutex
	known   map[string]*inventory.Machine // by inventory's Keys
	other   *inventory.Machine            // what those get that are not listed; nil: nothing
	serials bool                          // some are known by their serial number alone
	once    bool
	// Beyond a restart; see there.
	installed *installed
	asked     map[string]*machine
	unknown   int
}

func newMachines(inv *inventory.Inventory, once bool) *machines {
	b := &machines{known: map[string]*inventory.Machine{}, other: inv.Default, once: once, asked: map[string]*machine{}}
	for i := range inv.Machines {
		m := &inv.Machines[i]
		for _, key := range m.Keys() {
			b.known[key] = m
		}
		b.serials = b.serials || m.Serial != "" && m.UUID == "" && len(m.MAC) == 0
	}
	return b
}

// errUnknown is why a machine is refused that the inventory does not list.
var errUnknown = errors.New("the inventory does not list it, and has no default")

// find is the machine that asks. It is an error where the inventory does not list it, or
// lists two machines that it could be.
func (b *machines) find(w who) (*machine, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	keys := []string{"mac " + w.mac}
	for _, id := range w.uuids {
		keys = append(keys, "uuid "+id)
	}
	var found *inventory.Machine
	for _, key := range append(keys, "serial "+w.serial) {
		switch m := b.known[key]; {
		case m == nil:
		case found != nil && found != m:
			return nil, fmt.Errorf("by one of MAC, UUID and serial number it is %s, by another %s", found.Name, m.Name)
		default:
			found = m
		}
	}
	name := "mac " + w.mac
	if found != nil {
		name = found.Name
	} else if found = b.other; found == nil {
		return nil, errUnknown
	} else if w.mac == "" {
		return nil, errors.New("the inventory does not list it, and without a MAC address it is nobody")
	}
	asked := b.asked[name]
	if asked == nil {
		if strings.HasPrefix(name, "mac ") {
			if b.unknown++; b.unknown > maxUnknown {
				return nil, fmt.Errorf("more than %d machines have asked that the inventory does not list", maxUnknown)
			}
		}
		asked = &machine{m: found, name: name, fetched: map[string]int64{}}
		b.asked[name] = asked
	}
	if w.mac != "" {
		asked.mac = w.mac
	}
	return asked, nil
}

// boot says what a machine does now.
func (b *machines) boot(m *machine) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case m.phase == phaseInstalled, b.once && m.handed, m.m.Boot != inventory.Diskless && b.installed.has(m.name):
		return inventory.Local
	case m.m.UserData != "":
		return userData
	case m.m.Boot != "":
		return m.m.Boot
	}
	return inventory.Install
}

// step records what became of a machine.
func (b *machines) step(m *machine, phase, addr string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.phase != phaseInstalled {
		m.phase = phase
	}
	m.handed = m.handed || phase == phaseFetched
	m.last = now
	if addr != "" {
		m.addr = addr
	}
}

// count records what a machine has had.
func (b *machines) count(m *machine, file string, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.fetched[file] += n
}

// at is the machine that fetched last from an address; nil: none did.
func (b *machines) at(addr string) (last *machine) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.asked {
		if m.addr == addr && (last == nil || m.last.After(last.last)) {
			last = m
		}
	}
	return last
}

// State is what became of a machine, for /status.
type State struct {
	Machine string           `json:"machine"`
	Role    string           `json:"role,omitempty"`
	State   string           `json:"state"`
	MAC     string           `json:"mac,omitempty"`
	Address string           `json:"address,omitempty"`
	Last    time.Time        `json:"last"`
	Fetched map[string]int64 `json:"fetched,omitempty"` // file → bytes
}

// states are those of all machines that have asked, by name.
func (b *machines) states() []State {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := []State{}
	for _, name := range slices.Sorted(maps.Keys(b.asked)) {
		m := b.asked[name]
		phase := m.phase
		if phase == "" { // it never got a ticket
			phase = inventory.Local
		}
		out = append(out, State{m.name, m.m.Role, phase, m.mac, m.addr, m.last, maps.Clone(m.fetched)})
	}
	return out
}

// told is what one boot of a machine is told: secret.
type told struct {
	stamp    stamp.Stamp
	userData []byte
}

// maxUserData bounds user data, bytes.
const maxUserData = 4 << 20

// read reads what a machine is told, anew for each boot: a fresh token needs no restart.
func read(m *machine) (told, error) {
	if m.m.UserData != "" {
		info, err := os.Stat(m.m.UserData)
		if err == nil && (!info.Mode().IsRegular() || info.Size() == 0 || info.Size() > maxUserData) {
			err = fmt.Errorf("%s: want a file of 1 to %d bytes", m.m.UserData, maxUserData)
		}
		if err != nil {
			return told{}, err
		}
		text, err := os.ReadFile(m.m.UserData) // #nosec G304 -- the file that the inventory names
		return told{userData: text}, err
	}
	s, err := stamp.Of(m.m)
	return told{stamp: s}, err
}

// What a netboot image reads beside a stamp's credentials.
const (
	credentialInstall = install.OrderCredential
	credentialVar     = "imgbuild.var" // #nosec G101 -- a name
	inMemory          = "memory"
)

// order is what a boot of a machine is for, beside who it is.
func (s *Server) order(boot string, m *inventory.Machine, ticket string) map[string][]byte {
	if boot == inventory.Diskless {
		on := m.Disk
		if on == "" {
			on = inMemory
		}
		return map[string][]byte{credentialVar: []byte(on)}
	}
	d := s.catalogue.disks[m.Role]
	text, _ := json.Marshal(install.Order{Disk: m.Disk, URL: s.url("/images/" + d.file), SHA256: d.raw, Size: d.size, Done: s.url("/m/" + ticket + "/done")}) // plain data cannot fail
	return map[string][]byte{credentialInstall: text}
}

// checkInventory reports every machine that could not be served.
func (s *Server) checkInventory(inv *inventory.Inventory) error {
	var errs []error
	all := slices.Clone(inv.Machines)
	if inv.Default != nil {
		all = append(all, *inv.Default)
	}
	for i := range all {
		if err := s.checkMachine(&all[i]); err != nil {
			errs = append(errs, fmt.Errorf("%s: line %d: %w", s.o.Inventory, all[i].Line(), err))
		}
	}
	return fault.Wrap(fault.Spec, errors.Join(errs...))
}

func (s *Server) checkMachine(m *inventory.Machine) error {
	asked := &machine{m: m}
	boot := s.machines.boot(asked)
	if boot == inventory.Local {
		return nil
	}
	one, err := read(asked)
	if err != nil || boot == userData {
		return err
	}
	image := s.catalogue.images[m.Role]
	build := fmt.Sprintf("`imgbuild %s -o %s --format netboot,raw.zst` builds it", m.Role, s.o.Dir)
	switch {
	case image == nil:
		return fmt.Errorf("role: %s has a netboot image of a %s, none of a %s: %s", s.o.Dir, s.catalogue.roles(), m.Role, build)
	case m.Config == "":
		return errors.New("config: it has none: name the node config that `imgbuild cluster new` wrote")
	case boot == inventory.Install && m.Disk == "":
		return errors.New("disk: say which disk it is installed onto, such as /dev/vda, or boot: diskless")
	case boot == inventory.Install && s.catalogue.disks[m.Role] == nil:
		return fmt.Errorf("boot: there is no raw.zst of a %s in %s to install: %s", m.Role, s.o.Dir, build)
	case boot == inventory.Install:
		s.tell.sayOnce(Event{What: "reading", File: s.catalogue.disks[m.Role].file})
		if err := s.catalogue.measure(m.Role); err != nil {
			return err
		}
	}
	_, err = image.Reader(one.stamp, s.order(boot, m, strings.Repeat("0", 2*ticketBytes)))
	return err
}

// parseMAC is a MAC address in the inventory's form; empty where it is none of one machine's.
func parseMAC(text string) string {
	mac, err := net.ParseMAC(text)
	if err != nil || len(mac) != 6 || mac[0]&1 == 1 {
		return ""
	}
	return mac.String()
}

// bothOrders is a UUID as firmware sends it, read as SMBIOS has it and as RFC 9562 does:
// a client may send either (EDK II the one, iPXE the other).
func bothOrders(b []byte) []string {
	id, err := uuid.FromBytes(b)
	if err != nil {
		return nil
	}
	s := id
	s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7] = id[3], id[2], id[1], id[0], id[5], id[4], id[7], id[6]
	return []string{s.String(), id.String()}
}
