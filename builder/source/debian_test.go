package source

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/profiles"
)

// asked are package lists: what nodes ask for, and sets of other kinds.
func asked(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{
		"nothing":         nil,
		"a mail system":   {"mailutils", "logwatch", "unattended-upgrades"},
		"alternatives":    {"default-jre-headless", "php-cli", "apache2", "ntpsec", "cron"},
		"a desktop":       {"xfce4", "lightdm", "network-manager-gnome"},
		"a build machine": {"build-essential", "debhelper", "git", "python3-venv", "cargo"},
		"virtual names":   {"gawk", "vim", "exim4-daemon-light", "rsyslog", "isc-dhcp-client"},
	}
	for name, n := range map[string]spec.Input{
		"master":          {Role: "master"},
		"worker":          {Role: "worker"},
		"generic, ssh":    {Role: "worker", Sets: []string{"base.kernel=generic", "ssh.enabled=true", "containerd.source=base"}},
		"calico for BIOS": {Role: "master", Sets: []string{"disk.bios=true", "base.packages=vim-tiny,lvm2,open-iscsi,nfs-common"}},
	} {
		n.Profiles = profiles.Files
		node, found := spec.Load(n)
		if node == nil {
			t.Fatal(found)
		}
		out[name] = plan.Ask(node)[0].Args
	}
	return out
}

// TestAgainstApt wants the very pins that apt would fetch.
func TestAgainstApt(t *testing.T) {
	if testing.Short() {
		t.Skip("reads the whole index of a mirror")
	}
	if err := run.Need(map[string]string{"apt-get": "apt"}); err != nil {
		t.Skip(err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		opt, _ := options(t)
		opt.Arch = arch
		for name, packages := range asked(t) {
			t.Run(name+" "+arch, func(t *testing.T) {
				b := DebianBase{Name: "debian-trixie", Suite: "trixie", Arch: arch, Packages: packages}
				began := time.Now()
				got, err := b.Resolve(t.Context(), opt)
				ours := time.Since(began)
				if err != nil {
					t.Fatal(err)
				}
				began = time.Now()
				want, err := b.byApt(t.Context(), t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%d packages; %v, apt %v", len(want), ours.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("apt (-) and Resolve (+):\n%s", d)
				}
			})
		}
	}
}

// byApt lets apt solve the package set against the same sources, in a folder of its
// own. It is the oracle: apt decides what Debian's rules mean.
func (b DebianBase) byApt(ctx context.Context, dir string) ([]lock.Pin, error) {
	if err := b.prepareApt(dir); err != nil {
		return nil, err
	}
	env := []string{"APT_CONFIG=" + filepath.Join(dir, "apt.conf")}
	if err := run.Run(ctx, run.Cmd{Name: "apt-get", Args: []string{"-qq", "update"}, Env: env}); err != nil {
		return nil, fmt.Errorf("reading the package indices of %s: %w", b.Suite, err)
	}
	args := append([]string{"-qq", "--print-uris", "install", "?essential"}, b.Packages...)
	out, err := run.Output(ctx, run.Cmd{Name: "apt-get", Args: args, Env: env})
	if err != nil {
		return nil, fmt.Errorf("solving the package set of %s: %w", b.Name, err)
	}
	return b.parseURIs(out)
}

// prepareApt writes an apt configuration that touches nothing of the host but its keyrings.
func (b DebianBase) prepareApt(dir string) error {
	sources, err := b.sourcesList()
	if err != nil {
		return err
	}
	for _, sub := range []string{"lists/partial", "archives/partial", "etc/apt.conf.d", "etc/preferences.d"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	conf := strings.NewReplacer("@DIR@", dir, "@ARCH@", b.Arch).Replace(aptConf)
	for name, text := range map[string]string{"status": "", "sources.list": sources, "apt.conf": conf} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

const aptConf = `Dir "@DIR@";
Dir::State "@DIR@";
Dir::State::lists "@DIR@/lists";
Dir::State::status "@DIR@/status";
Dir::State::extended_states "@DIR@/extended_states";
Dir::Cache "@DIR@";
Dir::Cache::archives "@DIR@/archives";
Dir::Etc "@DIR@/etc";
Dir::Etc::sourcelist "@DIR@/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::trusted "/usr/share/keyrings/debian-archive-keyring.gpg";
Dir::Etc::trustedparts "/etc/apt/trusted.gpg.d";
Dir::Log "@DIR@";
APT::Architecture "@ARCH@";
APT::Architectures { "@ARCH@"; };
APT::Install-Recommends "false";
APT::Get::Assume-Yes "true";
APT::Sandbox::User "";
pkgCacheGen::ForceEssential "";
Acquire::Languages "none";
Acquire::ForceHash "SHA256";
Acquire::Retries "5";
#clear DPkg::Pre-Install-Pkgs;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
`

// sourcesList says to apt what Resolve reads. A suite that is not there is not asked for.
func (b DebianBase) sourcesList() (string, error) {
	sources, err := b.sources()
	var out strings.Builder
	for _, s := range sources {
		fmt.Fprintf(&out, "deb %s %s %s\n", s.URL, s.Suite, strings.Join(s.Components, " "))
	}
	return out.String(), err
}

// parseURIs reads apt-get --print-uris: 'URL' file size SHA256:hex.
func (b DebianBase) parseURIs(out []byte) ([]lock.Pin, error) {
	var pins []lock.Pin
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) != 4 || !strings.HasPrefix(words[3], "SHA256:") {
			return nil, fmt.Errorf("apt-get --print-uris: cannot read %q", lines.Text())
		}
		size, err := strconv.ParseInt(words[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("apt-get --print-uris: cannot read %q: %w", lines.Text(), err)
		}
		name, rest, _ := strings.Cut(words[1], "_")
		version, arch, _ := strings.Cut(strings.TrimSuffix(rest, ".deb"), "_")
		if version, err = url.PathUnescape(version); err != nil {
			return nil, fmt.Errorf("apt-get --print-uris: cannot read %q: %w", lines.Text(), err)
		}
		pins = append(pins, lock.Pin{
			Request: b.Name, Kind: lock.KindBase, Source: "debian", Name: name, Version: version, Arch: arch,
			URL: strings.Trim(words[0], "'"), Size: size, Digest: "sha256:" + strings.TrimPrefix(words[3], "SHA256:"),
		})
	}
	slices.SortFunc(pins, func(x, y lock.Pin) int { return strings.Compare(x.Name, y.Name) })
	return pins, lines.Err()
}
