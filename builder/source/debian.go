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

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/internal/run"
)

// DebianTools are the tools that the Debian base needs on the build host, with
// the packages that have them.
var DebianTools = map[string]string{"mmdebstrap": "mmdebstrap", "apt-get": "apt", "dpkg-deb": "dpkg"}

// DebianBase asks for a set of Debian packages. Mirror is a sources.list
// address that replaces mmdebstrap's own default for the suite, security
// updates included; empty takes that default.
type DebianBase struct {
	Name     string // the request's name, such as debian-trixie
	Suite    string
	Arch     string
	Mirror   string
	Packages []string // beside the essential ones
}

// Resolve lets apt solve the package set against the signed indices of the
// suite, in a folder of its own, and returns one pin for each package, sorted by name.
func (b DebianBase) Resolve(ctx context.Context) ([]lock.Pin, error) {
	if err := run.Need(DebianTools); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "imgbuild-apt-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // scratch
	if err := b.prepareApt(ctx, dir); err != nil {
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
func (b DebianBase) prepareApt(ctx context.Context, dir string) error {
	sources, err := b.sources(ctx)
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

// sources is the sources.list for the suite. Without a mirror it is what
// mmdebstrap would take, asked from mmdebstrap itself through a hook that ends
// its run before anything is downloaded.
func (b DebianBase) sources(ctx context.Context) (string, error) {
	if b.Mirror != "" {
		return fmt.Sprintf("deb %s %s main\n", b.Mirror, b.Suite), nil
	}
	var said bytes.Buffer // a hook's output goes to stderr
	_ = run.Run(ctx, run.Cmd{Name: "mmdebstrap", Stderr: &said, Args: []string{"--variant=essential", "--format=null",
		"--architectures=" + b.Arch, `--setup-hook=cat "$1/etc/apt/sources.list"; exit 1`, b.Suite, "-"}}) // fails by design: the hook stops it
	var sources strings.Builder
	for line := range strings.Lines(said.String()) {
		if strings.HasPrefix(line, "deb ") {
			sources.WriteString(line)
		}
	}
	if sources.Len() == 0 {
		return "", fmt.Errorf("mmdebstrap knows no default mirror for %s: set base.mirror, or for an ordinary user install the package uidmap", b.Suite)
	}
	return sources.String(), nil
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
