package verify_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/builder/verify"
)

// signedFolder holds an image with all that lies beside it, signed.
func signedFolder(t *testing.T) (dir, pub string) {
	t.Helper()
	dir = t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(text string) []byte {
		sum := sha256.Sum256([]byte(text))
		s, err := key.Sign(rand.Reader, sum[:], nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	put := func(name, text string) map[string]any {
		for file, data := range map[string][]byte{name: []byte(text), name + ".sig": sign(text)} {
			if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return map[string]any{"file": name, "size": len(text), "sha256": fmt.Sprintf("%x", sha256.Sum256([]byte(text)))}
	}
	image, bill := put("node.raw", "the image"), put("node.cdx.json", "{}")
	subject := func(m map[string]any) map[string]any {
		return map[string]any{"name": m["file"], "digest": map[string]any{"sha256": m["sha256"]}}
	}
	text, _ := json.Marshal(map[string]any{"subject": []any{subject(image), subject(bill)}})
	statement := put("node.intoto.json", string(text))
	statement["format"] = "provenance"
	const kind = "application/vnd.in-toto+json"
	line, _ := json.Marshal(map[string]any{"payloadType": kind, "payload": base64.StdEncoding.EncodeToString(text), "signatures": []any{map[string]string{
		"sig": base64.StdEncoding.EncodeToString(sign(fmt.Sprintf("DSSEv1 %d %s %d %s", len(kind), kind, len(text), text)))}}})
	envelope := put("node.intoto.jsonl", string(line))
	envelope["format"] = "dsse"
	text, _ = json.Marshal(map[string]any{"rootHash": "aa", "outputs": []any{image}, "documents": []any{bill, statement, envelope}})
	put("node.manifest.json", string(text))
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	pub = filepath.Join(t.TempDir(), "key.pub")
	if err := os.WriteFile(pub, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, pub
}

func lookBeside(t *testing.T, dir, pub string) []verify.Finding {
	t.Helper()
	r := &verify.Report{RootHash: "aa"}
	if pub == "" {
		if err := r.Beside(filepath.Join(dir, "node.raw"), nil); err != nil {
			t.Fatal(err)
		}
		return r.Findings
	}
	key, err := verify.PublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Beside(filepath.Join(dir, "node.raw"), key); err != nil {
		t.Fatal(err)
	}
	return r.Findings
}

// TestEveryBitBeside flips every bit of every file in turn.
func TestEveryBitBeside(t *testing.T) {
	dir, pub := signedFolder(t)
	if f := lookBeside(t, dir, pub); len(f) > 0 {
		t.Fatal(f)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	flipped := 0
	for _, file := range files {
		name := filepath.Join(dir, file.Name())
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range text {
			text[i] ^= 1 << (i % 8)
			if err := os.WriteFile(name, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if len(lookBeside(t, dir, pub)) == 0 {
				t.Errorf("%s: byte %d was changed, and nobody noticed", file.Name(), i)
			}
			text[i] ^= 1 << (i % 8)
			flipped++
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d changed bytes found", flipped)
}

func TestBesideWhatIsMissing(t *testing.T) {
	for name, c := range map[string]struct{ gone, with, without string }{
		"the manifest":    {"node.manifest.json", "nothing vouches for it", ""},
		"its signature":   {"node.manifest.json.sig", "node.manifest.json: is not signed", ""},
		"a document":      {"node.cdx.json", "is listed, and is not there", "is listed, and is not there"},
		"image signature": {"node.raw.sig", "node.raw: is not signed", ""},
		"the envelope":    {"node.intoto.jsonl", "no signed envelope", "is listed, and is not there"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, pub := signedFolder(t)
			if err := os.Remove(filepath.Join(dir, c.gone)); err != nil {
				t.Fatal(err)
			}
			if f := fmt.Sprint(lookBeside(t, dir, pub)); !strings.Contains(f, c.with) {
				t.Errorf("with the key: %s", f)
			}
			if f := fmt.Sprint(lookBeside(t, dir, "")); (c.without == "") != (f == "[]") || !strings.Contains(f, c.without) {
				t.Errorf("without: %s", f)
			}
		})
	}
}
