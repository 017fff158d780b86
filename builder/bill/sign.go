package bill

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Key signs with ECDSA or RSA.
type Key struct{ signer crypto.Signer }

// LoadKey takes a private key from a PEM file, or, named PLUGIN://REFERENCE, one
// that never leaves its key service or token.
func LoadKey(ctx context.Context, ref string) (*Key, error) {
	if strings.Contains(ref, "://") {
		return loadHeld(ctx, ref)
	}
	return loadFile(ref)
}

// loadFile reads PKCS #8, SEC 1 or PKCS #1. Others may not be able to read the
// file. No error holds any of its bytes.
func loadFile(file string) (*Key, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&(fs.ModePerm>>3) != 0 {
		return nil, fmt.Errorf("%s: mode %04o lets others read the private key: chmod 600 it", file, info.Mode().Perm())
	}
	text, err := os.ReadFile(file) // #nosec G304 -- the file that the user names
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: no PEM file", file)
	}
	if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" || block.Type == "ENCRYPTED SIGSTORE PRIVATE KEY" {
		return nil, fmt.Errorf("%s: the private key is encrypted: decrypt it first, such as by `openssl pkey`", file)
	}
	key, err := parse(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: no private key of a kind that is known: want ECDSA or RSA, such as `openssl ecparam -genkey -name prime256v1` makes", file)
	}
	return &Key{key}, nil
}

func parse(der []byte) (crypto.Signer, error) {
	if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		switch k := k.(type) {
		case *ecdsa.PrivateKey:
			return k, nil
		case *rsa.PrivateKey:
			return k, nil
		}
	}
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, nil
	}
	return nil, errors.New("unknown")
}

// Name is the SHA-256 of the public key (SubjectPublicKeyInfo), in hex.
func (k *Key) Name() string {
	der, err := x509.MarshalPKIXPublicKey(k.signer.Public())
	if err != nil {
		return "" // not reached: ECDSA and RSA keys have a form
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// Sign signs a file by its SHA-256 digest, in hex, as `openssl dgst -sha256 -sign`
// does: ECDSA in ASN.1 DER, or RSA PKCS #1 v1.5. With a key from a file, the same
// digest gives the same signature (RFC 6979).
func (k *Key) Sign(digest string) ([]byte, error) {
	sum, err := hex.DecodeString(digest)
	if err != nil {
		return nil, err
	}
	return k.signer.Sign(nil, sum, crypto.SHA256)
}

// payloadType is in-toto's, for an envelope.
const payloadType = "application/vnd.in-toto+json"

// Envelope is the statement in a signed DSSE envelope (DSSE v1.0.2), on one line.
func (k *Key) Envelope(statement []byte) ([]byte, error) {
	sum := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(statement), statement))
	signature, err := k.Sign(hex.EncodeToString(sum[:]))
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(map[string]any{
		"payloadType": payloadType, "payload": base64.StdEncoding.EncodeToString(statement),
		"signatures": []map[string]string{{"keyid": k.Name(), "sig": base64.StdEncoding.EncodeToString(signature)}},
	})
	return append(text, '\n'), err
}
