package source

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/builder/lock"
)

// DefaultReleaseSigner is who signs upstream's releases, as its documentation
// says: the identity in the certificate of each signature.
const DefaultReleaseSigner = "krel-staging@k8s-releng-prod.iam.gserviceaccount.com"

// defaultIssuer is who must have vouched for that identity.
const defaultIssuer = "https://accounts.google.com"

// fulcioIssuer is Sigstore's certificate extension for it (Fulcio's oid-info, 1.1: the raw text).
var fulcioIssuer = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}

// ErrSignature says that a signature does not vouch for the bytes.
var ErrSignature = errors.New("the signature does not hold")

// verifySignature checks a cosign blob signature that a pin carries: ECDSA over
// the SHA-256 that the pin names, by a leaf certificate that chains to the roots
// in a PEM file and names the signer. Sigstore's certificates live for minutes;
// without a transparency log's time stamp the chain is held to the time of issue.
func verifySignature(pin lock.Pin, rootsFile, signer string) error {
	if signer == "" {
		signer = DefaultReleaseSigner
	}
	digest, err := hex.DecodeString(strings.TrimPrefix(pin.Digest, "sha256:"))
	if err != nil {
		return fmt.Errorf("%w: the pin's digest is unreadable", ErrSignature)
	}
	sig, err := base64.StdEncoding.DecodeString(pin.Args["sig"])
	if err != nil || len(sig) == 0 {
		return fmt.Errorf("%w: there is none, or it is no base64: make the lock anew", ErrSignature)
	}
	certs, err := base64.StdEncoding.DecodeString(pin.Args["cert"])
	if err != nil {
		return fmt.Errorf("%w: its certificate is no base64", ErrSignature)
	}
	leaf, err := verifyChain(certs, rootsFile)
	if err != nil {
		return err
	}
	if names := identities(leaf); !slices.Contains(names, signer) {
		return fmt.Errorf("%w: it is by %q, want %q", ErrSignature, strings.Join(names, ", "), signer)
	}
	if issuer := oidcIssuer(leaf); signer == DefaultReleaseSigner && issuer != defaultIssuer {
		return fmt.Errorf("%w: its identity was vouched for by %q, want %q", ErrSignature, issuer, defaultIssuer)
	}
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return fmt.Errorf("%w: its certificate has no ECDSA key", ErrSignature)
	}
	if !ecdsa.VerifyASN1(key, digest, sig) {
		return fmt.Errorf("%w: it is not over %s", ErrSignature, pin.Digest)
	}
	return nil
}

// verifyChain returns the first certificate of a PEM chain, which must lead to a root.
func verifyChain(chain []byte, rootsFile string) (*x509.Certificate, error) {
	text, err := os.ReadFile(rootsFile) // #nosec G304 -- the user's file
	if err != nil {
		return nil, fmt.Errorf("reading the root certificates: %w", err)
	}
	roots, err := parseCerts(text)
	if err != nil {
		return nil, fmt.Errorf("%s holds no PEM certificates", rootsFile)
	}
	certs, err := parseCerts(chain)
	if err != nil {
		return nil, fmt.Errorf("%w: its certificate is unreadable", ErrSignature)
	}
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(),
		CurrentTime: certs[0].NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}
	for _, c := range roots { // a roots file may hold the intermediates beside the roots
		if slices.Equal(c.RawIssuer, c.RawSubject) {
			opts.Roots.AddCert(c)
		} else {
			opts.Intermediates.AddCert(c)
		}
	}
	for _, c := range certs[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := certs[0].Verify(opts); err != nil {
		return nil, fmt.Errorf("%w: its certificate does not lead to a root in %s: %w", ErrSignature, rootsFile, err)
	}
	return certs[0], nil
}

// parseCerts reads PEM certificates, of which there must be one.
func parseCerts(text []byte) (out []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			if len(out) == 0 {
				return nil, errors.New("no PEM certificate")
			}
			return out, nil
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, cert)
	}
}

// identities are the e-mail addresses and URIs that a certificate vouches for.
func identities(c *x509.Certificate) []string {
	names := slices.Clone(c.EmailAddresses)
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	return names
}

func oidcIssuer(c *x509.Certificate) string {
	for _, e := range c.Extensions {
		if e.Id.Equal(fulcioIssuer) {
			return string(e.Value)
		}
	}
	return ""
}
