// Package identity makes a cluster's identity ahead of the cluster: its
// authorities, its service-account key and its bootstrap token. It knows the
// files that kubeadm expects, and mints an operator's kubeconfig without a
// cluster. It does not talk to one.
package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/repro"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour // as kubeadm's
	backdate      = time.Hour                 // for machines whose clock is behind
)

// Cluster is a cluster's identity. It holds everything that can sign.
type Cluster struct {
	Name     string
	Endpoint string
	Token    config.Secret
	TokenTTL time.Duration
	VIP      bool     // masters hold the endpoint's address among themselves
	Masters  []string // addresses of all masters; may be empty without VIP
	CACert   string
	PKI      config.PKI
}

// SetMasters names the masters' addresses and says whether they hold the
// endpoint's address among themselves.
func (c *Cluster) SetMasters(vip bool, masters []string) error {
	if err := config.CheckMasters(c.Endpoint, vip, masters); err != nil {
		return err
	}
	c.VIP, c.Masters = vip, masters
	return nil
}

// New makes an identity; endpoint is host:port of the API.
func New(name, endpoint string, tokenTTL time.Duration) (*Cluster, error) {
	if err := config.CheckName(name); err != nil {
		return nil, fmt.Errorf("the cluster's name %w", err)
	}
	if err := config.CheckEndpoint(endpoint); err != nil {
		return nil, fmt.Errorf("the endpoint %w", err)
	}
	c := &Cluster{Name: name, Endpoint: endpoint, TokenTTL: tokenTTL, Token: newToken()}
	var err error
	if c.CACert, c.PKI.CAKey, err = authority("kubernetes"); err != nil {
		return nil, err
	}
	if c.PKI.FrontProxyCACert, c.PKI.FrontProxyCAKey, err = authority("front-proxy-ca"); err != nil {
		return nil, err
	}
	if c.PKI.EtcdCACert, c.PKI.EtcdCAKey, err = authority("etcd-ca"); err != nil {
		return nil, err
	}
	_, c.PKI.ServiceAccountKey, err = newKey()
	return c, err
}

// newToken makes a bootstrap token: [a-z0-9]{6}.[a-z0-9]{16}.
func newToken() config.Secret {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	var out []byte
	for len(out) < 22 {
		for _, b := range repro.Secret(64) {
			if int(b) < 256/len(letters)*len(letters) && len(out) < 22 { // no letter is likelier than another
				out = append(out, letters[int(b)%len(letters)])
			}
		}
	}
	return config.NewSecret(string(out[:6]) + "." + string(out[6:]))
}

func newKey() (*ecdsa.PrivateKey, config.Secret, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, config.Secret{}, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, config.Secret{}, err
	}
	return key, config.NewSecret(string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))), nil
}

func authority(name string) (string, config.Secret, error) {
	key, secret, err := newKey()
	if err != nil {
		return "", config.Secret{}, err
	}
	cert, err := sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
	}, authorityLife, nil, key.Public(), key)
	return cert, secret, err
}

// sign makes a certificate; a nil parent signs itself.
func sign(c *x509.Certificate, life time.Duration, parent *x509.Certificate, pub crypto.PublicKey, signer crypto.Signer) (string, error) {
	c.SerialNumber = new(big.Int).SetBytes(repro.Secret(16))
	c.NotBefore = repro.Now().Add(-backdate).UTC()
	c.NotAfter = c.NotBefore.Add(life + backdate)
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, signer)
	if err != nil {
		return "", fmt.Errorf("signing the certificate of %s: %w", c.Subject.CommonName, err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), nil
}

// CAHash is the hash of the CA's public key as kubeadm pins it: sha256:hex.
func CAHash(caCert string) (string, error) {
	cert, err := config.ParseCert(caCert)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// parseKey reads a key that this package made.
func parseKey(s config.Secret) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(s.Reveal()))
	if block == nil {
		return nil, errors.New("the key is not PEM")
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the key is not an elliptic curve key")
	}
	return key, nil
}

// ServiceAccountPublicKey is the public half of the service-account key, PEM.
func ServiceAccountPublicKey(key config.Secret) (string, error) {
	k, err := parseKey(key)
	if err != nil {
		return "", fmt.Errorf("service-account key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

// token returns the token's two halves; only the second is secret.
func (c *Cluster) token() (id, secret string) {
	id, secret, _ = strings.Cut(c.Token.Reveal(), ".")
	return id, secret
}

// TokenID is the public half of the token: it names the token in the cluster.
func (c *Cluster) TokenID() string {
	id, _ := c.token()
	return id
}

// NewToken gives the identity another token with a lifetime; 0 never ends.
func (c *Cluster) NewToken(ttl time.Duration) { c.Token, c.TokenTTL = newToken(), ttl }
