// Package config is what a node is told at boot (NodeConfig) and what its image
// says of itself (Facts). The builder writes facts, `imgbuild cluster` writes node
// configs, and the first-boot agent reads both.
package config

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// What every node config says of itself.
const (
	APIVersion = "imgbuild.dev/v1alpha1"
	Kind       = "NodeConfig"
	Credential = "imgbuild.node"                //nolint:gosec // the name of the systemd credential that holds it
	Credstore  = "/etc/credstore/" + Credential // where systemd looks for it on the node's own disk
	SeedLabel  = "IMGBUILD"                     // file-system label of a seed disk
	SeedFile   = "node.yaml"                    // the file on it
	FactsFile  = "/etc/imgbuild/node.json"
	ImagesDir  = "/usr/lib/imgbuild/containerd" // what containerd's root directory is made from, by the images on board
)

// Roles.
const (
	Master = "master"
	Worker = "worker"
)

// NodeConfig is who a node is. It comes at boot and is never in an image.
type NodeConfig struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Role       string `yaml:"role"`
	Cluster    string `yaml:"cluster"`
	Endpoint   string `yaml:"endpoint"`           // host:port of the API
	Hostname   string `yaml:"hostname,omitempty"` // empty: the role and the start of the machine id
	NodeIP     string `yaml:"nodeIP,omitempty"`   // empty: the address on the default route
	Token      Secret `yaml:"token"`              // bootstrap token, as kubeadm spells it
	TokenTTL   string `yaml:"tokenTTL,omitempty"` // a duration such as 24h0m0s; "0s" never ends
	CACert     string `yaml:"caCert"`             // PEM
	// Only for a master: how masters come together, and what signs. A worker's config
	// that holds any of it is refused.
	Joins             bool     `yaml:"joins,omitempty"`   // it joins the masters that are there; without, it is the first
	VIP               bool     `yaml:"vip,omitempty"`     // the masters hold the endpoint's address among themselves
	Masters           []string `yaml:"masters,omitempty"` // the addresses of all masters, in the order in which they take it
	PKI               *PKI     `yaml:"pki,omitempty"`
	SSHAuthorizedKeys []string `yaml:"sshAuthorizedKeys,omitempty"`
	// System UUID or MAC address of the machine that a disk was moved to for good.
	Adopt string `yaml:"adopt,omitempty"`
}

// PKI is a cluster's keys and the certificates of its other authorities, PEM.
type PKI struct {
	CAKey             Secret `yaml:"caKey"`
	FrontProxyCACert  string `yaml:"frontProxyCACert"`
	FrontProxyCAKey   Secret `yaml:"frontProxyCAKey"`
	EtcdCACert        string `yaml:"etcdCACert"`
	EtcdCAKey         Secret `yaml:"etcdCAKey"`
	ServiceAccountKey Secret `yaml:"serviceAccountKey"`
}

// maxSize bounds a node config.
const maxSize = 256 << 10

// Parse reads a node config strictly and checks it. The error carries every
// finding and its line, and never what was written where a secret belongs.
func Parse(data []byte) (*NodeConfig, error) {
	if len(data) > maxSize {
		return nil, fmt.Errorf("node config: %d bytes, at most %d", len(data), maxSize)
	}
	var c NodeConfig
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil {
		var wrong *yaml.TypeError
		if errors.As(err, &wrong) {
			err = errors.New(unknownKey.ReplaceAllString(strings.Join(wrong.Errors, "; "), "$1 is not a key of it"))
		}
		return nil, fmt.Errorf("node config: %w", err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("node config: a second document follows the first; give each node a file of its own")
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("node config: %w", withLines(data, err))
	}
	return &c, nil
}

var (
	unknownKey = regexp.MustCompile(`field (\S+) not found in type \S+`) // as the library calls it

	tokenForm    = regexp.MustCompile(`^[a-z0-9]{6}\.[a-z0-9]{16}$`)
	hostnameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	adoptForm    = regexp.MustCompile(`(?i)^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{2}(:[0-9a-f]{2}){5})$`)
	nameForm     = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)
)

