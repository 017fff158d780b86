package verify

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"github.com/erofs/go-erofs"
)

// setuid lists the programs that may change user or group when started.
var setuid = map[string]bool{
	"usr/bin/su": true, "usr/bin/mount": true, "usr/bin/umount": true, "usr/bin/newgrp": true, "usr/bin/passwd": true, "usr/bin/gpasswd": true,
	"usr/bin/chsh": true, "usr/bin/chfn": true, "usr/bin/chage": true, "usr/bin/expiry": true, "usr/sbin/unix_chkpwd": true, "usr/sbin/pam_extrausers_chkpwd": true,
	"usr/lib/dbus-1.0/dbus-daemon-launch-helper": true, "usr/lib/openssh/ssh-keysign": true, "usr/bin/ssh-agent": true,
	"usr/sbin/mount.nfs": true, "usr/sbin/mount.cifs": true, "usr/sbin/lldpcli": true, // of packages that a spec may ask for
	"usr/bin/crontab": true, "usr/bin/ksu.mit": true, "usr/bin/sudo": true,
}

var (
	privateKey = regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----(?:\r?\n[ \t]*|(?:\\r)?\\n)[A-Za-z0-9+/]`) // as a file, in YAML or in JSON
	packedKey  = regexp.MustCompile(`LS0tLS1CRUdJTi[A-Za-z0-9+/]{0,50}`)                                          // how PEM begins in base64: a kubeconfig's client-key-data, a Secret
	joinToken  = regexp.MustCompile(`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`)
)

// secret says whether a text looks like it has a private key in it, or a bootstrap
// token. The plain search before each pattern is what makes a root of 2000 files quick.
func secret(text []byte, token bool) bool {
	return bytes.Contains(text, []byte("PRIVATE KEY-----")) && privateKey.Match(text) || hasPackedKey(text) || token && hasToken(text)
}

// hasPackedKey unpacks the first line of what PEM there is in base64.
func hasPackedKey(text []byte) bool {
	if !bytes.Contains(text, []byte("LS0tLS1CRUdJTi")) {
		return false
	}
	for _, begin := range packedKey.FindAll(text, -1) {
		line, _ := base64.StdEncoding.DecodeString(string(begin[:len(begin)/4*4])) // as far as it is base64
		if bytes.Contains(line, []byte(" PRIVATE KEY-----")) {
			return true
		}
	}
	return false
}

// hasToken tries the pattern at each dot alone.
func hasToken(text []byte) bool {
	const before, after = 7, 17 // of a dot: six and sixteen characters, and one that is no part of it
	for i := 0; ; i++ {
		n := bytes.IndexByte(text[i:], '.')
		if n < 0 {
			return false
		}
		i += n
		if i < before-1 {
			continue
		}
		if t := joinToken.Find(text[max(0, i-before):min(len(text), i+1+after)]); bytes.ContainsAny(t[min(len(t), before):], "0123456789") { // else it is a name with a dot
			return true
		}
	}
}

// readRoot looks at every file of the root file system: nothing unique, nothing
// secret, no way in that was not asked for.
func (r *Report) readRoot(root *io.SectionReader) error {
	fsys, err := erofs.Open(root)
	if err != nil {
		return fmt.Errorf("reading the root file system: %w", err)
	}
	if raw, err := fs.ReadFile(fsys, nodeFile); err == nil {
		r.Node = raw
	}
	if err := r.readNode(fsys); err != nil {
		return err
	}
	if id, err := fs.ReadFile(fsys, "etc/machine-id"); err != nil || strings.TrimSpace(string(id)) != "uninitialized" {
		r.say("identity", "etc/machine-id", "want \"uninitialized\"")
	}
	r.checkPasswords(fsys)
	if r.packaged, err = listed(fsys); err != nil {
		return err
	}
	if r.visit != nil {
		if err := r.visit(fsys); err != nil {
			return err
		}
	}
	for _, p := range append([]string{"../lib/systemd/systemd"}, nodePrograms...) {
		r.checkProgram(fsys, path.Join("usr/bin", p))
	}
	return fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("reading %s: %w", p, err)
		}
		return r.checkEntry(fsys, p, d)
	})
}

// listed are the files outside of /etc and of imgbuild's own folder that packages
// brought, by dpkg's lists: they are pinned, many, and hold no secret of a site's.
func listed(fsys fs.FS) (map[string]bool, error) {
	lists, err := fs.Glob(fsys, "usr/lib/sysimage/dpkg/info/*.list")
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, list := range lists {
		text, err := fs.ReadFile(fsys, list)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", list, err)
		}
		for line := range strings.Lines(string(text)) {
			if name := strings.TrimSpace(line); !strings.HasPrefix(name, "/etc/") && !strings.HasPrefix(name, "/usr/lib/imgbuild/") {
				out[name] = true
			}
		}
	}
	return out, nil
}

// Mode is a file's mode with all its bits, of which the library's own has no set-uid and
// sticky ones; info is of the root that Root hands on.
func Mode(info fs.FileInfo) fs.FileMode {
	if stat, ok := info.Sys().(*erofs.Stat); ok {
		return stat.Mode
	}
	return info.Mode()
}

func (r *Report) checkEntry(fsys fs.FS, p string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return fmt.Errorf("reading %s: %w", p, err)
	}
	stat, ok := info.Sys().(*erofs.Stat) // the library's Mode() has no set-uid and sticky bits
	if !ok {
		return fmt.Errorf("reading %s: no status", p)
	}
	mode := stat.Mode
	switch {
	case strings.HasPrefix(p, imagesDir+"/"): // files of container images, which only root gets to
	case p == imagesDir && mode.Perm()&0o077 != 0:
		r.say("modes", p, "others than root get to the programs of container images (%v)", mode)
	case mode&fs.ModeSetuid != 0 && !setuid[p], mode&fs.ModeSetgid != 0 && mode.IsRegular() && !setuid[p]:
		r.say("setuid", p, "is not on the list of set-uid and set-gid programs")
	case mode.Perm()&0o002 != 0 && mode&(fs.ModeSymlink|fs.ModeSticky) == 0:
		r.say("modes", p, "everyone may write it (%v)", mode)
	}
	switch {
	case strings.HasPrefix(p, "etc/ssh/ssh_host_"), p == "var/lib/systemd/random-seed", p == "var/lib/systemd/credential.secret", p == "etc/hostname":
		r.say("identity", p, "an image must not carry it")
	case strings.HasPrefix(p, "var/"):
		r.say("state", p, "/var must be empty in an image")
	}
	if mode.IsRegular() && info.Size() < maxText && !strings.HasPrefix(p, imagesDir+"/") && !r.packaged["/"+p] {
		text, err := fs.ReadFile(fsys, p)
		if err != nil {
			return fmt.Errorf("reading %s: %w", p, err)
		}
		r.noSecret(p, text)
	}
	return nil
}

// noSecret says that a file of an image looks like a secret; what has a zero is no text.
func (r *Report) noSecret(p string, text []byte) {
	if bytes.IndexByte(text, 0) < 0 && secret(text, true) {
		r.say("secrets", p, "looks like a private key or a bootstrap token")
	}
}

func (r *Report) checkPasswords(fsys fs.FS) {
	for _, file := range []string{"etc/passwd", "etc/shadow", "etc/gshadow"} {
		text, err := fs.ReadFile(fsys, file)
		if err != nil {
			r.say("passwords", file, "cannot be read: %v", err)
			continue
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Split(strings.TrimSpace(line), ":")
			if file == "etc/passwd" && len(fields) > 1 && fields[1] == "x" {
				continue // see etc/shadow
			}
			if len(fields) > 1 && fields[1] != "*" && !strings.HasPrefix(fields[1], "!") {
				r.say("passwords", file, "%s can log in by password", fields[0])
			}
		}
	}
}
