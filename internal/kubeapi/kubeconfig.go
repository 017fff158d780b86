package kubeapi

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

// file is the part of a kubeconfig that is read here (client-go's v1.Config).
type file struct {
	Kind     string `yaml:"kind"`
	Current  string `yaml:"current-context"`
	Clusters []struct {
		Name    string
		Cluster struct {
			Server   string
			CA       string `yaml:"certificate-authority-data"`
			CAFile   string `yaml:"certificate-authority"`
			Insecure bool   `yaml:"insecure-skip-tls-verify"`
		}
	}
	Contexts []struct {
		Name    string
		Context struct{ Cluster, User string }
	}
	Users []struct {
		Name string
		User user
	}
}

type user struct {
	Cert     string `yaml:"client-certificate-data"`
	CertFile string `yaml:"client-certificate"`
	Key      string `yaml:"client-key-data"`
	KeyFile  string `yaml:"client-key"`
	Token    string
}

// access is what a kubeconfig's current context says.
type access struct {
	cluster, server, user, token string
	ca                           []byte
	pool                         *x509.CertPool
	pair                         *tls.Certificate
}

func parse(data []byte) (*access, error) {
	var f file
	if err := yaml.Unmarshal(data, &f); err != nil || f.Kind != "Config" {
		return nil, errors.New("this is no kubeconfig: want YAML of the kind Config") // what it holds may be secret
	}
	for _, c := range f.Contexts {
		if c.Name == f.Current {
			return f.access(c.Context.Cluster, c.Context.User)
		}
	}
	return nil, fmt.Errorf("current-context %q is not among its contexts", f.Current)
}

func (f *file) access(cluster, name string) (*access, error) {
	a := &access{cluster: cluster, user: name, pool: x509.NewCertPool()}
	for _, c := range f.Clusters {
		if c.Name != cluster {
			continue
		}
		if c.Cluster.Insecure {
			return nil, describe("cluster", cluster, errors.New("insecure-skip-tls-verify: the CA is always checked here"))
		}
		ca, err := pemOf(c.Cluster.CA, c.Cluster.CAFile)
		if err != nil || !a.pool.AppendCertsFromPEM(ca) {
			return nil, describe("cluster", cluster, errors.Join(errors.New("holds no CA certificate"), err))
		}
		a.ca, a.server = ca, strings.TrimSuffix(c.Cluster.Server, "/")
	}
	if !strings.HasPrefix(a.server, "https://") {
		return nil, describe("cluster", cluster, fmt.Errorf("server %q: want https://HOST:PORT", a.server))
	}
	for _, u := range f.Users {
		if u.Name == name {
			return a, describeIf("user", name, a.credentials(u.User))
		}
	}
	return nil, fmt.Errorf("user %q is not among its users", name)
}

func (a *access) credentials(u user) error {
	if u.Token != "" {
		a.token = u.Token
		return nil
	}
	cert, err1 := pemOf(u.Cert, u.CertFile)
	key, err2 := pemOf(u.Key, u.KeyFile)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if len(cert) == 0 || len(key) == 0 {
		return errors.New("holds neither a client certificate nor a token; programs that fetch one (exec) are not run here: mint a kubeconfig by `imgbuild cluster kubeconfig`")
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return errors.New("its certificate and key do not belong together")
	}
	a.pair = &pair
	return nil
}

func describeIf(kind, name string, err error) error {
	if err == nil {
		return nil
	}
	return describe(kind, name, err)
}

// pemOf is PEM from base64 in the kubeconfig, or from the file that it names.
func pemOf(data, file string) ([]byte, error) {
	if data == "" && file == "" {
		return nil, nil
	}
	if data == "" {
		return os.ReadFile(file) // #nosec G304 -- the file that the user's kubeconfig names
	}
	out, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		return nil, errors.New("its data is not base64")
	}
	return out, nil
}
