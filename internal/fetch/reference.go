package fetch

import (
	"errors"
	"strings"
)

// NoUser refuses a reference to an image that may hold a password, and does not tell it.
func NoUser(reference string) error {
	if _, digest, ok := strings.Cut(reference, "@"); ok && !strings.HasPrefix(digest, "sha256:") {
		return errors.New("a reference holds no user and no password, and behind @ a sha256 digest: sign in first, by `docker login` or `podman login`")
	}
	return nil
}
