package esp

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/tree"
)

// plan is the order of writing: folders, parents first, then files. The root
// is ".", the first of the folders.
type plan struct {
	dirs, files []string
	seen        map[string]string // paths by their lower-case form, which is all that FAT tells apart
	listing     map[string]int64  // bytes of each folder's own entries
	content     []int64
}

func newPlan(files map[string]tree.Content, folders []string) (*plan, error) {
	p := &plan{files: slices.Sorted(maps.Keys(files)), seen: map[string]string{}, listing: map[string]int64{}}
	p.addDir(".")
	for _, name := range p.files {
		if clean, err := tree.Clean(name); err != nil || clean != name || name == "." {
			return nil, fmt.Errorf("path %q is not clean: it must have no leading slash and no '.' or '..' part", name)
		}
		if size := files[name].Size(); size < 1 || size > maxFile { // the library gives an empty file a cluster, which FAT forbids
			return nil, fmt.Errorf("%s: %d bytes, must have 1 to %d", name, size, int64(maxFile))
		}
		for part := range strings.SplitSeq(name, "/") {
			if err := checkName(part); err != nil {
				return nil, fmt.Errorf("path %q: %w", name, err)
			}
		}
		if other, ok := p.seen[strings.ToLower(name)]; ok {
			return nil, fmt.Errorf("paths %q and %q are the same on FAT", other, name)
		}
		p.seen[strings.ToLower(name)] = name
		p.content = append(p.content, files[name].Size())
		if err := p.addParents(name, files); err != nil {
			return nil, err
		}
	}
	for _, dir := range folders {
		if clean, err := tree.Clean(dir); err != nil || clean != dir || dir == "." {
			return nil, fmt.Errorf("folder %q is not clean: it must have no leading slash and no '.' or '..' part", dir)
		}
		if err := p.addParents(path.Join(dir, "-"), files); err != nil {
			return nil, err
		}
	}
	for _, name := range p.files {
		p.addEntry(name)
	}
	for _, dir := range p.dirs[1:] {
		p.addEntry(dir)
	}
	slices.Sort(p.dirs[1:])
	return p, nil
}

func (p *plan) addParents(name string, files map[string]tree.Content) error {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		other, ok := p.seen[strings.ToLower(dir)]
		if ok && (other != dir || files[dir] != nil) {
			return fmt.Errorf("path %q: its folder %q is the same on FAT as %q", name, dir, other)
		}
		if !ok {
			p.seen[strings.ToLower(dir)] = dir
			p.addDir(dir)
		}
	}
	return nil
}

// addDir counts a folder's "." and "..", or the root's label.
func (p *plan) addDir(dir string) {
	p.dirs = append(p.dirs, dir)
	p.listing[dir] = 2 * entrySize
}

// addEntry counts a name in its folder: a short entry, and a long one for each 13 characters.
func (p *plan) addEntry(name string) {
	long := (len(path.Base(name)) + 12) / 13
	p.listing[path.Dir(name)] += int64(1+long) * entrySize
}

func checkName(name string) error {
	if strings.ContainsAny(name, `"*:<>?\|`) || strings.HasSuffix(name, " ") || strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") {
		return fmt.Errorf("name %q cannot be stored on FAT", name)
	}
	for _, r := range name {
		if r < ' ' || r > '~' {
			return fmt.Errorf("name %q: only ASCII is supported", name)
		}
	}
	return nil
}

// bytes is the room that the plan takes, in whole clusters; every entry has one at least.
func (p *plan) bytes(cluster int64) int64 {
	total := int64(0)
	add := func(n int64) { total += max(1, (n+cluster-1)/cluster) * cluster }
	for _, n := range p.content {
		add(n)
	}
	for _, n := range p.listing {
		add(n)
	}
	return total
}
