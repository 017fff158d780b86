package identity

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// clientLife is how long a client's certificate works that lives in memory alone.
const clientLife = time.Hour

// ClientTLS is how a client that holds an authority's key talks to what the same
// authority has signed: by a certificate of its own, made now, with the name and
// the group. Nothing of it is written.
func ClientTLS(caCert string, caKey config.Secret, name, group string) (*tls.Config, error) {
	subject := pkix.Name{CommonName: name}
	if group != "" {
		subject.Organization = []string{group}
	}
	cert, key, err := client(caCert, caKey, subject, clientLife)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key.Reveal()))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(caCert))
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

// kubeletLife is kubeadm's own; the kubelet renews it long before.
const kubeletLife = 365 * 24 * time.Hour

// Kubelet makes what a node's kubelet shows to the API server at a URL, as kubeadm
// does on a first master: a kubeconfig, and the certificate and key in the file that
// it names (PEM). It takes the key of the cluster's CA.
func Kubelet(c *config.NodeConfig, node, server, file string) (kubeconfig string, pair config.Secret, err error) {
	cert, key, err := client(c.CACert, c.PKI.CAKey, pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}}, kubeletLife)
	if err != nil {
		return "", config.Secret{}, err
	}
	text := kubeconfigText(c.Cluster, server, c.CACert, "system:node:"+node, fmt.Sprintf("{client-certificate: %[1]q, client-key: %[1]q}", file))
	return text, config.NewSecret(cert + key.Reveal()), nil
}

// client makes a key and a certificate for a client, signed by an authority, which it
// does not outlive.
func client(caCert string, caKey config.Secret, subject pkix.Name, life time.Duration) (string, config.Secret, error) {
	ca, err := config.ParseCert(caCert)
	if err != nil {
		return "", config.Secret{}, err
	}
	signer, err := parseKey(caKey)
	if err != nil {
		return "", config.Secret{}, fmt.Errorf("the key of %s: %w", ca.Subject.CommonName, err)
	}
	key, secret, err := newKey()
	if err != nil {
		return "", config.Secret{}, err
	}
	cert, err := sign(&x509.Certificate{Subject: subject, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, min(life, ca.NotAfter.Sub(repro.Now())), ca, key.Public(), signer)
	return cert, secret, err
}
