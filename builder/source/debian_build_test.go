package source

import (
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/internal/fault"
)

func TestSameAsPinned(t *testing.T) {
	const control = "Package: libc6\nSource: glibc\nVersion: 2.41-12\nArchitecture: amd64\nDescription: a\n Version: 9\n"
	pin := lock.Pin{Name: "libc6", Version: "2.41-12", Arch: "amd64"}
	if err := sameAsPinned(pin, control); err != nil {
		t.Error(err)
	}
	for _, c := range []struct{ old, with, want string }{
		{"Package: libc6", "Package: libc7", "package libc6 says Package: libc7, and the lock pins libc6"},
		{"Version: 2.41-12", "Version: 2.41-11", "package libc6 says Version: 2.41-11, and the lock pins 2.41-12"},
		{"Architecture: amd64", "Architecture: arm64", "package libc6 says Architecture: arm64, and the lock pins amd64"},
	} {
		err := sameAsPinned(pin, strings.Replace(control, c.old, c.with, 1))
		if fault.KindOf(err) != fault.Lock || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.with, err)
		}
	}
}
