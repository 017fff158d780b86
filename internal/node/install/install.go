// Package install writes a disk image to the disk of a machine that booted by network, or from
// a medium, to be installed, puts the machine's own credentials into it, and reboots. It knows no
// cluster: the machine that it leaves behind is a node, not this.
package install

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/imgbuild/imgbuild/internal/medium"
	"github.com/imgbuild/imgbuild/internal/pagecache"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// Runner starts a program of the node; the output is both streams.
type Runner interface {
	Run(ctx context.Context, name string, args ...string) (output string, err error)
}

// Installer is one run. Root is "" on a machine; tests put a folder there.
type Installer struct {
	Root       string
	Runner     Runner
	Console    io.Writer
	Credential string // folder of systemd's credentials
}

// Order is what the credential imgbuild.install says.
type Order struct {
	Disk   string `json:"disk"`            // the device that is overwritten
	URL    string `json:"url"`             // of the disk image, packed by zstd; empty: it is on the medium
	SHA256 string `json:"sha256"`          // of the disk image, hex
	Size   int64  `json:"size"`            // of it, bytes
	Done   string `json:"done"`            // URL that hears by a POST that the disk is written; empty: nobody
	Again  bool   `json:"again,omitempty"` // overwrite the disk although it has this image already
}

// Credentials that are the installer's, and not the installed machine's.
const (
	OrderCredential = "imgbuild.install" // #nosec G101 -- a name
	varCredential   = "imgbuild.var"     // #nosec G101 -- a name
)

// tableSize is how much of the disk is written last: with the partition table in it, a
// disk that is half written boots nothing.
const tableSize = 1 << 20

// Run writes a disk image to the machine's disk, reads it back, puts the machine's
// own credentials into its EFI system partition, and reboots. What had been on the disk
// is gone, as soon as the image's first byte has come. On a medium that brings no order it
// writes nothing, and says what to do.
func (a *Installer) Run(ctx context.Context) error {
	in, err := a.order()
	if errors.Is(err, os.ErrNotExist) && a.onMedium() {
		a.guide()
		return nil
	}
	if err != nil {
		return err
	}
	if err := a.await(ctx, in.Disk); err != nil {
		return err
	}
	if in.URL == "" {
		if may, err := a.mayWrite(in); err != nil || !may {
			return err
		}
	}
	a.tell("writing %s to %s, which loses all it had", in.from(), in.Disk)
	if err := a.writeDisk(ctx, in); err != nil {
		return fmt.Errorf("writing %s: %w", in.Disk, err)
	}
	if err := a.stampDisk(ctx, in.Disk); err != nil {
		err = errors.Join(err, a.spoil(in.Disk))
		return fmt.Errorf("writing the machine's settings to %s: %w", in.Disk, err)
	}
	if in.URL == "" {
		if err := a.bootFrom(in.Disk); err != nil {
			a.tell("firmware does not learn to boot %s (take the medium out): %v", in.Disk, err)
		}
	}
	if in.Done != "" {
		if err := report(ctx, in.Done); err != nil {
			a.tell("the server does not hear that it is done: %v", err)
		}
	}
	a.tell("%s is written; rebooting", in.Disk)
	out, err := a.Runner.Run(ctx, "systemctl", "reboot", "--no-block")
	if err != nil {
		return fmt.Errorf("rebooting: %w: %s", err, lastLine(out))
	}
	return nil
}

// order reads what the machine is to do.
func (a *Installer) order() (in Order, err error) {
	text, err := os.ReadFile(filepath.Join(a.Credential, OrderCredential)) // #nosec G304 -- systemd's folder
	if err != nil {
		return in, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return in, fmt.Errorf("the credential %s: %w", OrderCredential, err)
	}
	return in, nil
}

// from is what the image is called.
func (in Order) from() string { return cmp.Or(in.URL, "the medium's image") }

func (a *Installer) tell(format string, args ...any) {
	_, _ = fmt.Fprintf(a.Console, format+"\n", args...)
}

// diskWait is how long a disk may take to come up.
const diskWait = time.Minute

