package convert

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// notCarried says why a key of a cloud-config is not, and the way out. A key that is
// nowhere here is not carried either.
var notCarried = map[string][2]string{
	"runcmd":              {"commands of a first boot", "write a unit with Type=oneshot (units), or bring what they make by files and packages"},
	"bootcmd":             {"commands of every boot", "write a unit with Type=oneshot (units)"},
	"hostname":            {"a name is one machine's", "put it into the node config: hostname"},
	"fqdn":                {"a name is one machine's", "put it into the node config: hostname"},
	"ssh_authorized_keys": {"they are for the image's default user, and there is none", "put them into the node config (sshAuthorizedKeys), or give them to a user"},
	"ssh_keys":            {"host keys are one machine's, and secret", "remove them: each machine makes its own"},
	"password":            {"nobody has a password on a node", "log in by a key"},
	"chpasswd":            {"nobody has a password on a node", "log in by a key"},
	"ssh_pwauth":          {"nobody has a password on a node", "log in by a key"},
	"swap":                {"a node has no swap: the kubelet wants none", "remove it"},
	"mounts":              {"mounts are units", "write a .mount unit (units)"},
	"disk_setup":          {"a node's disk has a layout of its own", "say disk.varSize, or partition other disks from a unit"},
	"fs_setup":            {"file systems are not made at boot", "make it from a unit, and mount it by a .mount unit"},
	"package_update":      {"packages are pinned when the image is built", "imgbuild lock --update moves the pins"},
	"package_upgrade":     {"packages are pinned when the image is built", "imgbuild lock --update moves the pins"},
	"apt":                 {"packages come from the base's mirror when the image is built", "say base.mirror, or build a base image (base.oci)"},
	"groups":              {"groups are those of the base and of users", "add a user, or a package that brings the group"},
}

func (d *Draft) cloudConfig(root *yaml.Node) {
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, n := root.Content[i], unaliased(root.Content[i+1])
		switch key.Value {
		case "write_files":
			d.each(key, n, d.cloudFile)
		case "users":
			d.each(key, n, d.cloudUser)
		case "packages":
			d.each(key, n, d.cloudPackage)
		case "ntp":
			d.cloudTime(n)
		default:
			why, ok := notCarried[key.Value]
			if !ok {
				why = [2]string{"not carried: a spec has no word for it", "say it by files and units"}
			}
			d.miss(key, short(key.Value), why[0], why[1])
		}
	}
}

// short is a key as it can stand in a finding.
func short(key string) string {
	if len(key) > 60 || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) {
		return strconv.QuoteToASCII(key[:min(len(key), 60)])
	}
	return key
}

func (d *Draft) each(key, list *yaml.Node, do func(n *yaml.Node)) {
	if list.Kind != yaml.SequenceNode {
		d.miss(list, short(key.Value), "want a list", "begin each item with a dash")
		return
	}
	for _, n := range list.Content {
		do(unaliased(n))
	}
}

// fieldsOf are the keys of one item and their values.
func fieldsOf(n *yaml.Node) map[string]*yaml.Node {
	out := map[string]*yaml.Node{}
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			out[n.Content[i].Value] = unaliased(n.Content[i+1])
		}
	}
	return out
}

func text(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode {
		return ""
	}
	return n.Value
}

func (d *Draft) cloudFile(n *yaml.Node) {
	f := fieldsOf(n)
	for _, key := range slices.Sorted(maps.Keys(f)) {
		if !slices.Contains(fileKeys, key) {
			d.miss(f[key], "write_files."+short(key), "a spec has no word for it", "remove it")
			return
		}
		if f[key].Kind != yaml.ScalarNode && key != "source" {
			d.miss(f[key], "write_files."+key, "want a text", "write it on one line, or as a block")
			return
		}
	}
	for _, key := range []string{"append", "source"} {
		if v := text(f[key]); f[key] != nil && v != "false" {
			d.miss(f[key], "write_files."+key, "not carried: the whole text has to be there", "write it as content")
			return
		}
	}
	content, err := decoded(binary(f["content"]), text(f["encoding"]))
	if err != nil {
		d.miss(n, "write_files.content", err.Error(), "write the text as it is")
		return
	}
	mode := uint64(0o644)
	if p := f["permissions"]; p != nil {
		if mode, err = permissionsOf(p); err != nil {
			d.miss(f["permissions"], "write_files.permissions", "want octal digits", `write it as "0644"`)
			return
		}
	}
	var by owner
	by.user, by.group, _ = strings.Cut(text(f["owner"]), ":")
	d.file(n, text(f["path"]), uint32(mode), content, by) // #nosec G115 -- of 16 bits
}

