package bill

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/handler"

	"github.com/imgbuild/imgbuild/internal/run"
)

// plugin is what this test program is called when it is a plugin: one that signs
// with the keys of a PKCS #11 token.
const plugin = "sigstore-kms-pkcs11tool"

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != plugin {
		os.Exit(m.Run())
	}
	args, err := handler.GetPluginArgs(os.Args)
	if err == nil {
		_, err = handler.Dispatch(os.Stdout, os.Stdin, args, &token{key: args.InitOptions.KeyResourceID})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// token signs with one key of a SoftHSM token. A key named "a+b" shows a's public
// key and signs with b, as a service does whose key was rotated.
type token struct{ key string }

func (k *token) tool(out string, args ...string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "imgbuild-token-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "out")
	if out != "" {
		in := filepath.Join(dir, "in")
		if err := os.WriteFile(in, []byte(out), 0o600); err != nil {
			return nil, err
		}
		args = append(args, "--input-file", in)
	}
	args = append([]string{"--module", softhsm, "--token-label", "imgbuild", "--login", "--pin", "1234", "--output-file", file}, args...)
	if err := run.Run(context.Background(), run.Cmd{Name: "pkcs11-tool", Args: args, Env: []string{"SOFTHSM2_CONF=" + os.Getenv("SOFTHSM2_CONF")}}); err != nil {
		return nil, err
	}
	return os.ReadFile(file)
}

func (k *token) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	id, _, _ := strings.Cut(k.key, "+")
	der, err := k.tool("", "--read-object", "--type", "pubkey", "--id", id)
	if err != nil {
		return nil, err
	}
	return x509.ParsePKIXPublicKey(der)
}

func (k *token) SignMessage(_ io.Reader, opts ...signature.SignOption) ([]byte, error) {
	var digest []byte
	for _, o := range opts {
		o.ApplyDigest(&digest)
	}
	id := k.key[strings.LastIndex(k.key, "+")+1:]
	raw, err := k.tool(string(digest), "--sign", "--mechanism", "ECDSA", "--id", id)
	if err != nil || len(raw) != 64 {
		return nil, errors.Join(err, fmt.Errorf("a signature of %d bytes", len(raw)))
	}
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:])}) // as ECDSA's DER is
}

var errNotAsked = errors.New("imgbuild does not ask for that")

func (k *token) VerifySignature(_, _ io.Reader, _ ...signature.VerifyOption) error {
	return errNotAsked
}
func (k *token) CreateKey(context.Context, string) (crypto.PublicKey, error) { return nil, errNotAsked }
func (k *token) CryptoSigner(context.Context, func(error)) (crypto.Signer, crypto.SignerOpts, error) {
	return nil, nil, errNotAsked
}
func (k *token) SupportedAlgorithms() []string { return nil }
func (k *token) DefaultAlgorithm() string      { return "" }

const softhsm = "/usr/lib/softhsm/libsofthsm2.so"

// TestKeyInAToken signs with a key that was made in a PKCS #11 token and cannot leave it.
func TestKeyInAToken(t *testing.T) {
	for _, name := range []string{"softhsm2-util", "pkcs11-tool"} {
		if _, err := run.Look(name); err != nil {
			t.Skipf("%s is not installed (packages softhsm2, opensc)", name)
		}
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err == nil {
		err = errors.Join(os.Symlink(self, filepath.Join(dir, plugin)), os.Mkdir(filepath.Join(dir, "tokens"), 0o700),
			os.WriteFile(filepath.Join(dir, "softhsm2.conf"), []byte("directories.tokendir = "+dir+"/tokens\n"), 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("SOFTHSM2_CONF", filepath.Join(dir, "softhsm2.conf"))
	made := []run.Cmd{{Name: "softhsm2-util", Args: []string{"--init-token", "--free", "--label", "imgbuild", "--pin", "1234", "--so-pin", "1234"}}}
	for _, id := range []string{"01", "02"} {
		made = append(made, run.Cmd{Name: "pkcs11-tool", Args: []string{"--module", softhsm, "--token-label", "imgbuild", "--login", "--pin", "1234",
			"--keypairgen", "--key-type", "EC:prime256v1", "--id", id}})
	}
	for _, c := range made {
		c.Env = []string{"SOFTHSM2_CONF=" + os.Getenv("SOFTHSM2_CONF")}
		if err := run.Run(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}

	k, err := LoadKey(t.Context(), "pkcs11tool://01")
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("an image"))
	sig, err := k.Sign(fmt.Sprintf("%x", digest))
	if err != nil || !ecdsa.VerifyASN1(k.signer.Public().(*ecdsa.PublicKey), digest[:], sig) {
		t.Errorf("the signature is not good, %v", err)
	}
	if again, err := LoadKey(t.Context(), "pkcs11tool://02"); err != nil || again.Name() == k.Name() {
		t.Errorf("two keys with one name %s, %v", k.Name(), err)
	}
	for ref, want := range map[string]string{
		"absent://01":     "sigstore-kms-absent in PATH",
		"pkcs11tool://99": "object not found",
	} {
		if _, err := LoadKey(t.Context(), ref); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), ref) {
			t.Errorf("%s: error %v, want one with %q", ref, err, want)
		}
	}
	k, err = LoadKey(t.Context(), "pkcs11tool://01+02")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Sign(fmt.Sprintf("%x", digest)); err == nil || !strings.Contains(err.Error(), "does not fit the public key") {
		t.Errorf("error %v", err)
	}
}
