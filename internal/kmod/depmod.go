package kmod

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
	"golang.org/x/sync/errgroup"

	"github.com/imgbuild/imgbuild/internal/tree"
)

// maxModule bounds an uncompressed module.
const maxModule = 256 << 20

// module is what a module's file says of itself.
type module struct {
	name, file string   // file is relative to the modules' folder
	exports    []string // symbols
	imports    []string // symbols, in the order of its tables
	info       []string // key=value

	place, rank uint32 // in modules.order, and in a topological order: users first
	users       int
	needs       []*module
}

// Depmod makes the indices of the modules in dir of a tree, as depmod(8) of kmod 34 does:
// a file's name, such as modules.dep.bin, and what it holds. The lines of modules.symbols,
// which no tool reads, are sorted.
func Depmod(t *tree.Tree, dir string) (map[string][]byte, error) {
	modules, err := readModules(t, dir)
	if err != nil {
		return nil, err
	}
	link(modules)
	out := map[string][]byte{}
	var dep, alias, soft, weak, devname strings.Builder
	var depBin, aliasBin, symbolBin []Entry
	alias.WriteString("# Aliases extracted from modules themselves.\n")
	soft.WriteString("# Soft dependencies extracted from modules themselves.\n")
	weak.WriteString("# Weak dependencies extracted from modules themselves.\n")
	devname.WriteString("# Device nodes to trigger on-demand module loading.\n")
	for _, m := range modules {
		line := m.file + ":"
		for _, d := range m.all() {
			line += " " + d.file
		}
		dep.WriteString(line + "\n")
		depBin = append(depBin, Entry{m.name, m.place, line})
		for _, kv := range m.info {
			key, value, _ := strings.Cut(kv, "=")
			switch key {
			case "alias":
				fmt.Fprintf(&alias, "alias %s %s\n", value, m.name)
				aliasBin = append(aliasBin, Entry{normal(value), m.place, m.name})
			case "softdep":
				fmt.Fprintf(&soft, "softdep %s %s\n", m.name, value)
			case "weakdep":
				fmt.Fprintf(&weak, "weakdep %s %s\n", m.name, value)
			}
		}
		devname.WriteString(m.node())
	}
	owners := map[string]*module{}
	for _, m := range modules {
		for _, s := range m.exports {
			owners[s] = m
		}
	}
	symbols := strings.Builder{}
	symbols.WriteString("# Aliases for symbols, used by symbol_request().\n")
	for _, s := range slices.Sorted(maps.Keys(owners)) {
		fmt.Fprintf(&symbols, "alias symbol:%s %s\n", s, owners[s].name)
		symbolBin = append(symbolBin, Entry{"symbol:" + s, owners[s].place, owners[s].name})
	}
	for name, b := range map[string]*strings.Builder{"dep": &dep, "alias": &alias, "softdep": &soft, "weakdep": &weak, "devname": &devname, "symbols": &symbols} {
		out["modules."+name] = []byte(b.String())
	}
	builtin, builtinAlias, err := builtins(t, dir)
	if err != nil {
		return nil, err
	}
	for name, entries := range map[string][]Entry{"dep": depBin, "alias": aliasBin, "symbols": symbolBin, "builtin": builtin, "builtin.alias": builtinAlias} {
		if out["modules."+name+".bin"], err = Write(entries); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// readModules reads all modules, in the order of modules.order; those that it does not
// name follow.
func readModules(t *tree.Tree, dir string) ([]*module, error) {
	order := map[string]int{}
	if text, err := t.ReadFile(dir + "/modules.order"); err == nil {
		for line := range strings.Lines(string(text)) {
			order[strings.TrimSpace(line)] = len(order) + 1
		}
	}
	var all []*module
	group := errgroup.Group{}
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, p := range t.Paths() {
		file, ok := strings.CutPrefix(p, dir+"/")
		n, _ := t.Get(p)
		stem, ending, isModule := strings.Cut(path.Base(p), ".ko")
		if !ok || !isModule || !n.Mode.IsRegular() || !slices.Contains([]string{"", ".xz", ".zst", ".gz"}, ending) {
			continue
		}
		m := &module{name: strings.ReplaceAll(stem, "-", "_"), file: file}
		all = append(all, m)
		group.Go(func() error {
			if err := m.read(n.Content, ending); err != nil {
				return fmt.Errorf("reading kernel module %s: %w", file, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	where := func(m *module) int {
		base, _, _ := strings.Cut(path.Base(m.file), ".ko")
		if at := order[path.Join(path.Dir(m.file), base+".ko")]; at > 0 {
			return at
		}
		return len(order) + 1
	}
	slices.SortStableFunc(all, func(a, b *module) int { return where(a) - where(b) })
	for i, m := range all {
		m.place = uint32(i) // #nosec G115 -- as many as a tree has
	}
	return all, nil
}

func (m *module) read(c tree.Content, ending string) error {
	r, err := c.Open()
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // read only
	plain, err := uncompress(r, ending)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(plain, maxModule+1))
	if err != nil {
		return err
	}
	if len(data) > maxModule {
		return fmt.Errorf("it unpacks to more than %d bytes", maxModule)
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return err
	}
	strs := func(section string) []string {
		s := f.Section(section)
		if s == nil {
			return nil
		}
		b, _ := s.Data()
		return slices.DeleteFunc(strings.Split(string(b), "\x00"), func(s string) bool { return s == "" })
	}
	m.info = strs(".modinfo")
	symbols, err := f.Symbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return err
	}
	seen := map[string]bool{}
	add := func(name string) {
		if name != "" && !seen[name] {
			seen[name] = true
			m.imports = append(m.imports, name)
		}
	}
	for _, s := range symbols {
		if s.Section == elf.SHN_UNDEF {
			add(s.Name)
		}
		if name, ok := strings.CutPrefix(s.Name, "__crc_"); ok {
			m.exports = append(m.exports, name)
		}
	}
	if m.exports == nil { // a kernel without checksums of symbols
		m.exports = strs("__ksymtab_strings")
	}
	if s := f.Section("__versions"); s != nil {
		b, _ := s.Data()
		for entry := range slices.Chunk(b, 64) { // struct modversion_info: a checksum, and a name
			name, _, _ := bytes.Cut(entry[min(8, len(entry)):], []byte{0})
			add(string(name))
		}
	}
	return nil
}

func uncompress(r io.Reader, ending string) (io.Reader, error) {
	switch ending {
	case ".xz":
		return xz.NewReader(r, 64<<20)
	case ".zst":
		return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20))
	case ".gz":
		return gzip.NewReader(r)
	}
	return r, nil
}

// link finds out which module needs which, and ranks them: users before what they use.
func link(modules []*module) {
	owners := map[string]*module{}
	for _, m := range modules {
		for _, s := range m.exports {
			owners[s] = m
		}
	}
	for _, m := range modules {
		for _, s := range m.imports {
			if o := owners[s]; o != nil && o != m && !slices.Contains(m.needs, o) {
				m.needs = append(m.needs, o)
				o.users++
			}
		}
	}
	left := map[*module]int{}
	var roots []*module
	for _, m := range modules {
		if left[m] = m.users; m.users == 0 {
			roots = append(roots, m)
		}
	}
	for rank := uint32(0); len(roots) > 0; rank++ {
		m := roots[len(roots)-1]
		roots = roots[:len(roots)-1]
		m.rank = rank
		for _, d := range m.needs {
			if left[d]--; left[d] == 0 {
				roots = append(roots, d)
			}
		}
	}
}

// all is every module that m needs, those of its needs, too, users first.
func (m *module) all() []*module {
	seen := map[*module]bool{m: true}
	var out []*module
	var visit func(*module)
	visit = func(m *module) {
		for _, d := range m.needs {
			if !seen[d] {
				seen[d] = true
				out = append(out, d)
				visit(d)
			}
		}
	}
	visit(m)
	slices.SortFunc(out, func(a, b *module) int { return int(a.rank) - int(b.rank) })
	return out
}

// node is the module's line of modules.devname, from its aliases devname:NAME and char-major-MAJOR-MINOR.
func (m *module) node() string {
	var name, device string
	for _, kv := range m.info {
		value, ok := strings.CutPrefix(kv, "alias=")
		if !ok {
			continue
		}
		if n, ok := strings.CutPrefix(value, "devname:"); ok {
			name = n
		}
		for kind, letter := range map[string]string{"char-major-": "c", "block-major-": "b"} {
			var major, minor uint
			if rest, ok := strings.CutPrefix(value, kind); ok {
				if n, _ := fmt.Sscanf(rest, "%d-%d", &major, &minor); n == 2 {
					device = fmt.Sprintf("%s%d:%d", letter, major, minor)
				}
			}
		}
	}
	if name == "" || device == "" {
		return ""
	}
	return m.name + " " + name + " " + device + "\n"
}

// normal writes underscores for dashes, but not in a pattern's brackets.
func normal(alias string) string {
	b, inside := []byte(alias), false
	for i, c := range b {
		switch {
		case c == '[':
			inside = true
		case c == ']':
			inside = false
		case c == '-' && !inside:
			b[i] = '_'
		}
	}
	return string(b)
}

// builtins are the entries of what the kernel has built in.
func builtins(t *tree.Tree, dir string) (names, aliases []Entry, err error) {
	list, err := t.ReadFile(dir + "/modules.builtin")
	if err != nil {
		return nil, nil, err
	}
	for line := range strings.Lines(string(list)) {
		stem, _, _ := strings.Cut(path.Base(strings.TrimSpace(line)), ".ko")
		names = append(names, Entry{Key: strings.ReplaceAll(stem, "-", "_")})
	}
	info, err := t.ReadFile(dir + "/modules.builtin.modinfo")
	if err != nil {
		return nil, nil, err
	}
	for kv := range strings.SplitSeq(string(info), "\x00") {
		key, value, _ := strings.Cut(kv, "=")
		if name, ok := strings.CutSuffix(key, ".alias"); ok {
			aliases = append(aliases, Entry{Key: normal(value), Value: strings.ReplaceAll(name, "-", "_")})
		}
	}
	return names, aliases, nil
}
