package firstboot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/ignition"
)

const (
	// userData is what cloud-init had from the machine's data source.
	userData = "/var/lib/cloud/instance/user-data.txt"
	// ignitionConfig is where Ignition's engine is told to look: its platform "file".
	ignitionConfig = RunDir + "/bootstrap.ign"
	// ignited holds the digest of the config that was done: it is done once.
	ignited = StateDir + "/ignition"
	// engine is Ignition as the base's package has it, which is made for an initrd.
	engine = "/usr/lib/dracut/modules.d/30ignition/ignition"
)

// Ignition does, once, what the machine's user data says where that is an Ignition config,
// by Ignition's own engine, and starts the units that it enables. User data of any other
// kind is cloud-init's.
func (a *Agent) Ignition(ctx context.Context) error {
	data, err := os.ReadFile(a.path(userData))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !ignition.Is(data) {
		return nil
	}
	if err != nil {
		return err
	}
	id := sum(data)
	if done, err := readLine(a.path(ignited)); err == nil && done == id {
		return nil
	}
	now, err := ignition.Current(data)
	if err != nil {
		return fmt.Errorf("the user data: %w", err)
	}
	units, err := ignition.Units(now)
	if err != nil {
		return fmt.Errorf("the user data: %w", err)
	}
	if err := errors.Join(os.MkdirAll(a.path(RunDir), 0o755), os.WriteFile(a.path(ignitionConfig), now, 0o600)); err != nil {
		return err
	}
	defer os.Remove(a.path(ignitionConfig)) //nolint:errcheck // in memory, for root alone
	var todo [][]string
	for _, stage := range []string{"fetch", "disks", "files"} {
		todo = append(todo, []string{"env", "IGNITION_CONFIG_FILE=" + a.path(ignitionConfig), engine, "--platform=file", "--stage=" + stage, "--root=" + a.path("/"), "--log-to-stdout", "--config-cache=" + a.path(RunDir, "ignition.json")})
	}
	todo = append(todo, []string{"systemctl", "daemon-reload"})
	if len(units) > 0 {
		todo = append(todo, slices.Concat([]string{"systemctl", "preset"}, units))
	}
	for _, c := range todo {
		if out, err := a.Runner.Run(ctx, c[0], c[1:]...); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(c[:min(len(c), 5)], " "), err, lastLine(out))
		}
	}
	if err := writeDurably(a.path(ignited), []byte(id+"\n"), 0o600); err != nil || len(units) == 0 {
		return err
	}
	if out, err := a.Runner.Run(ctx, "systemctl", slices.Concat([]string{"start", "--no-block"}, units)...); err != nil {
		return fmt.Errorf("starting %s: %w: %s", units, err, lastLine(out))
	}
	return nil
}
