package identity

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

// clientLife is how long a client's certificate works that lives in memory alone.
const clientLife = time.Hour

// ClientTLS is how a client that holds an authority's key talks to what the same
// authority has signed: by a certificate of its own, made now, with the name and
// the group. Nothing of it is written.
func ClientTLS(caCert string, caKey config.Secret, name, group string) (*tls.Config, error) {
	ca, err := config.ParseCert(caCert)
	if err != nil {
		return nil, err
	}
	signer, err := parseKey(caKey)
	if err != nil {
		return nil, fmt.Errorf("the key of %s: %w", ca.Subject.CommonName, err)
	}
	key, secret, err := newKey()
	if err != nil {
		return nil, err
	}
	subject := pkix.Name{CommonName: name}
	if group != "" {
		subject.Organization = []string{group}
	}
	cert, err := sign(&x509.Certificate{Subject: subject, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, clientLife, ca, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair([]byte(cert), []byte(secret.Reveal()))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}
