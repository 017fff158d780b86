package source

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/internal/store"
)

// evilImage is a registry that holds one image of an operating system, in which a word is another.
type evilImage struct {
	in, old, new string // a word of the config, the manifest or the index
	layer        func(tar []byte) []byte
	serve        func(w http.ResponseWriter, r *http.Request, text []byte) bool // in the place of what is asked for
}

func digestText(text []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(text)) }

func gzipped(text []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(text)
	_ = w.Close()
	return b.Bytes()
}

func zstded(text []byte) []byte {
	z, _ := zstd.NewWriter(nil)
	return z.EncodeAll(text, nil)
}

// tenGigabytes are of zeros, packed.
func tenGigabytes(pack func([]byte) []byte) func([]byte) []byte {
	return func([]byte) []byte { return bytes.Repeat(pack(make([]byte, 64<<20)), 160) }
}

func (e *evilImage) handler(t *testing.T) http.Handler {
	t.Helper()
	found := e.in == ""
	word := func(in, text string) []byte {
		if e.in == in {
			found = strings.Contains(text, e.old)
			text = strings.Replace(text, e.old, e.new, 1)
		}
		return []byte(text)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: "etc/os-release", Mode: 0o644, Size: 5, Typeflag: tar.TypeReg})
	_, _ = w.Write([]byte("ID=x\n"))
	_ = w.Close()
	layer := gzipped(b.Bytes())
	if e.layer != nil {
		layer = e.layer(b.Bytes())
	}
	config := word("config", fmt.Sprintf(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%q]}}`, digestText(b.Bytes())))
	manifest := word("manifest", fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":%d,"digest":%q},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":%d,"digest":%q}]}`,
		len(config), digestText(config), len(layer), digestText(layer)))
	index := word("index", fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":%d,"digest":%q,"platform":{"architecture":"amd64","os":"linux"}}]}`, len(manifest), digestText(manifest)))
	if !found {
		t.Fatalf("nothing has the word %q", e.old)
	}
	held := map[string][]byte{"tag": index}
	for _, text := range [][]byte{layer, config, manifest, index} {
		held[digestText(text)] = text
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := held[r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]]
		switch {
		case e.serve != nil && e.serve(w, r, text) || r.URL.Path == "/v2/":
		case !ok:
			w.WriteHeader(http.StatusNotFound)
		default:
			_, media, _ := strings.Cut(string(text), `"mediaType":"`)
			media, _, _ = strings.Cut(media, `"`)
			if strings.Contains(r.URL.Path, "/manifests/") {
				w.Header().Set("Content-Type", media)
			}
			_, _ = w.Write(text)
		}
	})
}

func blobsAs(text func(is []byte) []byte) func(http.ResponseWriter, *http.Request, []byte) bool {
	return func(w http.ResponseWriter, r *http.Request, is []byte) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		_, _ = w.Write(text(bytes.Clone(is)))
		return true
	}
}

func answers(code int) func(http.ResponseWriter, *http.Request, []byte) bool {
	return func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(code)
		return true
	}
}

// busy answers every second request alone.
func busy() func(http.ResponseWriter, *http.Request, []byte) bool {
	n := 0
	return func(w http.ResponseWriter, r *http.Request, text []byte) bool {
		n++
		return n%2 == 1 && answers([]int{http.StatusTooManyRequests, http.StatusServiceUnavailable}[n/2%2])(w, r, text)
	}
}

var aa = strings.Repeat("a", 64)

