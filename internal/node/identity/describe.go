package identity

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

// Description is what may be seen of an identity: no secret is in it.
type Description struct {
	Cluster     string      `json:"cluster"`
	Endpoint    string      `json:"endpoint"`
	CAHash      string      `json:"caHash"` // as kubeadm pins it
	Authorities []Authority `json:"authorities"`
	TokenID     string      `json:"tokenID"`
	TokenTTL    string      `json:"tokenTTL"` // "0s" never ends
	Files       []File      `json:"files"`
}

// Authority is a certificate that signs others.
type Authority struct {
	Name        string    `json:"name"`
	Subject     string    `json:"subject"`
	Fingerprint string    `json:"sha256"` // of the certificate
	NotBefore   time.Time `json:"notBefore"`
	NotAfter    time.Time `json:"notAfter"`
}

// File is a node config in the folder.
type File struct {
	Path string `json:"path"`
	Role string `json:"role"`
	Mode string `json:"mode"`
	May  string `json:"may"` // what whoever holds it can do
}

// Describe says what the identity in a folder is.
func (c *Cluster) Describe(dir string) (Description, error) {
	hash, err := CAHash(c.CACert)
	if err != nil {
		return Description{}, err
	}
	d := Description{Cluster: c.Name, Endpoint: c.Endpoint, CAHash: hash, TokenID: c.TokenID(), TokenTTL: c.TokenTTL.String()}
	for _, a := range []struct{ name, text string }{{"cluster", c.CACert}, {"front proxy", c.PKI.FrontProxyCACert}, {"etcd", c.PKI.EtcdCACert}} {
		cert, err := config.ParseCert(a.text)
		if err != nil {
			return d, fmt.Errorf("authority %s: %w", a.name, err)
		}
		d.Authorities = append(d.Authorities, Authority{a.name, cert.Subject.String(), fmt.Sprintf("%x", sha256.Sum256(cert.Raw)), cert.NotBefore, cert.NotAfter})
	}
	configs, err := c.Configs(dir)
	if err != nil {
		return d, err
	}
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return d, err
		}
		may := "join as a worker"
		if configs[name].PKI != nil {
			may = "sign anything: it is the cluster"
		}
		d.Files = append(d.Files, File{filepath.Join(dir, name), configs[name].Role, fmt.Sprintf("%04o", info.Mode().Perm()), may})
	}
	return d, nil
}

// Rotate makes everything of the identity anew, name and endpoint but; nodes that
// were told the old one are strangers to it. The old node configs are kept in a
// folder beside (0700), whose path is returned.
func (c *Cluster) Rotate(dir string) (kept string, err error) {
	next, err := New(c.Name, c.Endpoint, c.TokenTTL)
	if err != nil {
		return "", err
	}
	_, texts, err := c.configs(dir)
	if err != nil {
		return "", err
	}
	if kept, err = keep(dir, texts); err != nil {
		return "", fmt.Errorf("keeping the old identity: %w", err)
	}
	return kept, c.Update(dir, next)
}

// keep writes files into the first of DIR.old-1, DIR.old-2 ... that is free.
func keep(dir string, files map[string][]byte) (string, error) {
	whole, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for n := 1; ; n++ {
		kept := fmt.Sprintf("%s.old-%d", whole, n)
		err := os.Mkdir(kept, 0o700)
		if os.IsExist(err) {
			continue
		}
		if err != nil {
			return "", err
		}
		for name, data := range files {
			if err := writeSynced(filepath.Join(kept, name), data); err != nil {
				return "", err
			}
		}
		return kept, syncDir(kept)
	}
}
