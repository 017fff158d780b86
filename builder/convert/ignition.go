package convert

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	translate "github.com/coreos/butane/config"
	"github.com/coreos/butane/config/common"
	systemd "github.com/coreos/go-systemd/v22/unit"
	parser "github.com/coreos/ignition/v2/config"
	"github.com/coreos/ignition/v2/config/v3_7_experimental/types"
	"github.com/vincent-petithory/dataurl"
	"go.yaml.in/yaml/v3"

	"github.com/imgbuild/imgbuild/internal/ignition"
)

// butane has Butane itself make Ignition of it.
func (d *Draft) butane(root *yaml.Node, text []byte) error {
	out, report, err := translate.TranslateBytes(text, common.TranslateBytesOptions{Raw: true})
	if err != nil || report.IsFatal() {
		return fmt.Errorf("butane does not accept it: %w", errors.Join(err, errors.New(strings.TrimSpace(report.String()))))
	}
	return d.ignition(root, out)
}

// ignition reads any version of Ignition's format; root is where lines are looked up.
func (d *Draft) ignition(root *yaml.Node, text []byte) error {
	text, err := ignition.Current(text)
	if err != nil {
		return err
	}
	c, report, err := parser.Parse(text)
	if err != nil || report.IsFatal() {
		return fmt.Errorf("ignition does not accept it: %w", errors.Join(err, errors.New(strings.TrimSpace(report.String()))))
	}
	storage := find(root, "storage")
	for _, f := range c.Storage.Files {
		d.ignitionFile(keyed(find(storage, "files"), "path", f.Path), f)
	}
	for _, f := range c.Storage.Directories {
		d.folder(keyed(find(storage, "directories"), "path", f.Path), f.Path, permissions(f.Mode, 0o755), ownerOf(f.Node))
	}
	for _, l := range c.Storage.Links {
		n := keyed(find(storage, "links"), "path", l.Path)
		if truth(l.Hard) {
			d.miss(n, "storage.links", "a hard link", "make it a symbolic one, or a file")
			continue
		}
		d.link(n, l.Path, value(l.Target))
	}
	for _, u := range c.Systemd.Units {
		d.ignitionUnit(keyed(find(find(root, "systemd"), "units"), "name", u.Name), u)
	}
	for _, u := range c.Passwd.Users {
		d.ignitionUser(keyed(find(find(root, "passwd"), "users"), "name", u.Name), u)
	}
	d.ignitionRest(root, &c)
	return nil
}

// ignitionRest is what has no place in a spec, or only a part of it.
func (d *Draft) ignitionRest(root *yaml.Node, c *types.Config) {
	storage := find(root, "storage")
	const ownDisk = "a node's disk has a layout of its own"
	for _, part := range []struct {
		key           string
		at            *yaml.Node
		there         bool
		message, hint string
	}{
		{"storage.disks", find(storage, "disks"), len(c.Storage.Disks) > 0, ownDisk, "say disk.varSize, or partition other disks from a unit"},
		{"storage.raid", find(storage, "raid"), len(c.Storage.Raid) > 0, ownDisk, "assemble it from a unit"},
		{"storage.luks", find(storage, "luks"), len(c.Storage.Luks) > 0, ownDisk, "open it from a unit"},
		{"storage.filesystems", find(storage, "filesystems"), len(c.Storage.Filesystems) > 0, "file systems are not made at boot", "make it from a unit, and mount it by a .mount unit"},
		{"passwd.groups", find(find(root, "passwd"), "groups"), len(c.Passwd.Groups) > 0, "groups are those of the base and of users", "add a user, or a package that brings the group"},
		{"ignition.config", find(find(root, "ignition"), "config"), len(c.Ignition.Config.Merge) > 0 || value(c.Ignition.Config.Replace.Source) != "", "another config is named, which is not fetched", "convert that one, too; -f takes several files"},
		{"ignition.security", find(find(root, "ignition"), "security"), len(c.Ignition.Security.TLS.CertificateAuthorities) > 0, "authorities for fetching have nothing to fetch", "for programs on the node, bring them by a package or a base image"},
		{"ignition.proxy", find(find(root, "ignition"), "proxy"), value(c.Ignition.Proxy.HTTPProxy)+value(c.Ignition.Proxy.HTTPSProxy) != "", "a proxy for fetching has nothing to fetch", "for containerd, write a drop-in with its environment"},
		{"kernel_arguments.should_not_exist", find(root, "kernel_arguments"), len(c.KernelArguments.ShouldNotExist) > 0, "the image's kernel command line is its own", "remove it"},
	} {
		if part.there {
			d.miss(part.at, part.key, part.message, part.hint)
		}
	}
	if words := c.KernelArguments.ShouldExist; len(words) > 0 {
		d.node.Boot = &boot{}
		for i, w := range words {
			d.from[fmt.Sprintf("boot.cmdline[%d]", i)] = find(root, "kernel_arguments")
			d.node.Boot.Cmdline = append(d.node.Boot.Cmdline, string(w))
		}
	}
}

func (d *Draft) ignitionFile(n *yaml.Node, f types.File) {
	at := "storage.files"
	if len(f.Append) > 0 {
		d.miss(n, at, strconv.Quote(f.Path)+" is appended to a file of the system", "write the whole file, or a drop-in beside it")
		return
	}
	content, err := inline(f.Contents)
	if err != nil {
		d.miss(n, at, strconv.Quote(f.Path)+": "+err.Error(), "write its text into the config")
		return
	}
	if !matches(content, value(f.Contents.Verification.Hash)) {
		d.miss(n, at, strconv.Quote(f.Path)+" has not the digest that its verification.hash says, and Ignition would stop at it", "mend one of them")
		return
	}
	d.file(n, f.Path, permissions(f.Mode, 0o644), content, ownerOf(f.Node))
}

