// Package ignition reads Ignition configs of every version of their specification that
// is in use: Flatcar's older ones and Cluster API's are of specification 2.
package ignition

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/coreos/ign-converter/translate/v24tov31"
	old "github.com/coreos/ignition/config/v2_4"
	"github.com/coreos/ignition/config/v2_4/types"
)

// Is says whether data is an Ignition config: a JSON object that says so.
func Is(data []byte) bool {
	_, err := version(data)
	return err == nil
}

// Current returns a config in words of specification 3: as it is where it is one, and
// in those of 3.1 where it is one of specification 2. It does not judge those of 3.
func Current(data []byte) ([]byte, error) {
	v, err := version(data)
	if err != nil || !strings.HasPrefix(v, "2.") {
		return data, err
	}
	c, report, err := old.Parse(data)
	if err != nil || report.IsFatal() {
		return nil, fmt.Errorf("as Ignition %s: %w", v, errors.Join(err, errors.New(strings.TrimSpace(report.String()))))
	}
	if err := onRoot(c.Storage); err != nil {
		return nil, fmt.Errorf("as Ignition %s: %w", v, err)
	}
	now, err := v24tov31.Translate(c, nil)
	if err != nil {
		return nil, fmt.Errorf("from Ignition %s to 3.1: %w", v, err)
	}
	return json.Marshal(now)
}

// onRoot refuses what lies in a file system of its own, which specification 3 names by
// where it is mounted: the config does not say.
func onRoot(s types.Storage) error {
	var nodes []types.Node
	for _, f := range s.Files {
		nodes = append(nodes, f.Node)
	}
	for _, d := range s.Directories {
		nodes = append(nodes, d.Node)
	}
	for _, l := range s.Links {
		nodes = append(nodes, l.Node)
	}
	for _, n := range nodes {
		if n.Filesystem != "root" {
			return fmt.Errorf("%s is in the file system %q: only root's is known", n.Path, n.Filesystem)
		}
	}
	return nil
}

// Units are the units that a config of specification 3 enables, in its order.
func Units(data []byte) (enabled []string, err error) {
	var c struct {
		Systemd struct {
			Units []struct {
				Name    string
				Enabled bool
			}
		}
	}
	err = json.Unmarshal(data, &c)
	for _, u := range c.Systemd.Units {
		if u.Enabled {
			enabled = append(enabled, u.Name)
		}
	}
	return enabled, err
}

func version(data []byte) (string, error) {
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return "", errors.New("no JSON object")
	}
	var c struct {
		Ignition *struct{ Version string }
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return "", err
	}
	if c.Ignition == nil || c.Ignition.Version == "" {
		return "", errors.New("no version of Ignition")
	}
	return c.Ignition.Version, nil
}
