// Package component says what a node has. There is one file per thing
// (containerd, kubeadm, kernel settings, firewall, swap, flannel, first boot …);
// each tells what it asks for before the lock and what it adds after it. The one
// list of them is All, in table.go. Components are pure: no I/O, no time.
package component

import (
	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/spec"
)

// Component is one thing that a node has.
type Component struct {
	Name string
	Doc  string // one line for `imgbuild plan`
	// Request says which packages, parts and images the thing needs. May be nil.
	Request func(n *spec.Node) Wants
	// Add says what the thing puts on the node. May be nil.
	Add func(n *spec.Node, f Facts) (Addition, error)
}

// Wants is what a component asks for before anything is resolved.
type Wants struct {
	Packages []string       // packages that the base must have, by their names in Debian trixie
	Requests []lock.Request // parts and images
}

// Facts is what the lock settled and components may use.
type Facts struct {
	Pins   []lock.Pin // every pin, sorted by kind and name
	Pause  string     // full reference of the sandbox image that the chosen kubeadm expects
	Images []string   // full references (name:tag) of the images on board, sorted
}

// Addition is what a component adds to the node tree.
type Addition struct {
	Files   []File
	Enable  []Unit            // units started at boot
	Mask    []string          // units that must never start
	Modules []string          // kernel modules loaded at boot
	Sysctls map[string]string // kernel settings
	Ports   []Port            // what the firewall lets in
	Cmdline []string          // kernel command line words
	Checks  []Check           // what a booted node must answer
	Users   []User            // accounts
}

// File is one entry of the node tree. Path is absolute, as it lies on the node.
type File struct {
	Path string `json:"path"`
	Mode uint32 `json:"mode"` // permission bits; ignored for links
	Text string `json:"text,omitempty"`
	Link string `json:"link,omitempty"` // symbolic link target
	Dir  bool   `json:"dir,omitempty"`
	Part string `json:"part,omitempty"` // the content is the part's executable of that name
}

// Unit is a systemd unit that is wanted by a target.
type Unit struct {
	Name string `json:"name"`
	By   string `json:"by"` // multi-user.target, sysinit.target, …
}

// User is an account without a password: passwd(5), group(5).
type User struct {
	Name   string   `json:"name"`
	ID     int      `json:"id"` // of the user and of its group
	Groups []string `json:"groups,omitempty"`
	Home   string   `json:"home"`
	Shell  string   `json:"shell"`
}

// Port is one hole in the firewall. First == Last for a single port.
type Port struct {
	Proto string `json:"proto"` // tcp, udp, or ip: First is the number of an IP protocol
	First int    `json:"first"`
	Last  int    `json:"last"`
	Why   string `json:"why"`
}

// Check is a shell command that must succeed (exit code 0) as root on a booted,
// Ready node.
type Check struct {
	Name    string `json:"name"`
	Command string `json:"command"`
}
