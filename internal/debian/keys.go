package debian

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// ErrSignature says that no known key vouches for what an archive says.
var ErrSignature = errors.New("the signature does not hold")

// Keys are OpenPGP public keys (RFC 9580) that may sign for an archive.
// Of two rings that have the same key the one in which it is good counts: a renewed key is
// in one of them alone.
type Keys struct{ rings []openpgp.EntityList }

// ParseKeys reads a keyring, binary or armoured.
func ParseKeys(text []byte) (Keys, error) {
	read := openpgp.ReadKeyRing
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("-----BEGIN PGP")) {
		read = openpgp.ReadArmoredKeyRing
	}
	ring, err := read(bytes.NewReader(text))
	if err == nil && len(ring) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return Keys{}, fmt.Errorf("no keyring of OpenPGP public keys: %w", err)
	}
	return Keys{[]openpgp.EntityList{ring}}, nil
}

// ReadKeys reads a keyring from a file.
func ReadKeys(file string) (Keys, error) {
	text, err := os.ReadFile(file) // #nosec G304 -- the caller's file
	if err != nil {
		return Keys{}, fmt.Errorf("reading a keyring: %w", err)
	}
	keys, err := ParseKeys(text)
	if err != nil {
		return Keys{}, fmt.Errorf("%s: %w", file, err)
	}
	return keys, nil
}

// With is the keys and others.
func (k Keys) With(others Keys) Keys {
	return Keys{slices.Concat(k.rings, others.rings)}
}

// open returns the text that a clear-signed message (RFC 9580, 7) has signed, and
// nothing of what stands around it. One good signature of a known key is enough;
// keys and signatures may not have expired at the time given.
func (k Keys) open(message []byte, at time.Time) ([]byte, error) {
	block, rest := clearsign.Decode(message)
	if block == nil {
		return nil, fmt.Errorf("%w: it is no clear-signed message", ErrSignature)
	}
	if len(bytes.TrimSpace(rest)) > 0 || !bytes.HasPrefix(bytes.TrimSpace(message), []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
		return nil, fmt.Errorf("%w: there is more than the signed message", ErrSignature)
	}
	sig, err := io.ReadAll(io.LimitReader(block.ArmoredSignature.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("%w: it is unreadable: %w", ErrSignature, err)
	}
	err = pgperrors.ErrUnknownIssuer
	for _, ring := range k.rings {
		_, _, found := openpgp.VerifyDetachedSignature(ring, bytes.NewReader(block.Bytes), bytes.NewReader(sig), &packet.Config{Time: func() time.Time { return at }})
		if found == nil {
			return block.Bytes, nil
		}
		if !errors.Is(found, pgperrors.ErrUnknownIssuer) {
			err = found
		}
	}
	switch {
	case errors.Is(err, pgperrors.ErrUnknownIssuer):
		return nil, fmt.Errorf("%w: it is by %s, none of which is in the keyring; name one that has it", ErrSignature, signers(sig))
	case errors.Is(err, pgperrors.ErrSignatureExpired):
		return nil, fmt.Errorf("%w: it has expired, or is still to come: this host's clock says %s; set it if it is wrong, else take another mirror", ErrSignature, stamp(at))
	case errors.Is(err, pgperrors.ErrKeyExpired):
		return nil, fmt.Errorf("%w: %w; this host's clock says %s: set it if it is wrong, else name a newer keyring", ErrSignature, err, stamp(at))
	}
	return nil, fmt.Errorf("%w: %w; take another mirror", ErrSignature, err)
}

// signers names the keys that a signature says it is by.
func signers(sig []byte) string {
	var names []string
	packets := packet.NewReader(bytes.NewReader(sig))
	for {
		p, err := packets.Next()
		if err != nil {
			break
		}
		if s, ok := p.(*packet.Signature); ok && s.IssuerKeyId != nil {
			names = append(names, fmt.Sprintf("%016X", *s.IssuerKeyId))
		}
	}
	if len(names) == 0 {
		return "keys that it does not name"
	}
	return "key " + strings.Join(names, ", ")
}
