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
	"github.com/imgbuild/imgbuild/internal/debian"
	"github.com/imgbuild/imgbuild/internal/fetch"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/profiles"
)

// asked are package lists: what nodes ask for, and sets of other kinds.
func asked(t *testing.T, arch string) map[string][]string {
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
		"master":        {Role: "master"},
		"worker":        {Role: "worker"},
		"generic, ssh":  {Role: "worker", Sets: []string{"base.kernel=generic", "ssh.enabled=true", "containerd.source=base"}},
		"BIOS and more": {Role: "master", Sets: []string{"disk.bios=true", "base.packages=vim-tiny,lvm2,open-iscsi,nfs-common"}},
	} {
		for _, p := range packagesOf(t, n) {
			if !strings.HasPrefix(p, "grub-") || arch == "amd64" {
				out[name] = append(out[name], strings.ReplaceAll(p, "amd64", arch))
			}
		}
	}
	return out
}

// packagesOf are those that a node asks for.
func packagesOf(t *testing.T, in spec.Input) []string {
	t.Helper()
	in.Profiles = profiles.Files
	node, found := spec.Load(in)
	if node == nil {
		t.Fatal(found)
	}
	return plan.Ask(node)[0].Args
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
		t.Run(arch, func(t *testing.T) {
			opt, _ := options(t)
			b := DebianBase{Name: "debian-trixie", Suite: "trixie", Arch: arch, hostKeys: "/no/such/file"} // the keys on board suffice
			dir := t.TempDir()
			archive := debian.Archive{Store: opt.Store, Fetch: fetch.New(opt.Store, fetch.Options{}), Arch: arch, Now: time.Now()}
			check := func(s debian.Source) error { return archive.Check(t.Context(), s) }
			sources, err := b.sources(check)
			if err == nil {
				err = check(sources[0])
			}
			if err != nil {
				t.Skip(err) // no mirror is known here, or it does not answer
			}
			began := time.Now()
			all, err := b.read(t.Context(), opt)
			if err != nil {
				t.Fatal(err)
			}
			ours := time.Since(began)
			began = time.Now()
			if err := b.updateApt(t.Context(), dir, sources); err != nil {
				t.Fatal(err)
			}
			t.Logf("indices of %d packages: %v, apt-get update %v", all.Len(), ours.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
			for name, packages := range asked(t, arch) {
				b.Packages = packages
				began = time.Now()
				got, err := b.solve(all)
				ours := time.Since(began)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				began = time.Now()
				want, err := b.byApt(t.Context(), dir)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%s: %d packages; %v, apt-get install %v", name, len(want), ours.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("%s: apt (-) and Resolve (+):\n%s", name, d)
				}
			}
		})
	}
}

// updateApt has apt read the same sources, in a folder of its own.
func (b DebianBase) updateApt(ctx context.Context, dir string, sources []debian.Source) error {
	if err := b.prepareApt(dir, sources); err != nil {
		return err
	}
	return run.Run(ctx, run.Cmd{Name: "apt-get", Args: []string{"-qq", "update"}, Env: aptEnv(dir)})
}

func aptEnv(dir string) []string { return []string{"APT_CONFIG=" + filepath.Join(dir, "apt.conf")} }

// byApt lets apt solve the package set. It is the oracle: apt decides what Debian's rules mean.
func (b DebianBase) byApt(ctx context.Context, dir string) ([]lock.Pin, error) {
	args := append([]string{"-qq", "--print-uris", "install", "?essential"}, b.Packages...)
	out, err := run.Output(ctx, run.Cmd{Name: "apt-get", Args: args, Env: aptEnv(dir)})
	if err != nil {
		return nil, fmt.Errorf("solving the package set of %s: %w", b.Name, err)
	}
	return b.parseURIs(out)
}

// prepareApt writes an apt configuration that touches nothing of the host but its keyrings.
func (b DebianBase) prepareApt(dir string, sources []debian.Source) error {
	for _, sub := range []string{"lists/partial", "archives/partial", "etc/apt.conf.d", "etc/preferences.d"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	conf := strings.NewReplacer("@DIR@", dir, "@ARCH@", b.Arch).Replace(aptConf)
	for name, text := range map[string]string{"status": "", "sources.list": sourcesList(sources), "apt.conf": conf} {
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

// sourcesList says to apt what Resolve reads.
func sourcesList(sources []debian.Source) string {
	var out strings.Builder
	for _, s := range sources {
		fmt.Fprintf(&out, "deb %s %s %s\n", s.URL, s.Suite, strings.Join(s.Components, " "))
	}
	return out.String()
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
