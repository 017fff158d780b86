package builder

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// tools are imgbuild's own executables that run on the node.
type tools struct {
	initrd    []byte // becomes /init of the RAM disk
	firstboot []byte
}

// AgentPart is the name under which components ask for the first-boot agent.
const AgentPart = "imgbuild-firstboot"

// findTools reads imgbuild-initrd-ARCH and imgbuild-firstboot-ARCH from dir, or
// from the folder that this program lies in, or ../libexec/imgbuild beside it.
func findTools(dir, arch string) (*tools, error) {
	dirs := []string{dir}
	if dir == "" {
		self, err := executable()
		if err != nil {
			return nil, err
		}
		here := filepath.Dir(self)
		dirs = []string{here, filepath.Join(here, "..", "libexec", "imgbuild")}
	}
	for _, d := range dirs {
		initrd, err := os.ReadFile(filepath.Join(d, "imgbuild-initrd-"+arch)) // #nosec G304 -- our own executables
		if err != nil {
			continue
		}
		firstboot, err := os.ReadFile(filepath.Join(d, AgentPart+"-"+arch)) // #nosec G304 -- our own executables
		if err != nil {
			continue
		}
		return &tools{initrd, firstboot}, nil
	}
	return nil, fault.New(fault.Tool, "imgbuild's own node programs imgbuild-initrd-%s and imgbuild-firstboot-%s are not in %v: run `make build`, or point --tools at them", arch, arch, dirs)
}

// executable is where this program lies. Where Linux has no /proc, what it was started by tells.
func executable() (string, error) {
	file, err := os.Executable()
	if err != nil && strings.Contains(os.Args[0], "/") {
		return filepath.Abs(os.Args[0])
	}
	return file, err
}

func (t *tools) digests() map[string]string {
	return map[string]string{
		"imgbuild-initrd": fmt.Sprintf("sha256:%x", sha256.Sum256(t.initrd)),
		AgentPart:         fmt.Sprintf("sha256:%x", sha256.Sum256(t.firstboot)),
	}
}

// parts gives content by name: executables of the sources, the agent.
type parts map[string]tree.Content

// Part implements rootfs.Parts.
func (p parts) Part(name string) (tree.Content, error) {
	c, ok := p[name]
	if !ok {
		return nil, fmt.Errorf("no source yielded the part %q", name)
	}
	return c, nil
}