// fileKeys are those of an item of write_files.
var fileKeys = []string{"append", "content", "defer", "encoding", "owner", "path", "permissions", "source"}

// permissionsOf reads a mode as cloud-init does: a number is one, of whatever base YAML
// 1.1 takes it for, and a text has octal digits.
func permissionsOf(n *yaml.Node) (uint64, error) {
	if n.ShortTag() == "!!int" {
		return strconv.ParseUint(n.Value, 0, 16)
	}
	return strconv.ParseUint(strings.TrimPrefix(n.Value, "0o"), 8, 16)
}

// binary is a text, of which YAML may have the bytes (!!binary).
func binary(n *yaml.Node) string {
	if n != nil && n.ShortTag() == "!!binary" {
		if data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Value), "")); err == nil {
			return string(data)
		}
	}
	return text(n)
}

// decoded undoes what cloud-init's write_files calls an encoding.
func decoded(content, encoding string) ([]byte, error) {
	out := []byte(content)
	switch encoding {
	case "", "text/plain", "b64", "base64", "gz", "gzip", "gz+b64", "gzip+b64", "gz+base64", "gzip+base64":
	default:
		return nil, errors.New("an encoding that cloud-init does not know")
	}
	if strings.Contains(encoding, "b64") || strings.Contains(encoding, "base64") {
		var err error
		if out, err = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(content), "")); err != nil {
			return nil, errors.New("it is not base64")
		}
	}
	if strings.HasPrefix(encoding, "gz") {
		return gunzip(out)
	}
	return out, nil
}

// carried are the keys of a user that a spec has a word for, or that say what is so anyway.
var carried = []string{"name", "uid", "groups", "shell", "ssh_authorized_keys", "lock_passwd"}

func (d *Draft) cloudUser(n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		d.miss(n, "users", "the image's default user: there is none", "give a name and keys")
		return
	}
	f := fieldsOf(n)
	u := user{Name: text(f["name"]), Shell: text(f["shell"]), Groups: names(f["groups"]), Keys: names(f["ssh_authorized_keys"])}
	if id := f["uid"]; id != nil {
		number, err := strconv.Atoi(text(id))
		if err != nil {
			d.miss(id, "users.uid", "want a number", "use 1000 to 59999")
			return
		}
		u.UID = number
	}
	d.user(n, u)
	there := map[string]bool{}
	for key := range f {
		there[key] = !slices.Contains(carried, key)
	}
	if there["sudo"] && text(f["sudo"]) != "false" {
		there["sudo"] = false
		d.miss(f["sudo"], "users.sudo", "a node has no sudo: no set-uid program beyond the base's few", "log in as root by a key of the node config")
	}
	d.userRest(n, u.Name, there)
}

// names is a list of words, or words on one line with commas between.
func names(n *yaml.Node) (out []string) {
	switch {
	case n == nil:
	case n.Kind == yaml.SequenceNode:
		for _, item := range n.Content {
			out = append(out, strings.TrimSpace(text(unaliased(item))))
		}
	default:
		for w := range strings.SplitSeq(text(n), ",") {
			if w = strings.TrimSpace(w); w != "" {
				out = append(out, w)
			}
		}
	}
	return out
}

func (d *Draft) cloudPackage(n *yaml.Node) {
	if n.Kind != yaml.ScalarNode {
		d.miss(n, "packages", "a package with a version: versions are pinned by the lock", "name the package alone")
		return
	}
	if d.node.Base == nil {
		d.node.Base = &base{}
	}
	d.from[fmt.Sprintf("base.packages[%d]", len(d.node.Base.Packages))] = n
	d.node.Base.Packages = append(d.node.Base.Packages, n.Value)
}

func (d *Draft) cloudTime(n *yaml.Node) {
	for key, v := range fieldsOf(n) {
		switch key {
		case "servers", "pools":
			if d.node.Time == nil {
				d.node.Time = &clock{}
			}
			for _, name := range names(v) {
				d.from[fmt.Sprintf("time.servers[%d]", len(d.node.Time.Servers))] = v
				d.node.Time.Servers = append(d.node.Time.Servers, name)
			}
		case "enabled":
			if on := text(v); on != "true" && on != "yes" && on != "on" {
				d.miss(v, "ntp.enabled", "a node keeps time: certificates go by it", "remove it")
			}
		default:
			d.miss(v, "ntp."+short(key), "the base's own time service is used", "say time.servers")
		}
	}
	if d.node.Time != nil {
		slices.Sort(d.node.Time.Servers)
	}
}

func sorted(m map[string]bool) []string { return slices.Sorted(maps.Keys(m)) }