// matches holds a content against Ignition's "sha512-…" or "sha256-…"; empty fits all.
func matches(content []byte, hash string) bool {
	kind, want, _ := strings.Cut(hash, "-")
	switch kind {
	case "":
		return true
	case "sha512":
		return fmt.Sprintf("%x", sha512.Sum512(content)) == want
	case "sha256":
		return fmt.Sprintf("%x", sha256.Sum256(content)) == want
	}
	return false
}

// maxFile bounds a file once it is unpacked.
const maxFile = 4 << 20

// inline is what a resource holds itself (RFC 2397); a URL is not fetched.
func inline(r types.Resource) ([]byte, error) {
	source := value(r.Source)
	if source == "" {
		return nil, nil
	}
	if !strings.HasPrefix(source, "data:") {
		return nil, errors.New("it is fetched at boot, and nothing on a node's root is")
	}
	u, err := dataurl.DecodeString(source)
	if err != nil {
		return nil, errors.New("its data URL is broken")
	}
	if value(r.Compression) == "gzip" {
		return gunzip(u.Data)
	}
	return u.Data, nil
}

func gunzip(data []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, errors.New("it is not gzip")
	}
	out, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil || len(out) > maxFile {
		return nil, fmt.Errorf("unpacking it: broken, or larger than %d bytes", maxFile)
	}
	return out, nil
}

func (d *Draft) ignitionUnit(n *yaml.Node, u types.Unit) {
	for _, drop := range u.Dropins {
		d.file(n, "/etc/systemd/system/"+u.Name+".d/"+drop.Name, 0o644, []byte(value(drop.Contents)), owner{})
	}
	out := unit{Name: u.Name, Content: value(u.Contents), Mask: truth(u.Mask)}
	if out.Mask {
		out.Content = ""
	}
	if truth(u.Enabled) && !out.Mask {
		var why string
		if out.WantedBy, why = wantedBy(out.Content); why != "" {
			d.miss(find(n, "enabled"), "systemd.units", strconv.Quote(u.Name)+" is enabled, and "+why, "say WantedBy= in its [Install] section, with one target")
			return
		}
	}
	if out.Content == "" && out.WantedBy == "" && !out.Mask {
		if len(u.Dropins) == 0 {
			d.miss(n, "systemd.units", strconv.Quote(u.Name)+" is disabled, and a node starts nothing but what its image says", "remove it, or mask it")
		}
		return
	}
	d.unit(n, out)
}

func (d *Draft) unit(n *yaml.Node, u unit) {
	d.from[fmt.Sprintf("units[%d]", len(d.node.Units))] = n
	d.node.Units = append(d.node.Units, u)
}

// wantedBy reads the one target that an [Install] section names, or says why a spec cannot.
func wantedBy(text string) (target, why string) {
	options, err := systemd.DeserializeOptions(strings.NewReader(text))
	if err != nil {
		return "", "its text is no unit"
	}
	for _, o := range options {
		if o.Section != "Install" {
			continue
		}
		words := strings.Fields(o.Value)
		switch {
		case o.Name != "WantedBy":
			return "", "a spec has no word for " + o.Name + "="
		case target != "" && len(words) > 0 || len(words) > 1:
			return "", "by more than one target"
		case len(words) == 1:
			target = words[0]
		}
	}
	if target == "" {
		return "", "its text does not say by which target"
	}
	return target, ""
}

func (d *Draft) ignitionUser(n *yaml.Node, u types.PasswdUser) {
	out := user{Name: u.Name, Shell: value(u.Shell)}
	if u.UID != nil {
		out.UID = *u.UID
	}
	for _, g := range u.Groups {
		out.Groups = append(out.Groups, string(g))
	}
	for _, k := range u.SSHAuthorizedKeys {
		out.Keys = append(out.Keys, strings.TrimSpace(string(k)))
	}
	if u.ShouldExist != nil && !*u.ShouldExist {
		d.miss(n, "passwd.users", strconv.Quote(u.Name)+" is to be removed, and packages of the base decide on theirs", "remove it")
		return
	}
	d.user(n, out)
	d.userRest(n, u.Name, map[string]bool{
		"password_hash": value(u.PasswordHash) != "", "home_dir": value(u.HomeDir) != "" && value(u.HomeDir) != "/home/"+u.Name,
		"primary_group": value(u.PrimaryGroup) != "", "gecos": value(u.Gecos) != "", "no_user_group": truth(u.NoUserGroup), "system": truth(u.System), "no_create_home": truth(u.NoCreateHome),
	})
}

// userRest are the parts of an account that are not carried.
func (d *Draft) userRest(n *yaml.Node, name string, there map[string]bool) {
	for _, key := range sorted(there) {
		switch {
		case !there[key]:
		case strings.Contains(key, "pass"):
			d.miss(n, key, strconv.Quote(name)+" has a password, and nobody has one on a node", "log in by a key")
		default:
			d.miss(n, key, "of "+strconv.Quote(name)+" has no word in a spec", "a user has a group and a home of its own")
		}
	}
}

func ownerOf(n types.Node) owner {
	return owner{cmp.Or(value(n.User.Name), number(n.User.ID)), cmp.Or(value(n.Group.Name), number(n.Group.ID))}
}

func number(i *int) string {
	if i == nil {
		return ""
	}
	return strconv.Itoa(*i)
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func truth(b *bool) bool { return b != nil && *b }

func permissions(mode *int, or uint32) uint32 {
	if mode == nil || *mode < 0 {
		return or
	}
	return uint32(*mode) // #nosec G115 -- not negative, and a wrong one is a finding
}
