// Package archtest holds the architecture as tests: who may import whom, how
// large files and functions may grow, and which calls have one home.
package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/imgbuild/imgbuild/"

// forbidden says which rooms may not import which. A room is a folder and all
// below it; "except" rooms are free of the rule.
var forbidden = []struct {
	room, imports string
	except        []string
	why           string
}{
	{"builder/", "cmd/", nil, "the library must not know its command"},
	{"internal/", "builder/", nil, "the ground floor knows no upper floor"},
	{"internal/", "cmd/", nil, "the ground floor knows no upper floor"},
	{"internal/", "profiles", nil, "the ground floor holds no domain words"},
	{"internal/", "overlays", nil, "the ground floor holds no domain words"},
	{"internal/", "images", nil, "the ground floor holds no domain words"},
	{"internal/", "internal/node/", []string{"internal/node/"}, "tools do not know the node"},
	{"builder/spec", "builder/", []string{"builder/spec"}, "the spec is what is said; it knows no stage"},
	{"builder/lock", "builder/", []string{"builder/lock"}, "the lock knows no stage"},
	{"builder/lock", "internal/fetch", nil, "the lock downloads nothing"},
	{"builder/component", "internal/run", nil, "components are pure"},
	{"builder/component", "internal/store", nil, "components are pure"},
	{"builder/component", "internal/fetch", nil, "components are pure"},
	{"builder/plan", "internal/run", nil, "the plan is pure"},
	{"builder/plan", "internal/store", nil, "the plan is pure"},
	{"builder/plan", "builder/source", nil, "the plan takes pins, not content"},
	{"builder/plan", "builder/rootfs", nil, "decide comes before do"},
	{"builder/source", "builder/spec", nil, "sources take plain values"},
	{"builder/source", "builder/plan", nil, "sources do not decide"},
	{"builder/source", "builder/component", nil, "sources do not decide"},
	{"builder/rootfs", "builder/source", nil, "the root file system uses no network"},
	{"builder/rootfs", "internal/fetch", nil, "the root file system uses no network"},
	{"builder/assemble", "builder/output", nil, "the disk knows no format"},
	{"builder/assemble", "builder/source", nil, "the disk takes a tree"},
	{"builder/output", "builder/rootfs", nil, "outputs rebuild nothing"},
	{"builder/output", "builder/assemble", nil, "outputs rebuild nothing"},
	{"builder/bill", "builder/source", nil, "the bill reads what was made, and fetches nothing"},
	{"builder/bill", "internal/fetch", nil, "the bill reads what was made, and fetches nothing"},
	{"builder/bill", "builder/output", nil, "the bill knows no format"},
	{"builder/verify", "builder/", []string{"builder/verify"}, "the checker shares nothing with the writers"},
	{"builder/verify", "internal/erofs", nil, "the checker shares nothing with the writers"},
	{"builder/verify", "internal/verity", nil, "the checker shares nothing with the writers"},
	{"builder/verify", "internal/gpt", nil, "the checker shares nothing with the writers"},
	{"builder/verify", "internal/esp", nil, "the checker shares nothing with the writers"},
	{"builder/verify", "internal/iso9660", nil, "the checker shares nothing with the writers"},
	{"builder/verify", "internal/pe", nil, "the checker shares nothing with the writers"},
	{"builder/verify", "internal/qcow2", nil, "the checker shares nothing with the writers"},
	{"builder/verify", "internal/containerd", nil, "the checker shares nothing with the writers"},
	{"builder/verify", "internal/sparse", nil, "the checker shares nothing with the writers"},
	{"builder/verify", "internal/compress", nil, "the checker shares nothing with the writers"},
	{"builder/verify", "internal/vhdx", nil, "the checker shares nothing with the writers"},
	{"builder/verify", "internal/vmdk", nil, "the checker shares nothing with the writers"},
	{"builder/registry", "builder/", []string{"builder/registry"}, "a registry carries what was built, and knows its manifest as data"},
	{"builder/host", "internal/run", nil, "what a host gets is decided, not done"},
	{"builder/host", "internal/store", nil, "what a host gets is decided, not done"},
	{"builder/host", "builder/rootfs", nil, "decide comes before do"},
	{"builder/boottest", "builder/", []string{"builder/boottest"}, "a boot test knows nothing of how the image was made"},
	{"builder/serve", "builder/", []string{"builder/serve", "builder/inventory", "builder/stamp"}, "the server hands out what was made; it makes nothing"},
	{"builder/serve", "internal/run", nil, "the server runs no program"},
	{"cmd/imgbuild-firstboot", "builder", nil, "the agent does not link the builder"},
	{"cmd/imgbuild-initrd", "builder", nil, "the RAM disk's init does not link the builder"},
}