func (a *Installer) await(ctx context.Context, device string) error {
	ctx, cancel := context.WithTimeout(ctx, diskWait)
	defer cancel()
	for {
		if _, err := os.Stat(filepath.Join(a.Root, device)); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("this machine has no %s within %v: name the right one", device, diskWait)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// writeDisk fetches the image onto the disk. It must be as large and have the digest that
// was said, as it comes and as it is read back.
func (a *Installer) writeDisk(ctx context.Context, in Order) error {
	disk, err := os.OpenFile(filepath.Join(a.Root, in.Disk), os.O_RDWR|os.O_EXCL, 0) // #nosec G304 -- as the operator said; O_EXCL: nobody has mounted it
	if err != nil {
		return err
	}
	defer disk.Close() //nolint:errcheck // synced below
	if room, err := disk.Seek(0, io.SeekEnd); err != nil || room < in.Size || in.Size < 2*tableSize {
		return fmt.Errorf("it has %d bytes, the image takes %d: %w", room, in.Size, errors.Join(err, errors.New("name a larger disk")))
	}
	image, err := a.open(ctx, in)
	if err != nil {
		return err
	}
	defer image.Close() //nolint:errcheck // read only
	first := make([]byte, tableSize)
	if _, err := io.ReadFull(image, first); err != nil {
		return fmt.Errorf("%s: %w", in.from(), err)
	}
	if _, err := disk.WriteAt(make([]byte, tableSize), 0); err != nil {
		return err
	}
	sum := sha256.New()
	sum.Write(first)
	if err := a.fill(disk, io.TeeReader(io.LimitReader(image, in.Size-tableSize+1), sum), in.Size); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != in.SHA256 {
		return fmt.Errorf("%s has the digest %s, want %s", in.from(), got, in.SHA256)
	}
	if err := errors.Join(disk.Sync(), pagecache.Drop(disk)); err != nil {
		return err
	}
	a.tell("reading %s back", in.Disk)
	again := sha256.New()
	again.Write(first)
	if _, err := io.Copy(again, io.NewSectionReader(disk, tableSize, in.Size-tableSize)); err != nil {
		return err
	}
	if got := hex.EncodeToString(again.Sum(nil)); got != in.SHA256 {
		return fmt.Errorf("read back, it has the digest %s, want %s: the disk is broken", got, in.SHA256)
	}
	_, err = disk.WriteAt(first, 0)
	return errors.Join(err, disk.Sync())
}

// open is the image as it is on a disk.
func (a *Installer) open(ctx context.Context, in Order) (io.ReadCloser, error) {
	if in.URL == "" {
		return os.Open(filepath.Join(a.Root, medium.Image)) // #nosec G304 -- a fixed place
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, in.URL, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s: the server answers %s", in.URL, resp.Status), resp.Body.Close())
	}
	z, err := zstd.NewReader(resp.Body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	return unpacked{z, resp.Body}, nil
}

// unpacked is a body that is unpacked as it comes.
type unpacked struct {
	*zstd.Decoder
	body io.Closer
}

// Close implements io.Closer.
func (u unpacked) Close() error {
	u.Decoder.Close()
	return u.body.Close()
}

// spoil takes the partition table from a disk that is not finished: it boots nothing.
func (a *Installer) spoil(name string) error {
	disk, err := os.OpenFile(filepath.Join(a.Root, name), os.O_WRONLY|os.O_EXCL, 0) // #nosec G304 -- the disk that was written just now
	if err != nil {
		return err
	}
	_, err = disk.WriteAt(make([]byte, tableSize), 0)
	return errors.Join(err, disk.Sync(), disk.Close())
}

// fill writes all but the beginning, and says how far it is.
func (a *Installer) fill(disk *os.File, r io.Reader, size int64) error {
	buf, told := make([]byte, tableSize), repro.Now()
	for at := int64(tableSize); ; {
		n, err := io.ReadFull(r, buf)
		if at+int64(n) > size {
			return fmt.Errorf("the image is larger than the %d bytes that were said", size)
		}
		if _, err := disk.WriteAt(buf[:n], at); err != nil {
			return err
		}
		at += int64(n)
		if repro.Now().Sub(told) > 5*time.Second {
			told = repro.Now()
			a.tell("%d of %d MiB", at>>20, size>>20)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			if at != size {
				return fmt.Errorf("the image ends after %d of %d bytes", at, size)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// stampDisk does on the machine what `imgbuild stamp` does to a copy of an image.
func (a *Installer) stampDisk(ctx context.Context, disk string) error {
	files, err := filepath.Glob(filepath.Join(a.Credential, "*"))
	if err != nil {
		return err
	}
	var own []string
	for _, file := range files {
		if name := filepath.Base(file); name != OrderCredential && name != varCredential {
			own = append(own, file)
		}
	}
	if len(own) == 0 {
		return nil
	}
	dir := filepath.Join(a.Root, "run/imgbuild/esp")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if out, err := a.Runner.Run(ctx, "blockdev", "--rereadpt", disk); err != nil {
		return fmt.Errorf("reading the partition table again: %w: %s", err, lastLine(out))
	}
	esp := partition(disk, 1)
	if err := a.await(ctx, esp); err != nil {
		return err
	}
	if out, err := a.Runner.Run(ctx, "mount", "-t", "vfat", "-o", "nosuid,nodev,noexec", esp, dir); err != nil {
		return fmt.Errorf("mounting the EFI system partition: %w: %s", err, lastLine(out))
	}
	to := filepath.Join(dir, "loader/credentials")
	err = os.MkdirAll(to, 0o700)
	for _, file := range own {
		text, rerr := os.ReadFile(file) // #nosec G304 -- systemd's folder
		err = errors.Join(err, rerr)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, filepath.Base(file)+".cred"), text, 0o600)
		}
	}
	if out, uerr := a.Runner.Run(ctx, "umount", dir); uerr != nil {
		err = errors.Join(err, fmt.Errorf("unmounting the EFI system partition: %w: %s", uerr, lastLine(out)))
	}
	return err
}

// partition is the device of a disk's partition, as the kernel and udev name it.
func partition(disk string, n int) string {
	if strings.Contains(disk, "/dev/disk/") {
		return fmt.Sprintf("%s-part%d", disk, n)
	}
	if last := disk[len(disk)-1]; last >= '0' && last <= '9' {
		return fmt.Sprintf("%sp%d", disk, n)
	}
	return fmt.Sprintf("%s%d", disk, n)
}

// lastLine is the end of a program's output.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

func report(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing to read
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("the server answers %s", resp.Status)
	}
	return nil
}
