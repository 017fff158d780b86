package debian

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

func at(year int) *packet.Config {
	return &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }}
}

// ringOf is a ring of keys as they are now.
func ringOf(t *testing.T, all ...*openpgp.Entity) Keys {
	t.Helper()
	var text bytes.Buffer
	for _, key := range all {
		if err := key.Serialize(&text); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := ParseKeys(text.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func signed(t *testing.T, by *packet.PrivateKey, when *packet.Config) []byte {
	t.Helper()
	var message bytes.Buffer
	w, err := clearsign.Encode(&message, by, when)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return message.Bytes()
}

// TestRevokedKey: what one ring revokes no other ring vouches for, whatever time a signature claims to be of.
func TestRevokedKey(t *testing.T) {
	entity := func() *openpgp.Entity {
		key, err := openpgp.NewEntity("A", "", "a@example.org", at(2020))
		if err == nil {
			err = key.AddSigningSubkey(at(2020))
		}
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	good, key := entity(), entity()
	before := ringOf(t, good, key)
	signing := key.Subkeys[len(key.Subkeys)-1]
	byKey, bySubkey, byGood := signed(t, key.PrivateKey, at(2021)), signed(t, signing.PrivateKey, at(2021)), signed(t, good.PrivateKey, at(2021))
	if err := key.Subkeys[len(key.Subkeys)-1].Revoke(packet.KeyRetired, "", at(2023)); err != nil {
		t.Fatal(err)
	}
	noSubkey := ringOf(t, key)
	if err := key.Revoke(packet.KeySuperseded, "", at(2023)); err != nil {
		t.Fatal(err)
	}
	retired := ringOf(t, key)
	if err := key.Revoke(packet.KeyCompromised, "", at(2023)); err != nil {
		t.Fatal(err)
	}
	stolen := ringOf(t, key)
	for name, c := range map[string]struct {
		keys    Keys
		message []byte
		year    int
		good    bool
	}{
		"not revoked":             {before, byKey, 2024, true},
		"not revoked, subkey":     {before, bySubkey, 2024, true},
		"by another key":          {before.With(stolen), byGood, 2024, true},
		"retired, after":          {before.With(retired), byKey, 2024, false},
		"retired, first":          {retired.With(before), byKey, 2024, false},
		"retired, in a snapshot":  {before.With(retired), byKey, 2022, true},
		"retired with its subkey": {before.With(retired), bySubkey, 2024, false},
		"stolen, in a snapshot":   {before.With(stolen), byKey, 2022, false},
		"its subkey is retired":   {before.With(noSubkey), byKey, 2024, true},
		"a retired subkey":        {before.With(noSubkey), bySubkey, 2024, false},
		"alone":                   {retired, byKey, 2024, false},
	} {
		if _, err := c.keys.open(c.message, at(c.year).Now()); (err == nil) != c.good || err != nil && (!errors.Is(err, ErrSignature) || !strings.Contains(err.Error(), "which is revoked")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRenewedKey: an expired copy of a key does not hide the renewed one of another ring, in whatever order.
func TestRenewedKey(t *testing.T) {
	made := at(2020)
	made.KeyLifetimeSecs = 30 * 86400
	key, err := openpgp.NewEntity("A", "", "a@example.org", made)
	if err != nil {
		t.Fatal(err)
	}
	expired := ringOf(t, key)
	for _, id := range key.Identities {
		sig := *id.SelfCertifications[0].Packet
		sig.CreationTime, sig.KeyLifetimeSecs = at(2021).Now(), nil
		if err := sig.SignUserId(id.Name, key.PrimaryKey, key.PrivateKey, at(2021)); err != nil {
			t.Fatal(err)
		}
		id.SelfCertifications[0].Packet = &sig
	}
	renewed := ringOf(t, key)
	message := signed(t, key.PrivateKey, at(2025))
	for name, c := range map[string]struct {
		keys Keys
		good bool
	}{"expired": {expired, false}, "renewed": {renewed, true}, "expired, renewed": {expired.With(renewed), true}, "renewed, expired": {renewed.With(expired), true}} {
		if _, err := c.keys.open(message, at(2025).Now()); (err == nil) != c.good || err != nil && !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestManyAtATime: sources are read side by side with the same keys; go test -race looks on.
func TestManyAtATime(t *testing.T) {
	key, err := openpgp.NewEntity("A", "", "a@example.org", at(2020))
	if err != nil {
		t.Fatal(err)
	}
	keys, message := ringOf(t, key), signed(t, key.PrivateKey, at(2021))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := keys.open(message, at(2022).Now()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
