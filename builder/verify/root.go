package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/erofs/go-erofs"
	"golang.org/x/sync/errgroup"
)

const block = 4096

// superblock is what the first block of the verity partition tells (veritysetup(8)).
type superblock struct {
	blocks int64
	salt   []byte
}

func readSuperblock(tree io.ReaderAt, rootSize int64) (*superblock, error) {
	b := make([]byte, block)
	if err := readAt(tree, b, 0); err != nil {
		return nil, fmt.Errorf("reading the verity superblock: %w", err)
	}
	le := binary.LittleEndian
	blocks, saltLen := le.Uint64(b[72:]), int(le.Uint16(b[80:]))
	if string(b[:8]) != "verity\x00\x00" || le.Uint32(b[8:]) != 1 || le.Uint32(b[12:]) != 1 ||
		strings.TrimRight(string(b[32:64]), "\x00") != "sha256" || le.Uint32(b[64:]) != block || le.Uint32(b[68:]) != block ||
		blocks == 0 || blocks > uint64(rootSize/block) || saltLen > 256 || !zero(b[82:88]) || !zero(b[88+saltLen:]) { //nolint:gosec // a size is not negative
		return nil, nil
	}
	return &superblock{int64(blocks), b[88 : 88+saltLen]}, nil // #nosec G115 -- checked
}

// checkVerity computes the hash tree (Linux dm-verity, hash type 1, SHA-256) over
// every block of the root file system and holds it, level by level, against the
// tree on the disk and the root hash on the command line. It says whether the
// root file system is what the hash vouches for.
func (r *Report) checkVerity(ctx context.Context, root, tree *io.SectionReader) (bool, error) {
	super, err := readSuperblock(tree, root.Size())
	if err != nil {
		return false, err
	}
	if super == nil {
		r.say("verity", "", "the superblock does not fit the root file system")
		return false, nil
	}
	level, err := hashBlocks(ctx, root, super.blocks*block, super.salt)
	if err != nil {
		return false, fmt.Errorf("reading the root file system: %w", err)
	}
	var levels [][]byte
	for len(level) > sha256.Size {
		level = append(level, make([]byte, (block-len(level)%block)%block)...)
		levels = append(levels, level)
		if level, err = hashBlocks(ctx, bytes.NewReader(level), int64(len(level)), super.salt); err != nil {
			return false, err
		}
	}
	if got := hex.EncodeToString(level); got != strings.ToLower(r.RootHash) {
		r.say("verity", "", "the root file system hashes to %s, the command line says %s", got, r.RootHash)
		return false, nil
	}
	at := int64(block)
	for i := len(levels) - 1; i >= 0; i-- {
		if !holds(tree, at, levels[i]) {
			r.say("verity", "", "the hash tree on the disk differs from the root file system at level %d", i)
		}
		at += int64(len(levels[i]))
	}
	return true, errors.Join(r.checkRest(root, super.blocks*block, "root file system"), r.checkRest(tree, at, "hash tree"))
}

// holds says whether want, a whole number of blocks, lies there.
func holds(src io.ReaderAt, at int64, want []byte) bool {
	buf := make([]byte, 64*block)
	for len(want) > 0 {
		have := buf[:min(len(buf), len(want))]
		if err := readAt(src, have, at); err != nil || !bytes.Equal(have, want[:len(have)]) {
			return false
		}
		at, want = at+int64(len(have)), want[len(have):]
	}
	return true
}

// checkRest says so when something lies in a partition behind what was checked.
func (r *Report) checkRest(part *io.SectionReader, at int64, what string) error {
	rest, buf := io.NewSectionReader(part, at, part.Size()-at), make([]byte, 256*block)
	for {
		n, err := rest.Read(buf)
		if !zero(buf[:n]) {
			r.say("verity", "", "something lies in the partition behind the %s", what)
			return nil
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading behind the %s: %w", what, err)
		}
	}
}

func zero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }

// hashBlocks is the digests of the blocks in the first size bytes, made by all processors.
func hashBlocks(ctx context.Context, src io.ReaderAt, size int64, salt []byte) ([]byte, error) {
	const stretch = 256 * block
	n := size / block * sha256.Size
	out := make([]byte, n, (n+block-1)/block*block) // a level of a hash tree is filled up
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			buf, h := make([]byte, stretch), sha256.New()
			for at := next.Add(stretch) - stretch; at < size; at = next.Add(stretch) - stretch {
				runtime.Gosched() // who can work on one processor alone goes first, such as the digest of the whole file
				b := buf[:min(stretch, size-at)]
				if err := errors.Join(ctx.Err(), readAt(src, b, at)); err != nil {
					return err
				}
				for to := at / block * sha256.Size; len(b) > 0; to, b = to+sha256.Size, b[block:] {
					h.Reset()
					h.Write(salt)
					h.Write(b[:block])
					h.Sum(out[to:to])
				}
			}
			return nil
		})
	}
	return out, group.Wait()
}

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
	joinToken  = regexp.MustCompile(`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`)
)

// secret says whether a text looks like it has a private key in it, or a bootstrap
// token. The plain search before each pattern is what makes a root of 2000 files quick.
func secret(text []byte, token bool) bool {
	return bytes.Contains(text, []byte("PRIVATE KEY-----")) && privateKey.Match(text) || token && hasToken(text)
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