// Validate reports everything that is wrong, joined.
func (c *NodeConfig) Validate() error {
	var errs []error
	bad := func(path, format string, args ...any) { errs = append(errs, fmt.Errorf(path+": "+format, args...)) }
	if c.APIVersion != APIVersion || c.Kind != Kind {
		bad("apiVersion, kind", "want %s and %s", APIVersion, Kind)
	}
	if c.Role != Master && c.Role != Worker {
		bad("role", "%q: want master or worker", c.Role)
	}
	if err := CheckName(c.Cluster); err != nil {
		bad("cluster", "%w", err)
	}
	if err := CheckEndpoint(c.Endpoint); err != nil {
		bad("endpoint", "%w", err)
	}
	if c.Hostname != "" && !hostnameForm.MatchString(c.Hostname) {
		bad("hostname", "%q: want a DNS label", c.Hostname)
	}
	if ip := net.ParseIP(c.NodeIP); c.NodeIP != "" && (ip == nil || !ip.IsGlobalUnicast()) {
		bad("nodeIP", "%q: want the IP address at which other nodes reach this one", c.NodeIP)
	}
	if !tokenForm.MatchString(c.Token.Reveal()) {
		bad("token", "want a bootstrap token: six and sixteen lower-case letters and digits, a dot between")
	}
	if d, err := time.ParseDuration(c.TokenTTL); c.TokenTTL != "" && (err != nil || d < 0) {
		bad("tokenTTL", "%q: want a duration such as 24h", c.TokenTTL)
	}
	if _, err := ParseCert(c.CACert); err != nil {
		bad("caCert", "%w", err)
	}
	if c.Adopt != "" && !adoptForm.MatchString(c.Adopt) {
		bad("adopt", "%q: want the system UUID or a MAC address of one machine, as its console says", c.Adopt)
	}
	errs = append(append(errs, c.checkMasters()...), c.checkPKI()...)
	for i, key := range c.SSHAuthorizedKeys {
		if strings.ContainsAny(key, "\n\r\x00") || !strings.Contains(key, " ") {
			bad(fmt.Sprintf("sshAuthorizedKeys[%d]", i), "want one public key on one line")
		}
	}
	return errors.Join(errs...)
}

func (c *NodeConfig) checkMasters() []error {
	if c.Role == Worker {
		if c.Joins || c.VIP || len(c.Masters) > 0 {
			return []error{errors.New("joins, vip, masters: these are a master's: take them out of a worker's config")}
		}
		return nil
	}
	var errs []error
	if err := CheckMasters(c.Endpoint, c.VIP, c.Masters); err != nil {
		errs = append(errs, err)
	}
	if c.NodeIP != "" && len(c.Masters) > 0 && !slices.Contains(c.Masters, c.NodeIP) {
		errs = append(errs, fmt.Errorf("nodeIP: %s is not among masters (%s)", c.NodeIP, strings.Join(c.Masters, ", ")))
	}
	return errs
}

// maxMasters is more than an etcd should have.
const maxMasters = 9

// CheckMasters says what is wrong with the masters' addresses, and with a virtual
// address that they are to hold.
func CheckMasters(endpoint string, vip bool, masters []string) error {
	host, port, _ := net.SplitHostPort(endpoint)
	virtual := net.ParseIP(host)
	if vip {
		switch {
		case virtual == nil:
			return fmt.Errorf("vip: the endpoint %q must be an IP address for masters to hold it; without vip it may be a name", endpoint)
		case port != "6443":
			return fmt.Errorf("vip: the endpoint %q must have port 6443, on which the masters' API listens", endpoint)
		case len(masters) < 2:
			return errors.New("vip: masters must list the address of every master, two or more; without vip the endpoint can be a single master's own address")
		}
	}
	if len(masters) > maxMasters {
		return fmt.Errorf("masters: %d addresses, at most %d", len(masters), maxMasters)
	}
	for i, text := range masters {
		ip := net.ParseIP(text)
		switch {
		case ip == nil || !ip.IsGlobalUnicast():
			return fmt.Errorf("masters[%d]: %q: want the IP address at which other nodes reach a master", i, text)
		case slices.Contains(masters[:i], text):
			return fmt.Errorf("masters[%d]: %s is there twice", i, text)
		case vip && ip.Equal(virtual):
			return fmt.Errorf("masters[%d]: %s is the virtual address: list the masters' own", i, text)
		case vip && (ip.To4() == nil) != (virtual.To4() == nil):
			return fmt.Errorf("masters[%d]: %s and the virtual address %s must both be IPv4 or both IPv6", i, text, host)
		}
	}
	return nil
}

