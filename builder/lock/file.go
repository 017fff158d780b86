package lock

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/arch"
	"github.com/imgbuild/imgbuild/internal/fault"
)

// Format is the lock file's format number.
const Format = 1

// digestForm is what every pin's digest looks like: OCI's form, or go.sum's.
var digestForm = regexp.MustCompile(`^(sha256:[0-9a-f]{64}|h1:[A-Za-z0-9+/]{43}=)$`)

// packageName is Debian policy 5.6.1: a pin's name reaches the command line of what lays out the base.
var packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)

// FileName is what a lock file is called.
const FileName = "imgbuild.lock"

// File is imgbuild.lock: what each role's node is made of, for each architecture.
type File struct {
	Format int              `json:"format"`
	Nodes  map[string]Entry `json:"nodes"`
}

// Entry is one role's part: what was asked and what that was resolved to. Sum is
// the sha256, in hex, of both: a pin that was taken out, doubled or edited shows.
type Entry struct {
	Asked []Request `json:"asked"`
	Pins  []Pin     `json:"pins"`
	Sum   string    `json:"sum"`
}

// NewEntry is an entry with its sum. It sorts pins.
func NewEntry(asked []Request, pins []Pin) Entry {
	e := Entry{Asked: asked, Pins: sorted(pins)}
	e.Sum = e.sum()
	return e
}

func (e Entry) sum() string {
	out, _ := json.Marshal([]any{e.Asked, e.Pins}) // plain data cannot fail
	return fmt.Sprintf("%x", sha256.Sum256(out))
}

// Resolver turns one request into pins: several for a base, one for most others.
type Resolver interface {
	Resolve(ctx context.Context, r Request) ([]Pin, error)
}

// anew is the way out of a lock that cannot be read.
const anew = "put back one that was kept, or delete it: `imgbuild lock` pins every role anew"

// Parse reads a lock file.
func Parse(data []byte) (*File, error) {
	var f File
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(&f)
	if _, more := d.Token(); err == nil && !errors.Is(more, io.EOF) {
		err = errors.New("something follows the lock's end")
	}
	if err != nil {
		return nil, fault.New(fault.Lock, "reading the lock: %w; "+anew, err)
	}
	if f.Format != Format {
		return nil, fault.New(fault.Lock, "the lock has format %d, this imgbuild reads %d; "+anew, f.Format, Format)
	}
	for role, entry := range f.Nodes {
		for _, p := range entry.Pins {
			if p.Kind == KindBase && p.Source == "debian" && !packageName.MatchString(p.Name) {
				return nil, fault.New(fault.Lock, "the lock pins %q of %s, which is no Debian package's name; "+anew, p.Name, role)
			}
			if !digestForm.MatchString(p.Digest) {
				return nil, fault.New(fault.Lock, "the lock pins %s %s of %s without a digest; "+anew, p.Kind, p.Name, role)
			}
		}
	}
	return &f, nil
}

// Bytes is the lock file's text: stable, one value a line.
func (f *File) Bytes() []byte {
	out, _ := json.MarshalIndent(f, "", " ") // plain data cannot fail
	return append(out, '\n')
}

// Stale says how an entry differs from what is asked; nil means that it still answers.
func (f *File) Stale(name string, asked []Request) []string {
	entry, ok := f.Nodes[name]
	if !ok {
		return []string{"nothing is pinned for " + name}
	}
	var out []string
	had := byKey(entry.Asked)
	for key, now := range byKey(asked) {
		old, ok := had[key]
		switch {
		case !ok:
			out = append(out, fmt.Sprintf("%s is not pinned", key))
		case old.Version != now.Version:
			out = append(out, fmt.Sprintf("%s: pinned for version %q, asked for %q", key, old.Version, now.Version))
		case old.Source != now.Source:
			out = append(out, fmt.Sprintf("%s: pinned from source %q, asked for %q", key, old.Source, now.Source))
		case !slices.Equal(old.Args, now.Args):
			out = append(out, fmt.Sprintf("%s: asked with other details than pinned", key))
		}
		delete(had, key)
	}
	for key := range had {
		out = append(out, fmt.Sprintf("%s is pinned but no longer asked for", key))
	}
	if out == nil {
		out = entry.damage()
	}
	slices.Sort(out)
	return out
}

