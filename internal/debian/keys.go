package debian

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// ErrSignature says that no known key vouches for what an archive says.
var ErrSignature = errors.New("the signature does not hold")

// Keys are OpenPGP public keys (RFC 9580) that may sign for an archive.
// Of two rings that have the same key the one in which it is good counts: a renewed key is
// in one of them alone. What one of them says is revoked is revoked in all.
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

// verifying guards all keys: the library keeps in them what it has checked.
var verifying sync.Mutex

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
	return k.verify(block.Bytes, block.ArmoredSignature.Body, at)
}

// detached is open for a text whose signature lies beside it, binary or armoured.
func (k Keys) detached(text, sig []byte, at time.Time) ([]byte, error) {
	if !bytes.HasPrefix(bytes.TrimSpace(sig), []byte("-----BEGIN PGP")) {
		return k.verify(text, bytes.NewReader(sig), at)
	}
	block, err := armor.Decode(bytes.NewReader(sig))
	if err != nil || block.Type != openpgp.SignatureType {
		return nil, fmt.Errorf("%w: it is unreadable", ErrSignature)
	}
	return k.verify(text, block.Body, at)
}

// verify returns the text if one of its signatures is good.
func (k Keys) verify(text []byte, from io.Reader, at time.Time) ([]byte, error) {
	sig, err := io.ReadAll(io.LimitReader(from, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("%w: it is unreadable: %w", ErrSignature, err)
	}
	verifying.Lock()
	defer verifying.Unlock()
	rings, revoked := k.sound(at)
	err = pgperrors.ErrUnknownIssuer
	for _, ring := range rings {
		_, _, found := openpgp.VerifyDetachedSignature(ring, bytes.NewReader(text), bytes.NewReader(sig), &packet.Config{Time: func() time.Time { return at }})
		if found == nil {
			return text, nil
		}
		if !errors.Is(found, pgperrors.ErrUnknownIssuer) {
			err = found
		}
	}
	by := signers(sig)
	switch {
	case errors.Is(err, pgperrors.ErrUnknownIssuer) && slices.ContainsFunc(by, func(id uint64) bool { return revoked[id] }):
		return nil, fmt.Errorf("%w: it is by %s, which is revoked; take a mirror that is signed by another", ErrSignature, named(by))
	case errors.Is(err, pgperrors.ErrUnknownIssuer):
		return nil, fmt.Errorf("%w: it is by %s, none of which is in the keyring; name one that has it", ErrSignature, named(by))
	case errors.Is(err, pgperrors.ErrSignatureExpired):
		return nil, fmt.Errorf("%w: it has expired, or is still to come: this host's clock says %s; set it if it is wrong, else take another mirror", ErrSignature, stamp(at))
	case errors.Is(err, pgperrors.ErrKeyExpired):
		return nil, fmt.Errorf("%w: %w; this host's clock says %s: set it if it is wrong, else name a newer keyring", ErrSignature, err, stamp(at))
	}
	return nil, fmt.Errorf("%w: %w; take another mirror", ErrSignature, err)
}

// sound are the rings without the keys that are revoked at that time, whichever ring says so, and the
// ids of those. The library asks each ring alone, and for the time that a signature claims to be of.
func (k Keys) sound(at time.Time) (rings []openpgp.EntityList, ids map[uint64]bool) {
	revoked := map[string]bool{} // fingerprints
	ids = map[uint64]bool{}
	note := func(key *packet.PublicKey) { revoked[string(key.Fingerprint)], ids[key.KeyId] = true, true }
	for _, ring := range k.rings {
		for _, e := range ring {
			all := e.Revoked(at)
			if all {
				note(e.PrimaryKey)
			}
			for _, sub := range e.Subkeys {
				if all || sub.Revoked(nil, at) {
					note(sub.PublicKey)
				}
			}
		}
	}
	for _, ring := range k.rings {
		var left openpgp.EntityList
		for _, e := range ring {
			if !revoked[string(e.PrimaryKey.Fingerprint)] {
				e := *e
				e.Subkeys = slices.DeleteFunc(slices.Clone(e.Subkeys), func(sub openpgp.Subkey) bool { return revoked[string(sub.PublicKey.Fingerprint)] })
				left = append(left, &e)
			}
		}
		rings = append(rings, left)
	}
	return rings, ids
}

// signers are the ids of the keys that a signature says it is by.
func signers(sig []byte) (by []uint64) {
	for packets := packet.NewReader(bytes.NewReader(sig)); ; {
		p, err := packets.Next()
		if err != nil {
			return by
		}
		if s, ok := p.(*packet.Signature); ok && s.IssuerKeyId != nil {
			by = append(by, *s.IssuerKeyId)
		}
	}
}

func named(by []uint64) string {
	var names []string
	for _, id := range by {
		names = append(names, fmt.Sprintf("%016X", id))
	}
	if names == nil {
		return "keys that it does not name"
	}
	return "key " + strings.Join(names, ", ")
}
