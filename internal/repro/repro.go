// Package repro is the one source of time and randomness for everything that
// ends up in an image, so that the same input gives the same bytes. It follows
// the SOURCE_DATE_EPOCH convention and RFC 4122 (version 5 UUIDs).
package repro

import (
	"crypto/rand"
	"time"

	"github.com/google/uuid"
)

// DefaultEpoch is the time stamp, in seconds since 1970, that every file in an
// image carries unless the spec says otherwise.
const DefaultEpoch int64 = 1767225600 // 2026-01-01T00:00:00Z

var space = uuid.MustParse("8f3c1f0e-94a7-4d0a-a8e8-2b7d5f1c3a60")

// UUID derives a stable UUID from the words that name a thing.
func UUID(words ...string) uuid.UUID {
	id := space
	for _, w := range words {
		id = uuid.NewSHA1(id, []byte(w))
	}
	return id
}

// Epoch is DefaultEpoch as a time in UTC.
func Epoch() time.Time { return time.Unix(DefaultEpoch, 0).UTC() }

// Now is the wall clock, for durations, certificates and progress, never for image content.
func Now() time.Time { return time.Now() }

// Secret returns n bytes from the system's cryptographic source, for identities
// and tokens, never for image content.
func Secret(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // crypto/rand.Read never fails since Go 1.24
	return b
}