// homes are packages (or calls) of the standard library that have one home.
var homes = []struct {
	imports string
	rooms   []string
}{
	{"os/exec", []string{"internal/run", "test/faults"}},
	{"math/rand", []string{"test/faults"}}, // faults are left to chance
	{"math/rand/v2", nil},
	{"crypto/rand", []string{"internal/repro", "internal/node/identity", "test/faults"}},
	{"log", nil},
}

var calls = []struct {
	pkg, name string
	rooms     []string
}{
	{"fmt", "Print", nil},
	{"fmt", "Println", nil},
	{"fmt", "Printf", nil},
	{"os", "Exit", []string{"cmd/", "test/"}},
	{"time", "Now", []string{"internal/repro", "internal/node/initrd"}},
}

const maxFile, maxFunc = 500, 80

func TestArchitecture(t *testing.T) {
	root := "../.."
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2 {
			return fs.SkipDir
		}
		if strings.HasSuffix(file, ".go") {
			rel, _ := filepath.Rel(root, file)
			check(t, file, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, file, rel string) {
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(src), "\n"); n > maxFile {
		t.Errorf("%s: %d lines, at most %d: split it", rel, n, maxFile)
	}
	if strings.HasPrefix(rel, "cmd/") && path.Base(rel) == "main.go" && strings.Count(string(src), "\n") > 60 {
		t.Errorf("%s: a main is a page, not a book", rel)
	}
	for _, decl := range parsed.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok {
			if n := set.Position(f.End()).Line - set.Position(f.Pos()).Line; n > maxFunc {
				t.Errorf("%s: %s has %d lines, at most %d", rel, f.Name.Name, n, maxFunc)
			}
		}
	}
	if strings.HasSuffix(rel, "_test.go") {
		return
	}
	for _, imp := range parsed.Imports {
		name, _ := strconv.Unquote(imp.Path.Value)
		checkImport(t, rel, name)
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if pkg, ok := sel.X.(*ast.Ident); ok {
				checkCall(t, rel, set.Position(n.Pos()).Line, pkg.Name, sel.Sel.Name)
			}
		}
		return true
	})
}

func checkImport(t *testing.T, rel, name string) {
	if own, ok := strings.CutPrefix(name, module); ok {
		for _, rule := range forbidden {
			free := anyUnder(rel, rule.except) && !anyUnder(rule.room, rule.except) // a room that may import itself is not free of its own rule
			if under(rel, rule.room) && under(own+"/", rule.imports) && !free && !anyUnder(own+"/", rule.except) {
				t.Errorf("%s imports %s: %s", rel, own, rule.why)
			}
		}
		return
	}
	for _, home := range homes {
		if name == home.imports && !anyUnder(rel, home.rooms) {
			t.Errorf("%s imports %s, whose home is %v", rel, name, home.rooms)
		}
	}
}

func checkCall(t *testing.T, rel string, line int, pkg, name string) {
	for _, c := range calls {
		if c.pkg == pkg && c.name == name && !anyUnder(rel, c.rooms) {
			t.Errorf("%s:%d calls %s.%s, whose home is %v", rel, line, pkg, name, c.rooms)
		}
	}
}

// under says whether the file or package lies in the room.
func under(p, room string) bool {
	room = strings.TrimSuffix(room, "/")
	return p == room || strings.HasPrefix(p, room+"/")
}

func anyUnder(p string, rooms []string) bool {
	for _, r := range rooms {
		if under(p, r) {
			return true
		}
	}
	return false
}
