package identity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/node/config"
)

// The files of a cluster's folder.
const (
	MasterFile     = "master.yaml"      // the first master
	MasterJoinFile = "master-join.yaml" // every other one
	WorkerFile     = "worker.yaml"
)

// Save writes the identity as node configs into a new folder (0700, files
// 0600). A folder that exists is refused: an identity is never overwritten. The
// folder appears whole.
func (c *Cluster) Save(dir string) error {
	if _, err := os.Lstat(dir); err == nil {
		return fault.New(fault.Usage, "%s exists already: an identity is never overwritten; take another folder, or remove it if no cluster uses it", dir)
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if err := os.MkdirAll(parent, 0o755); err != nil { // #nosec G301 -- the user's folder
		return err
	}
	scratch, err := os.MkdirTemp(parent, ".imgbuild-cluster-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch) //nolint:errcheck // gone by the rename if all went well
	for name, text := range map[string]string{MasterFile: c.document(config.Master, false), MasterJoinFile: c.document(config.Master, true), WorkerFile: c.document(config.Worker, false)} {
		if err := os.WriteFile(filepath.Join(scratch, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return os.Rename(scratch, dir)
}

// Load reads the identity from a cluster's folder, by its master config.
// A change that a crash cut short is brought to its end first.
func Load(dir string) (*Cluster, error) {
	if err := settle(dir); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, MasterFile)
	data, err := os.ReadFile(file) // #nosec G304 -- the folder that the user names
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: no cluster's folder; make one by `imgbuild cluster new`", dir)
	}
	if err != nil {
		return nil, err
	}
	n, err := config.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if n.PKI == nil {
		return nil, fmt.Errorf("%s: holds no keys", file)
	}
	ttl, _ := time.ParseDuration(n.TokenTTL) // Parse has checked it
	return &Cluster{Name: n.Cluster, Endpoint: n.Endpoint, Token: n.Token, TokenTTL: ttl, CACert: n.CACert, PKI: *n.PKI, VIP: n.VIP, Masters: n.Masters}, nil
}

// document is the node config for a role. A worker's holds nothing that can sign.
func (c *Cluster) document(role string, joins bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Who a %s of the cluster %s is. Secret: whoever has it can join", role, c.Name)
	if role == config.Master {
		b.WriteString(", and sign for, the cluster")
	} else {
		b.WriteString(" the cluster")
	}
	fmt.Fprintf(&b, ".\napiVersion: %s\nkind: %s\nrole: %s\ncluster: %s\nendpoint: %q\ntoken: %s\n", config.APIVersion, config.Kind, role, c.Name, c.Endpoint, c.Token.Reveal())
	fmt.Fprintf(&b, "tokenTTL: %s\n", c.TokenTTL)
	text(&b, "", "caCert", c.CACert)
	if role == config.Master {
		c.masters(&b, joins)
		b.WriteString("pki:\n")
		text(&b, "  ", "caKey", c.PKI.CAKey.Reveal())
		text(&b, "  ", "frontProxyCACert", c.PKI.FrontProxyCACert)
		text(&b, "  ", "frontProxyCAKey", c.PKI.FrontProxyCAKey.Reveal())
		text(&b, "  ", "etcdCACert", c.PKI.EtcdCACert)
		text(&b, "  ", "etcdCAKey", c.PKI.EtcdCAKey.Reveal())
		text(&b, "  ", "serviceAccountKey", c.PKI.ServiceAccountKey.Reveal())
	}
	return b.String()
}

// masters writes how masters come together.
func (c *Cluster) masters(b *strings.Builder, joins bool) {
	if joins {
		b.WriteString("joins: true\n")
	}
	if c.VIP {
		b.WriteString("vip: true\n")
	}
	if len(c.Masters) > 0 {
		fmt.Fprintf(b, "masters: [%s]\n", `"`+strings.Join(c.Masters, `", "`)+`"`)
	}
}

// text writes PEM as a YAML block.
func text(b *strings.Builder, indent, key, pem string) {
	fmt.Fprintf(b, "%s%s: |\n", indent, key)
	for line := range strings.Lines(pem) {
		b.WriteString(indent + "  " + line)
	}
}
