package verify

import (
	"bytes"
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
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// written is one line of a manifest's lists.
type written struct {
	Format string `json:"format"`
	File   string `json:"file"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// PublicKey reads a public key from a PEM file (SubjectPublicKeyInfo): ECDSA or RSA.
func PublicKey(file string) (crypto.PublicKey, error) {
	text, err := os.ReadFile(file) // #nosec G304 -- the file that the user names
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("%s: no public key in PEM, such as `openssl pkey -pubout` writes", file)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	switch key.(type) {
	case *ecdsa.PublicKey, *rsa.PublicKey:
		return key, nil
	}
	return nil, fmt.Errorf("%s: want a key of ECDSA or RSA", file)
}

// Beside holds the image at file against what lies beside it: the manifest, the
// documents that it lists, and, where a key is given, the signatures of all of
// them, which then must be there. Without a key, a missing manifest is no finding.
func (r *Report) Beside(file string, key crypto.PublicKey) error {
	b := &beside{r: r, dir: filepath.Dir(file), key: key}
	image := filepath.Base(file)
	name, text, err := ManifestOf(b.dir, image)
	if errors.Is(err, fs.ErrNotExist) {
		if key != nil {
			r.say("manifest", name, "not beside the image: nothing vouches for it")
		}
		return nil
	}
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	b.signed(name, sum[:])
	var m struct {
		RootHash  string    `json:"rootHash"`
		Outputs   []written `json:"outputs"`
		Documents []written `json:"documents"`
	}
	if err := json.Unmarshal(text, &m); err != nil {
		r.say("manifest", name, "cannot be read: %v", err)
		return nil
	}
	if r.UKI != "" && m.RootHash != r.RootHash { // the manifest's is the disk's
		r.say("manifest", name, "has the root hash %s, the image %s", m.RootHash, r.RootHash)
	}
	found := false
	for _, w := range m.Outputs {
		if w.File == image {
			found = true
			if err := b.check(w); err != nil {
				return err
			}
		}
	}
	if !found {
		r.say("manifest", name, "does not list %s", image)
	}
	for _, w := range m.Documents {
		if err := b.check(w); err != nil {
			return err
		}
	}
	return b.checkStatement(append(m.Outputs, m.Documents...))
}

const manifestEnding = ".manifest.json"

// ManifestOf finds the manifest of an output in its folder: the one that is called as
// the output, or another one that lists it, for payloads are called after Kubernetes.
// Without any, the name is of the first, and the error is fs.ErrNotExist.
func ManifestOf(dir, image string) (name string, text []byte, err error) {
	own := strings.TrimSuffix(image, filepath.Ext(image)) + manifestEnding
	all, err := filepath.Glob(filepath.Join(dir, "*"+manifestEnding))
	if err != nil {
		return own, nil, err
	}
	text, err = os.ReadFile(filepath.Join(dir, own)) // #nosec G304 -- beside the image that the caller names
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return own, text, err
	}
	for _, file := range all {
		other, readErr := os.ReadFile(file) // #nosec G304 -- as above
		var m struct{ Outputs []written }
		if readErr != nil || json.Unmarshal(other, &m) != nil {
			continue
		}
		if slices.ContainsFunc(m.Outputs, func(w written) bool { return w.File == image }) {
			return filepath.Base(file), other, nil
		}
	}
	return own, nil, err
}

// beside is one such look.
type beside struct {
	r         *Report
	dir       string
	key       crypto.PublicKey
	statement []byte
	envelope  []byte
}

// check holds one file against its line of the manifest.
func (b *beside) check(w written) error {
	if w.File != filepath.Base(w.File) {
		b.r.say("manifest", w.File, "is not a file's plain name")
		return nil
	}
	f, err := os.Open(filepath.Join(b.dir, w.File))
	if errors.Is(err, fs.ErrNotExist) {
		b.r.say("manifest", w.File, "is listed, and is not there")
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	var kept bytes.Buffer
	h := sha256.New()
	to := io.Writer(h)
	if w.Format == "provenance" || w.Format == "dsse" {
		to = io.MultiWriter(h, &kept)
	}
	n, err := io.Copy(to, f)
	if err != nil {
		return err
	}
	switch w.Format {
	case "provenance":
		b.statement = kept.Bytes()
	case "dsse":
		b.envelope = kept.Bytes()
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != w.SHA256 || n != w.Size {
		b.r.say("manifest", w.File, "has %d bytes and sha256 %s, the manifest says %d and %s", n, got, w.Size, w.SHA256)
	}
	b.signed(w.File, h.Sum(nil))
	return nil
}

// signed wants a good signature of the file with that digest, if there is a key.
func (b *beside) signed(name string, digest []byte) {
	if b.key == nil {
		return
	}
	signature, err := os.ReadFile(filepath.Join(b.dir, name+".sig"))
	if err != nil {
		b.r.say("signature", name, "is not signed: %v", errors.Unwrap(err))
		return
	}
	if !good(b.key, digest, signature) {
		b.r.say("signature", name, "is not what the key signed")
	}
}

func good(key crypto.PublicKey, digest, signature []byte) bool {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, digest, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, digest, signature) == nil
	}
	return false
}

// checkStatement wants the in-toto statement to speak of the listed files, and
// the envelope to hold the statement.
func (b *beside) checkStatement(listed []written) error {
	if b.statement == nil {
		if b.key != nil {
			b.r.say("provenance", "", "the manifest lists no statement")
		}
		return nil
	}
	var s struct {
		Subject []struct {
			Name   string            `json:"name"`
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	if err := json.Unmarshal(b.statement, &s); err != nil {
		b.r.say("provenance", "", "the statement cannot be read: %v", err)
		return nil
	}
	said := map[string]string{}
	for _, subject := range s.Subject {
		said[subject.Name] = subject.Digest["sha256"]
	}
	for _, w := range listed {
		if w.Format != "provenance" && w.Format != "dsse" && said[w.File] != w.SHA256 {
			b.r.say("provenance", w.File, "the statement gives it sha256 %q, the manifest %s", said[w.File], w.SHA256)
		}
	}
	b.checkEnvelope()
	return nil
}

// checkEnvelope reads the DSSE envelope (DSSE v1.0.2).
func (b *beside) checkEnvelope() {
	if b.key == nil {
		return
	}
	var e struct {
		PayloadType string `json:"payloadType"`
		Payload     string `json:"payload"`
		Signatures  []struct {
			Sig string `json:"sig"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(b.envelope, &e); err != nil || len(e.Signatures) == 0 {
		b.r.say("provenance", "", "there is no signed envelope of the statement")
		return
	}
	payload, err := base64.StdEncoding.DecodeString(e.Payload)
	signature, err2 := base64.StdEncoding.DecodeString(e.Signatures[0].Sig)
	sum := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(e.PayloadType), e.PayloadType, len(payload), payload))
	if err != nil || err2 != nil || !bytes.Equal(payload, b.statement) || !good(b.key, sum[:], signature) {
		b.r.say("signature", "", "the envelope does not hold the statement, signed by the key")
	}
}