var hostileImages = map[string]struct {
	evilImage
	want string // in the error; empty: it is harmless
}{
	"nothing evil":                 {evilImage{}, ""},
	"a busy registry":              {evilImage{serve: busy()}, ""},
	"gzip said to be plain":        {evilImage{in: "manifest", old: "tar+gzip", new: "tar"}, ""},
	"zstd said to be gzip":         {evilImage{layer: zstded}, ""},
	"plain said to be gzip":        {evilImage{layer: bytes.Clone}, ""},
	"gzip in two members":          {evilImage{layer: func(t []byte) []byte { return append(gzipped(t[:600]), gzipped(t[600:])...) }}, ""},
	"annotations with newlines":    {evilImage{in: "manifest", old: `"layers"`, new: `"annotations":{"a\nb":"c\u001b[2J"},"layers"`}, ""},
	"two entries for one platform": {evilImage{in: "index", old: `]}`, new: `,{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":5,"digest":"sha256:` + aa + `","platform":{"architecture":"amd64","os":"linux"}}]}`}, ""},

	"ten gigabytes, by gzip":   {evilImage{layer: tenGigabytes(gzipped)}, "it holds more than"},
	"ten gigabytes, by zstd":   {evilImage{layer: tenGigabytes(zstded)}, "it holds more than"},
	"a zstd window of the sky": {evilImage{layer: func([]byte) []byte { return []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 1, 0, 0} }}, "window size exceeded"},
	"junk behind gzip":         {evilImage{layer: func(t []byte) []byte { return append(gzipped(t), "junk behind it"...) }}, "gzip: invalid header"},
	"half of a gzip":           {evilImage{layer: func(t []byte) []byte { return gzipped(t)[:60] }}, "unexpected EOF"},
	"another layer":            {evilImage{layer: func(t []byte) []byte { return gzipped(append(t, 0)) }}, "unpacking layer 0"},
	"another diff id":          {evilImage{in: "config", old: `"diff_ids":["sha256:`, new: `"diff_ids":["sha256:` + aa + `"],"x":["sha256:`}, "unpacking layer 0"},
	"no diff id":               {evilImage{in: "config", old: `"diff_ids":[`, new: `"diff_ids":[],"x":[`}, "diff"},
	"diff id a path":           {evilImage{in: "config", old: `"diff_ids":["sha256:`, new: `"diff_ids":["sha256:../../`}, "hash"},
	"config no JSON":           {evilImage{in: "config", old: "{", new: "<"}, "invalid character"},
	"config of a terabyte":     {evilImage{in: "manifest", old: `"size":`, new: `"size":1000000000000,"x":`}, "its config has"},
	"config negative":          {evilImage{in: "manifest", old: `"size":`, new: `"size":-`}, "its config has -"},
	"config smaller":           {evilImage{in: "manifest", old: `"size":`, new: `"size":5,"x":`}, "size"},
	"config not there":         {evilImage{in: "manifest", old: `"digest":"`, new: `"digest":"sha256:` + aa + `","x":"`}, "404"},
	"config of a node":         {evilImage{in: "manifest", old: "application/vnd.oci.image.config.v1+json", new: "application/vnd.imgbuild.manifest.v1+json"}, "`imgbuild pull` brings it"},
	"layer no file system":     {evilImage{in: "manifest", old: "application/vnd.oci.image.layer.v1.tar+gzip", new: "text/html"}, "no layer of a file system"},
	"layer elsewhere":          {evilImage{in: "manifest", old: `+gzip",`, new: `+gzip","urls":["http://169.254.169.254/"],`}, "lies elsewhere"},
	"layer of a petabyte":      {evilImage{in: "manifest", old: `+gzip","size":`, new: `+gzip","size":1000000000000000,"x":`}, "bytes, at most"},
	"layer negative":           {evilImage{in: "manifest", old: `+gzip","size":`, new: `+gzip","size":-`}, "bytes, at most"},
	"layer larger":             {evilImage{in: "manifest", old: `+gzip","size":`, new: `+gzip","size":5,"x":`}, "size"},
	"layer smaller":            {evilImage{in: "manifest", old: `+gzip","size":`, new: `+gzip","size":5000,"x":`}, "size"},
	"layer of MD5":             {evilImage{in: "manifest", old: `+gzip","size":`, new: `+gzip","digest":"md5:` + aa[:32] + `","size":1,"x":{"size":1},"digest":"md5:` + aa[:32] + `","y":`}, "md5"},
	"manifest no JSON":         {evilImage{in: "manifest", old: "{", new: "<"}, "invalid character"},
	"index no JSON":            {evilImage{in: "index", old: `"manifests"`, new: `<`}, "invalid character"},
	"index of nothing":         {evilImage{in: "index", old: `"manifests":[`, new: `"manifests":[],"x":[`}, "no child with platform"},
	"index for another":        {evilImage{in: "index", old: "amd64", new: "s390x"}, "no child with platform"},
	"entry of MD5":             {evilImage{in: "index", old: "sha256:", new: "md5:"}, "md5"},
	"entry a path":             {evilImage{in: "index", old: "sha256:", new: "sha256:../../"}, "hash"},
	"entry not there":          {evilImage{in: "index", old: `"digest":"`, new: `"digest":"sha256:` + aa + `","x":"`}, "404"},
	"blobs with a bit turned":  {evilImage{serve: blobsAs(func(is []byte) []byte { is[0] ^= 1; return is })}, "checksum"},
	"blobs with a byte less":   {evilImage{serve: blobsAs(func(is []byte) []byte { return is[1:] })}, "size"},
	"blobs with a byte more":   {evilImage{serve: blobsAs(func(is []byte) []byte { return append(is, 1) })}, "size"},
	"errors for ever":          {evilImage{serve: answers(http.StatusBadGateway)}, "502"},
	"who are you":              {evilImage{serve: answers(http.StatusUnauthorized)}, "401"},
	"to the cloud's metadata": {evilImage{serve: func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		http.Redirect(w, r, "http://169.254.169.254/latest", http.StatusTemporaryRedirect)
		return true
	}}, "169.254.169.254"},
}

// TestHostileImages has registries hold images that no builder makes: they are refused, fill no disk, and
// nothing is written but blobs into the store.
func TestHostileImages(t *testing.T) {
	for name, c := range hostileImages {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(c.handler(t))
			defer s.Close()
			t.Setenv("DOCKER_CONFIG", t.TempDir())
			dir := t.TempDir()
			kept, err := store.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			o, _ := options(t)
			o.Store = kept
			pins, err := New(o).ResolveBase(t.Context(), lock.Request{Kind: lock.KindBase, Name: "base", Source: "oci", Args: []string{strings.TrimPrefix(s.URL, "http://") + "/os:tag"}})
			if err == nil {
				_, err = New(o).Base(t.Context(), pins)
			}
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want one with %q", err, c.want)
			}
			var left int64
			_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, _ error) error {
				if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
					left += info.Size()
				}
				return nil
			})
			if left > 16<<20 {
				t.Errorf("%d bytes are left", left)
			}
		})
	}
	t.Logf("%d cases", len(hostileImages))
}
