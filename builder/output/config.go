package output

import (
	"context"
	"os"
)

func writeButane(_ context.Context, m *Made, dst string, _ bool) error {
	text, err := m.Host.Butane(m.Release, m.From)
	if err != nil {
		return err
	}
	return os.WriteFile(dst, text, 0o644) // #nosec G306 -- a config holds no secret
}

func writeIgnition(_ context.Context, m *Made, dst string, _ bool) error {
	text, err := m.Host.Ignition(m.Release, m.From)
	if err != nil {
		return err
	}
	return os.WriteFile(dst, text, 0o644) // #nosec G306 -- a config holds no secret
}
