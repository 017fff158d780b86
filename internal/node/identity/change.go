package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

// A change of several files is one step: the new ones are written into a folder
// of their own, whose rename to changeDir is the moment from which they hold.
// Who comes next after a crash moves what is still in it, or finds nothing.
const (
	draftDir  = ".imgbuild-draft"
	changeDir = ".imgbuild-change"
)

// Configs are the node configs of this identity in its folder, by file name: what
// Save wrote, and copies that were given a host name or keys. One that cannot be
// read is an error: it would be forgotten by a change.
func (c *Cluster) Configs(dir string) (map[string]*config.NodeConfig, error) {
	found, _, err := c.configs(dir)
	return found, err
}

func (c *Cluster) configs(dir string) (map[string]*config.NodeConfig, map[string][]byte, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, nil, err
	}
	found, texts := map[string]*config.NodeConfig{}, map[string][]byte{}
	for _, file := range files {
		data, err := os.ReadFile(file) // #nosec G304 -- in the folder that the user names
		if err != nil {
			return nil, nil, err
		}
		var head struct{ Kind string }
		if yaml.Unmarshal(data, &head) == nil && head.Kind != config.Kind {
			continue // somebody's spec or kubeconfig
		}
		n, err := config.Parse(data)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", file, err)
		}
		if n.CACert == c.CACert {
			found[filepath.Base(file)], texts[filepath.Base(file)] = n, data
		}
	}
	return found, texts, nil
}

// Update writes what is another in next than in c into every node config in the
// folder, all of them or none; what else they say, comments too, stays.
func (c *Cluster) Update(dir string, next *Cluster) error {
	_, texts, err := c.configs(dir)
	if err != nil {
		return err
	}
	for name, text := range texts {
		if texts[name], err = edit(text, next.values()); err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
		}
		if _, err := config.Parse(texts[name]); err != nil {
			return fmt.Errorf("writing %s anew: %w", filepath.Join(dir, name), err)
		}
	}
	return replace(dir, texts)
}

// values are what an identity is made of, by its path in a node config.
func (c *Cluster) values() map[string]string {
	return map[string]string{
		"token": c.Token.Reveal(), "tokenTTL": c.TokenTTL.String(), "caCert": c.CACert,
		"pki.caKey": c.PKI.CAKey.Reveal(), "pki.serviceAccountKey": c.PKI.ServiceAccountKey.Reveal(),
		"pki.frontProxyCACert": c.PKI.FrontProxyCACert, "pki.frontProxyCAKey": c.PKI.FrontProxyCAKey.Reveal(),
		"pki.etcdCACert": c.PKI.EtcdCACert, "pki.etcdCAKey": c.PKI.EtcdCAKey.Reveal(),
	}
}

// edit sets the values that a document has, and leaves the rest as it is.
func edit(text []byte, values map[string]string) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	setValues(doc.Content[0], "", values)
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(&doc), e.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func setValues(m *yaml.Node, path string, values map[string]string) {
	for i := 0; i+1 < len(m.Content); i += 2 {
		key, value := path+m.Content[i].Value, m.Content[i+1]
		if v, ok := values[key]; ok && value.Kind == yaml.ScalarNode {
			value.Value = v
		}
		if value.Kind == yaml.MappingNode {
			setValues(value, key+".", values)
		}
	}
}

// replace writes files (0600) over those of a folder, all of them or none, also
// when the power goes.
func replace(dir string, files map[string][]byte) error {
	draft := filepath.Join(dir, draftDir)
	if err := errors.Join(os.RemoveAll(draft), os.Mkdir(draft, 0o700)); err != nil {
		return err
	}
	defer os.RemoveAll(draft) //nolint:errcheck // gone by the rename if all went well
	for name, data := range files {
		if err := writeSynced(filepath.Join(draft, name), data); err != nil {
			return err
		}
	}
	if err := errors.Join(syncDir(draft), os.Rename(draft, filepath.Join(dir, changeDir)), syncDir(dir)); err != nil {
		return err
	}
	return settle(dir)
}

// settle brings a change to its end, if one has begun.
func settle(dir string) error {
	change := filepath.Join(dir, changeDir)
	entries, err := os.ReadDir(change)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, os.Rename(filepath.Join(change, e.Name()), filepath.Join(dir, e.Name())))
	}
	if err = errors.Join(err, syncDir(dir)); err == nil {
		err = os.Remove(change)
	}
	if err != nil {
		return fmt.Errorf("bringing the change of %s to its end: %w", dir, err)
	}
	return nil
}

func writeSynced(file string, data []byte) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) // #nosec G304 -- in the cluster's own folder
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir) // #nosec G304 -- the cluster's own folder
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