// damage says what is wrong with an entry that imgbuild cannot have written.
func (e Entry) damage() (out []string) {
	for _, req := range e.Asked {
		if !slices.ContainsFunc(e.Pins, req.answeredBy) {
			out = append(out, fmt.Sprintf("%s %s has lost its pin", req.Kind, req.Name))
		}
	}
	if out == nil && e.Sum != e.sum() {
		out = []string{"its pins are not those that imgbuild wrote (edited, or merged by hand)"}
	}
	slices.Sort(out)
	return out
}

// Name is an entry's: worker, worker-arm64.
func Name(role, processor string) string { return role + arch.Suffix(processor) }

// alike says whether two entries are for one architecture.
func alike(a, b string) bool {
	_, forA, _ := strings.Cut(a, "-")
	_, forB, _ := strings.Cut(b, "-")
	return forA == forB
}

// StaleError says that the lock does not answer the spec, and the way out.
func StaleError(path, name string, why []string) error {
	role, _, _ := strings.Cut(name, "-")
	return fault.New(fault.Lock, "%s is stale for %s: %s; run `imgbuild lock %s` with the same flags to pin anew", path, name, joinLines(why), role)
}

func joinLines(why []string) string {
	if len(why) > 3 {
		return fmt.Sprintf("%s; %s; %s; and %d more", why[0], why[1], why[2], len(why)-3)
	}
	s := why[0]
	for _, w := range why[1:] {
		s += "; " + w
	}
	return s
}

// Resolve pins what a node asks for. What its entry has pinned already stays, and
// a request that another role has pinned for the architecture is answered by the same
// pins, so that all nodes of one lock agree. What moves is pinned anew, for every role
// that asks it.
func (f *File) Resolve(ctx context.Context, name string, asked []Request, moves func(Request) bool, r Resolver) error {
	nodes := map[string]Entry{}
	for of, entry := range f.Nodes {
		entry.Pins = slices.Clone(entry.Pins)
		nodes[of] = entry
	}
	var all []Pin
	for _, req := range asked {
		var pins []Pin
		ok := false
		if !moves(req) {
			pins, ok = f.have(name, req)
		}
		if !ok {
			var err error
			if pins, err = r.Resolve(ctx, req); err != nil {
				return fmt.Errorf("resolving %s %s: %w", req.Kind, req.Name, err)
			}
		}
		for i := range pins {
			pins[i].Request = req.Name
		}
		all = append(all, pins...)
		for of, other := range nodes {
			if moves(req) && alike(of, name) && slices.ContainsFunc(other.Asked, req.equal) {
				kept := slices.DeleteFunc(other.Pins, req.answeredBy)
				nodes[of] = NewEntry(other.Asked, append(kept, pins...))
			}
		}
	}
	nodes[name] = NewEntry(asked, all)
	f.Format, f.Nodes = Format, nodes
	return nil
}

func sorted(pins []Pin) []Pin {
	slices.SortStableFunc(pins, func(a, b Pin) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Request, b.Request), cmp.Compare(a.Name, b.Name))
	})
	return pins
}

// have finds the pins of a request: the entry's own, else another role's. An entry that
// is damaged is not believed.
func (f *File) have(name string, req Request) ([]Pin, bool) {
	for _, of := range append([]string{name}, slices.Sorted(maps.Keys(f.Nodes))...) {
		entry := f.Nodes[of]
		if !alike(of, name) || !slices.ContainsFunc(entry.Asked, req.equal) || entry.damage() != nil {
			continue
		}
		var pins []Pin
		for _, p := range entry.Pins {
			if req.answeredBy(p) {
				pins = append(pins, p)
			}
		}
		return pins, len(pins) > 0
	}
	return nil, false
}

func (r Request) answeredBy(p Pin) bool { return p.Kind == r.Kind && p.Request == r.Name }

// equal compares what is asked; no Args and empty Args, as JSON mixes them up, are one.
func (r Request) equal(other Request) bool {
	return r.Kind == other.Kind && r.Name == other.Name && r.Version == other.Version && r.Source == other.Source && slices.Equal(r.Args, other.Args)
}

func byKey(rs []Request) map[string]Request {
	out := map[string]Request{}
	for _, r := range rs {
		out[string(r.Kind)+" "+r.Name] = r
	}
	return out
}
