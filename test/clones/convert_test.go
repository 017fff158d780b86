package clones

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/test/kit"
)

// site makes the spec of a config that somebody has for Flatcar; who has the key logs
// in as its user.
func site(t *testing.T, k kit.Kit) (spec string, key ssh.Signer) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	kit.Must(t, err)
	key, err = ssh.NewSignerFromKey(private)
	kit.Must(t, err)
	text, err := os.ReadFile("testdata/site.bu")
	kit.Must(t, err)
	config := filepath.Join(k.Dir, "site.bu")
	kit.Must(t, os.WriteFile(config, []byte(strings.Replace(string(text), "@KEY@", authorized(key), 1)), 0o644))
	spec = filepath.Join(k.Dir, "site.yaml")
	_, err = k.Imgbuild(t.Context(), "convert", config, "-o", spec)
	kit.Must(t, err)
	return spec, key
}

// authorized is a key as authorized_keys(5) has it.
func authorized(key ssh.Signer) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey())))
}

// carried wants what the site's config says to be so on a booted machine, and its user
// and root, whose key the node config has, to log in.
func (b *bench) carried(ctx context.Context, t *testing.T, m *boottest.Machine, address string) {
	for what, script := range map[string]string{
		"the unit has run":       "systemctl is-active hello.service && grep -qx 'hello every 5' /run/hello",
		"the file is ann's":      `[ "$(stat -c '%a %U %G' /etc/site.conf)" = "640 ann ann" ]`,
		"the link leads there":   `[ "$(readlink /etc/site.current)" = site.conf ]`,
		"the unit is masked":     "systemctl is-enabled systemd-pstore.service | grep -qx masked",
		"the drop-in is read":    "systemctl show -p Environment systemd-logind.service | grep -q SITE=nord",
		"ann has what she needs": `id -nG ann | grep -qw adm && [ "$(stat -c '%a %U' /home/ann)" = "700 ann" ]`,
		"nobody has a password":  `! grep -Ev '^[^:]+:[!*]' /etc/shadow`,
	} {
		if _, err := m.Until(ctx, 2*time.Second, script); err != nil {
			out, _ := m.Sh(ctx, "systemctl status --no-pager hello.service; cat /usr/lib/tmpfiles.d/converted.conf; ls -l /etc/site* /var/opt/site; grep ann /etc/passwd /etc/group")
			t.Errorf("%s: %v\n%s", what, err, out)
		}
	}
	for _, user := range []string{"root", "ann"} {
		if got, err := b.login(ctx, user, address); err != nil || got != user {
			t.Errorf("log in as %s: %q, %v", user, got, err)
		}
	}
	if _, err := b.login(ctx, "nobody", address); err == nil {
		t.Error("the key logs in as nobody, too")
	}
}

// login asks over SSH who it is.
func (b *bench) login(ctx context.Context, user, address string) (string, error) {
	dial := kit.Dialer(b.Net)
	conn, err := dial(ctx, "tcp", net.JoinHostPort(address, "22"))
	if err != nil {
		return "", err
	}
	defer conn.Close() //nolint:errcheck // the client closes it
	c, channels, requests, err := ssh.NewClientConn(conn, address, &ssh.ClientConfig{User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(b.key)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey()}) // #nosec G106 -- a machine that was made for this test
	if err != nil {
		return "", fmt.Errorf("logging in: %w", err)
	}
	client := ssh.NewClient(c, channels, requests)
	defer client.Close() //nolint:errcheck // the connection ends with it
	session, err := client.NewSession()
	if err != nil {
		return "", err
	}
	out, err := session.Output("id -un")
	return strings.TrimSpace(string(out)), err
}
