package debian

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// TestRenewedKey: an expired copy of a key does not hide the renewed one of another ring, in whatever order.
func TestRenewedKey(t *testing.T) {
	at := func(year int) *packet.Config {
		return &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }}
	}
	made := at(2020)
	made.KeyLifetimeSecs = 30 * 86400
	key, err := openpgp.NewEntity("A", "", "a@example.org", made)
	if err != nil {
		t.Fatal(err)
	}
	ring := func() Keys {
		var text bytes.Buffer
		if err := key.Serialize(&text); err != nil {
			t.Fatal(err)
		}
		keys, err := ParseKeys(text.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		return keys
	}
	expired := ring()
	for _, id := range key.Identities {
		sig := *id.SelfCertifications[0].Packet
		sig.CreationTime, sig.KeyLifetimeSecs = at(2021).Now(), nil
		if err := sig.SignUserId(id.Name, key.PrimaryKey, key.PrivateKey, at(2021)); err != nil {
			t.Fatal(err)
		}
		id.SelfCertifications[0].Packet = &sig
	}
	renewed := ring()
	var message bytes.Buffer
	w, err := clearsign.Encode(&message, key.PrivateKey, at(2025))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		keys Keys
		good bool
	}{"expired": {expired, false}, "renewed": {renewed, true}, "expired, renewed": {expired.With(renewed), true}, "renewed, expired": {renewed.With(expired), true}} {
		if _, err := c.keys.open(message.Bytes(), at(2025).Now()); (err == nil) != c.good || err != nil && !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
