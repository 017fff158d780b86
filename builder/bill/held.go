package bill

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"fmt"
	"io"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin"
	"github.com/sigstore/sigstore/pkg/signature/options"

	"github.com/imgbuild/imgbuild/internal/run"
)

// held is a private key that somebody else holds: a key management service or a
// PKCS #11 token, reached by a program of sigstore's KMS plugin protocol v1. It
// gets digests, and gives signatures.
type held struct {
	ctx    context.Context // of the build: its end ends a plugin that hangs
	ref    string
	plugin signature.SignerVerifier
	public crypto.PublicKey
}

var _ crypto.Signer = held{}

// loadHeld runs the program sigstore-kms-PLUGIN from PATH for PLUGIN://REFERENCE.
func loadHeld(ctx context.Context, ref string) (*Key, error) {
	name, _, _ := strings.Cut(ref, "://")
	if _, err := run.Look(cliplugin.PluginBinaryPrefix + name); err != nil {
		return nil, fmt.Errorf("%s: no program %s%s in PATH: install that plugin of sigstore's, or name a PEM file", ref, cliplugin.PluginBinaryPrefix, name)
	}
	plugin, err := cliplugin.LoadSignerVerifier(ctx, ref, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	public, err := plugin.PublicKey(options.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	switch public.(type) {
	case *ecdsa.PublicKey, *rsa.PublicKey:
		return &Key{held{ctx, ref, plugin, public}}, nil
	}
	return nil, fmt.Errorf("%s: want a key of ECDSA or RSA, this is %T", ref, public)
}

// Public implements crypto.Signer.
func (h held) Public() crypto.PublicKey { return h.public }

// Sign implements crypto.Signer. What does not fit the public key is an error:
// the key may have been rotated meanwhile.
func (h held) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	sig, err := h.plugin.SignMessage(strings.NewReader(""), options.WithContext(h.ctx), options.WithDigest(digest), options.WithCryptoSignerOpts(opts))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.ref, err)
	}
	fits := false
	switch key := h.public.(type) {
	case *ecdsa.PublicKey:
		fits = ecdsa.VerifyASN1(key, digest, sig)
	case *rsa.PublicKey:
		fits = rsa.VerifyPKCS1v15(key, opts.HashFunc(), digest, sig) == nil
	}
	if !fits {
		return nil, fmt.Errorf("%s: the signature does not fit the public key that the plugin gave", h.ref)
	}
	return sig, nil
}
