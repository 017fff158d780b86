package firstboot

import (
	"bytes"
	"context"
	"sync"

	"github.com/imgbuild/imgbuild/internal/run"
)

// Host runs programs on the node it stands on.
type Host struct{}

var _ Runner = Host{}

// Run implements Runner.
func (Host) Run(ctx context.Context, name string, args ...string) (string, error) {
	var out buffer
	err := run.Run(ctx, run.Cmd{Name: name, Args: args, Stdout: &out, Stderr: &out, Quiet: true})
	return out.text.String(), err
}

// buffer takes both streams of a program, which write side by side.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}