func (c *NodeConfig) checkPKI() []error {
	if c.Role == Worker {
		if c.PKI != nil {
			return []error{errors.New("pki: a worker must not hold what signs: give it the worker's config")}
		}
		return nil
	}
	if c.PKI == nil {
		return []error{errors.New("pki: a master needs the cluster's keys: give it the master's config")}
	}
	var errs []error
	for name, cert := range map[string]string{"frontProxyCACert": c.PKI.FrontProxyCACert, "etcdCACert": c.PKI.EtcdCACert} {
		if _, err := ParseCert(cert); err != nil {
			errs = append(errs, fmt.Errorf("pki.%s: %w", name, err))
		}
	}
	for name, key := range map[string]Secret{"caKey": c.PKI.CAKey, "frontProxyCAKey": c.PKI.FrontProxyCAKey, "etcdCAKey": c.PKI.EtcdCAKey, "serviceAccountKey": c.PKI.ServiceAccountKey} {
		if block, _ := pem.Decode([]byte(key.Reveal())); block == nil || !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			errs = append(errs, fmt.Errorf("pki.%s: want a private key in PEM", name))
		}
	}
	return errs
}

// CheckName says what is wrong with a cluster's name.
func CheckName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("%q: want up to 63 lower-case letters, digits, '-' and '.'", name)
	}
	return nil
}

// CheckEndpoint says what is wrong with an API endpoint; it must be host:port.
func CheckEndpoint(endpoint string) error {
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		return fmt.Errorf("%q is not host:port, such as 10.0.0.10:6443", endpoint)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("%q: the port must be 1 to 65535", endpoint)
	}
	if ip := net.ParseIP(host); ip != nil && (ip.IsUnspecified() || ip.IsMulticast()) || ip == nil && !nameForm.MatchString(host) {
		return fmt.Errorf("%q: %q is neither the IP address of a host nor a DNS name", endpoint, host)
	}
	return nil
}

// ParseCert reads one certificate in PEM.
func ParseCert(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("want a certificate in PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate: %w", err)
	}
	return cert, nil
}

// Facts is what an image says of itself, node.json.
type Facts struct {
	Role              string   `json:"role"`
	Arch              string   `json:"arch"`
	KubernetesVersion string   `json:"kubernetesVersion"` // without "v"
	PodCIDR           string   `json:"podCIDR"`
	ServiceCIDR       string   `json:"serviceCIDR"`
	DNSDomain         string   `json:"dnsDomain"`
	ProxyMode         string   `json:"proxyMode"`
	CNI               string   `json:"cni"`
	EtcdElection      string   `json:"etcdElectionTimeout"` // a duration
	Images            []string `json:"images"`              // on board, full references
	Patches           bool     `json:"patches,omitempty"`   // the image has files in PatchesDir
	PlanID            string   `json:"planID"`
}

// PatchesDir is where an image's owner puts patches for kubeadm (kubeadm API, Patches).
const PatchesDir = "/etc/kubeadm/patches"

// ReadFacts reads node.json.
func ReadFacts(file string) (Facts, error) {
	var f Facts
	data, err := os.ReadFile(file) // #nosec G304 -- a fixed path of the image
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return f, fmt.Errorf("%s: %w", file, err)
	}
	return f, nil
}
