package rootfs

import (
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/builder/component"
	"github.com/imgbuild/imgbuild/internal/tree"
)

func TestUsers(t *testing.T) {
	files := map[string][2]string{
		"etc/passwd":  {"root:x:0:0:root:/root:/bin/bash\n", "root:x:0:0:root:/root:/bin/bash\nann:x:1001:1001::/home/ann:/bin/bash\n"},
		"etc/shadow":  {"root:*:1::::::\n", "root:*:1::::::\nann:*:::::::\n"},
		"etc/group":   {"root:x:0:\nadm:x:4:\nsudo:x:27:bob\n", "root:x:0:\nadm:x:4:ann\nsudo:x:27:bob,ann\nann:x:1001:\n"},
		"etc/gshadow": {"root:*::\nadm:*::\nsudo:*::bob\n", "root:*::\nadm:*::ann\nsudo:*::bob,ann\nann:!::\n"},
	}
	base := func() *tree.Tree {
		tr := tree.New()
		for name, text := range files {
			if err := tr.Put(name, tree.Node{Mode: 0o644, Content: tree.Bytes(text[0])}); err != nil {
				t.Fatal(err)
			}
		}
		return tr
	}
	ann := component.User{Name: "ann", ID: 1001, Groups: []string{"adm", "sudo"}, Home: "/home/ann", Shell: "/bin/bash"}
	tr := base()
	if err := addUsers(tr, []component.User{ann}); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if got, _ := tr.ReadFile(name); string(got) != text[1] {
			t.Errorf("%s:\n%swant\n%s", name, got, text[1])
		}
	}
	for _, c := range []struct {
		user component.User
		want string
	}{
		{component.User{Name: "root", ID: 1001}, "has a user or group with the name root"},
		{component.User{Name: "sudo", ID: 1001}, "has a user or group with the name sudo"},
		{component.User{Name: "bob", ID: 27}, "the number 27"},
		{component.User{Name: "bob", ID: 1001, Groups: []string{"wheel"}}, "the base has no group wheel"},
	} {
		if err := addUsers(base(), []component.User{c.user}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.user, err, c.want)
		}
	}
}
