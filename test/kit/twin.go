package kit

import (
	"context"
	"os"
	"path/filepath"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/run"
)

// TwinIP is the address of the machine that a copy of the worker's disk boots on.
const TwinIP = "10.0.0.77"

// CopyDisk copies the disk of a machine that is off into the folder of another.
func CopyDisk(ctx context.Context, from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, file := range []string{"disk.qcow2", "disk.base", "vars.fd"} {
		if err := run.Run(ctx, run.Cmd{Name: "cp", Args: []string{"--sparse=always", filepath.Join(from, file), to}}); err != nil {
			return err
		}
	}
	return nil
}

// Twin boots a copy of the worker's disk as another machine; the worker must be off.
func (c *Cluster) Twin(ctx context.Context) (*boottest.Machine, error) {
	if err := CopyDisk(ctx, c.Worker.Dir, filepath.Join(filepath.Dir(c.Worker.Dir), "twin")); err != nil {
		return nil, err
	}
	return boottest.Start(ctx, boottest.Node{Name: "twin", Image: c.images["worker"], IP: TwinIP, Memory: 1536, CPUs: 1},
		filepath.Join(c.kit.Dir, "machines"), c.socket, true)
}

// StartWorker boots the worker alone from the disk that it has.
func (c *Cluster) StartWorker(ctx context.Context) (err error) {
	c.started = repro.Now()
	c.Worker, err = c.boot(ctx, "worker", WorkerIP, 2560, 1, boottest.Seed)
	return err
}
