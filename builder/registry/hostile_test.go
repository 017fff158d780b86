package registry_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/imgbuild/imgbuild/builder"
	"github.com/imgbuild/imgbuild/builder/registry"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/report"
)

const kib = 1 << 10

// evil is a registry that holds one build, worker for amd64, in which a word is another.
type evil struct {
	in, old, new string // a word of the listing, the manifest or the index
	pack         func(plain []byte) []byte
	serve        func(w http.ResponseWriter, r *http.Request, text []byte) bool // in the place of what is asked for
}

func digest(text []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(text)) }

// handler makes the registry.
func (e *evil) handler(t *testing.T) http.Handler {
	t.Helper()
	found := false
	word := func(in, text string) []byte {
		if e.in != in || e.old != "" && !strings.Contains(text, e.old) {
			return []byte(text)
		}
		found = true
		if e.old == "" {
			return []byte(e.new)
		}
		return []byte(strings.Replace(text, e.old, e.new, 1))
	}
	zstdOf := e.pack
	if zstdOf == nil {
		zstdOf = frame
	}
	disk := make([]byte, 300*kib)
	a, b := bytes.Repeat([]byte("one"), 20*kib), bytes.Repeat([]byte("two"), 20*kib)
	copy(disk, a)
	copy(disk[128*kib:], b)
	packedA, packedB, bill := zstdOf(a), zstdOf(b), []byte("{}")
	listing := word("listing", fmt.Sprintf(`{"id":"aa","role":"worker","arch":"amd64","kubernetes":"1.37.2","outputs":[{"format":"raw","file":"worker.raw","size":%d,"sha256":"%s"}],"documents":[{"format":"spdx","file":"worker.spdx.json","size":2,"sha256":"%s"}]}`,
		len(disk), digest(disk)[7:], digest(bill)[7:]))
	chunk := func(packed []byte, at int, plain []byte) string {
		return fmt.Sprintf(`{"mediaType":"application/vnd.imgbuild.chunk.v1+zstd","size":%d,"digest":"%s","annotations":{"dev.imgbuild.chunk.file":"worker.raw","dev.imgbuild.chunk.offset":"%d","dev.imgbuild.chunk.size":"%d"}}`, len(packed), digest(packed), at, len(plain))
	}
	manifest := word("manifest", fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.imgbuild.image.v1","config":{"mediaType":"application/vnd.imgbuild.manifest.v1+json","size":%d,"digest":"%s","annotations":{"org.opencontainers.image.title":"worker.manifest.json"}},"layers":[{"mediaType":"application/spdx+json","size":2,"digest":"%s","annotations":{"org.opencontainers.image.title":"worker.spdx.json"}},%s,%s]}`,
		len(listing), digest(listing), digest(bill), chunk(packedA, 0, a), chunk(packedB, 128*kib, b)))
	index := word("index", fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","artifactType":"application/vnd.imgbuild.index.v1","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.imgbuild.image.v1","size":%d,"digest":"%s","platform":{"architecture":"amd64","os":"linux"},"annotations":{"org.opencontainers.image.title":"worker","dev.imgbuild.role":"worker"}}]}`,
		len(manifest), digest(manifest)))
	if e.in != "" && !found {
		t.Fatalf("nothing has the word %q", e.old)
	}
	held := map[string][]byte{"tag": index}
	for _, text := range [][]byte{packedA, packedB, bill, listing, manifest, index} {
		held[digest(text)] = text
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := held[r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]]
		switch {
		case e.serve != nil && e.serve(w, r, text):
		case r.URL.Path == "/v2/":
		case !ok:
			w.WriteHeader(http.StatusNotFound)
		default:
			if strings.Contains(r.URL.Path, "/manifests/") {
				w.Header().Set("Content-Type", mediaOf(text))
			}
			_, _ = w.Write(text)
		}
	})
}

func mediaOf(text []byte) string {
	_, after, _ := strings.Cut(string(text), `"mediaType":"`)
	media, _, _ := strings.Cut(after, `"`)
	return media
}

func frame(plain []byte) []byte {
	z, _ := zstd.NewWriter(nil)
	return z.EncodeAll(plain, nil)
}

// streamed packs n zeros, saying nowhere how many.
func streamed(n int64, o ...zstd.EOption) []byte {
	var b bytes.Buffer
	z, _ := zstd.NewWriter(&b, o...)
	_, _ = io.CopyN(z, zeros{}, n)
	_ = z.Close()
	return b.Bytes()
}

var bomb = sync.OnceValue(func() []byte { return streamed(1 << 30) })

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// pullFrom pulls with all waits short.
func pullFrom(t *testing.T, h http.Handler, out, cache string) error {
	t.Helper()
	s := httptest.NewServer(h)
	defer s.Close()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	_, err := builder.Pull(t.Context(), strings.TrimPrefix(s.URL, "http://")+"/nodes:tag", registry.Wanted{}, out, cache,
		registry.Options{Report: report.Discard{}, Retries: 1, Backoff: time.Millisecond})
	return err
}

const (
	spdxType  = `"application/spdx+json"`
	chunkType = `"application/vnd.imgbuild.chunk.v1+zstd"`
	title     = `"org.opencontainers.image.title"`
)

var hostile = []struct {
	name string
	evil
	want string
	kind fault.Kind
}{
	// names
	{"name up a folder", evil{in: "listing", old: "worker.raw", new: "../worker.raw"}, "is not what an output", fault.Verify},
	{"name absolute", evil{in: "listing", old: "worker.raw", new: "/etc/worker.raw"}, "is not what an output", fault.Verify},
	{"name in a folder", evil{in: "listing", old: "worker.raw", new: "a/worker.raw"}, "is not what an output", fault.Verify},
	{"name with a backslash", evil{in: "listing", old: "worker.raw", new: `..\\worker.raw`}, "is not what an output", fault.Verify},
	{"name dot dot", evil{in: "listing", old: "worker.raw", new: ".."}, "is not what an output", fault.Verify},
	{"name dot", evil{in: "listing", old: "worker.raw", new: "."}, "is not what an output", fault.Verify},
	{"name hidden", evil{in: "listing", old: "worker.raw", new: ".bashrc"}, "is not what an output", fault.Verify},
	{"name with NUL", evil{in: "listing", old: "worker.raw", new: `worker\u0000.raw`}, "is not what an output", fault.Verify},
	{"name with a newline", evil{in: "listing", old: "worker.raw", new: `worker\n.raw`}, "is not what an output", fault.Verify},
	{"name from right to left", evil{in: "listing", old: "worker.raw", new: `worker\u202e.raw`}, "is not what an output", fault.Verify},
	{"name with an escape", evil{in: "listing", old: "worker.raw", new: `\u001b[2Jworker.raw`}, "is not what an output", fault.Verify},
	{"name in full width", evil{in: "listing", old: "worker.raw", new: "．．／worker.raw"}, "is not what an output", fault.Verify},
	{"name empty", evil{in: "listing", old: "worker.raw", new: ""}, "is not what an output", fault.Verify},
	{"name too long", evil{in: "listing", old: "worker.raw", new: strings.Repeat("a", 300)}, "is not what an output", fault.Verify},
	{"name with a blank", evil{in: "listing", old: "worker.raw", new: "worker.raw "}, "is not what an output", fault.Verify},
	{"name an option", evil{in: "listing", old: "worker.raw", new: "-rf"}, "is not what an output", fault.Verify},
	{"name a home", evil{in: "listing", old: "worker.raw", new: "~root"}, "is not what an output", fault.Verify},
	{"output is the lock", evil{in: "listing", old: "worker.raw", new: "imgbuild.lock"}, "is not what an output", fault.Verify},
	{"output is a manifest", evil{in: "listing", old: "worker.raw", new: "master.manifest.json"}, "is not what an output", fault.Verify},
	{"output is a signature", evil{in: "listing", old: "worker.raw", new: "master.raw.sig"}, "is not what an output", fault.Verify},
	{"document up a folder", evil{in: "listing", old: "worker.spdx.json", new: "../../x"}, "is not what an output", fault.Verify},
	{"output is a document", evil{in: "listing", old: "worker.raw", new: "worker.spdx.json"}, "twice", fault.Verify},
	// the listing
	{"listing no JSON", evil{in: "listing", new: "worker"}, "invalid character", fault.Verify},
	{"listing nested deep", evil{in: "listing", new: strings.Repeat("[", 100_000)}, "exceeded max depth", fault.Verify},
	{"listing null", evil{in: "listing", new: "null"}, "role \"\"", fault.Verify},
	{"listing empty", evil{in: "listing", new: "{}"}, "role \"\"", fault.Verify},
	{"role with a newline", evil{in: "listing", old: `"role":"worker"`, new: `"role":"w\nx"`}, "role", fault.Verify},
	{"arch a path", evil{in: "listing", old: `"arch":"amd64"`, new: `"arch":"../x"`}, "architecture", fault.Verify},
	{"size negative", evil{in: "listing", old: `"size":307200`, new: `"size":-1`}, "has -1 bytes", fault.Verify},
	{"size of the sky", evil{in: "listing", old: `"size":307200`, new: `"size":9223372036854775807`}, "at most", fault.Verify},
	{"size beyond all numbers", evil{in: "listing", old: `"size":307200`, new: `"size":1e30`}, "cannot unmarshal", fault.Verify},
	{"size over the limit", evil{in: "listing", old: `"size":307200`, new: `"size":68719476737`}, "at most", fault.Verify},
	{"size a text", evil{in: "listing", old: `"size":307200`, new: `"size":"307200"`}, "cannot unmarshal", fault.Verify},
	{"document of a gigabyte", evil{in: "listing", old: `"size":2`, new: `"size":1000000000`}, "at most", fault.Verify},
	{"sizes that add up", evil{in: "listing", old: `"outputs":[`, new: `"outputs":[{"file":"a","size":68719476736,"sha256":"` + strings.Repeat("a", 64) + `"},`}, "at most", fault.Verify},
	{"sha256 short", evil{in: "listing", old: `"sha256":"`, new: `"sha256":"aa","x":"`}, "sha256", fault.Verify},
	{"sha256 none", evil{in: "listing", old: `"sha256"`, new: `"sha1"`}, "sha256", fault.Verify},
	{"sha256 of another disk", evil{in: "listing", old: `"sha256":"`, new: `"sha256":"` + strings.Repeat("a", 64) + `","x":"`}, "its manifest says", fault.Verify},
	{"larger than its chunks", evil{in: "listing", old: `"size":307200`, new: `"size":307201`}, "its manifest says", fault.Verify},
	// the OCI manifest
	{"schema 1", evil{in: "manifest", old: `"schemaVersion":2`, new: `"schemaVersion":1`}, "no build of imgbuild", fault.Verify},
	{"Docker's manifest", evil{in: "manifest", old: "application/vnd.oci.image.manifest.v1+json", new: "application/vnd.docker.distribution.manifest.v2+json"}, "no build of imgbuild", fault.Verify},
	{"manifest is an index", evil{in: "manifest", old: "application/vnd.oci.image.manifest.v1+json", new: "application/vnd.oci.image.index.v1+json"}, "no build of imgbuild", fault.Verify},
	{"another artefact", evil{in: "manifest", old: "application/vnd.imgbuild.image.v1", new: "application/vnd.cncf.helm.config.v1+json"}, "no build of imgbuild", fault.Verify},
	{"no artefact", evil{in: "manifest", old: `"artifactType"`, new: `"x"`}, "no build of imgbuild", fault.Verify},
	{"manifest no JSON", evil{in: "manifest", new: "<html>"}, "invalid character", fault.Verify},
	{"config of a container", evil{in: "manifest", old: "application/vnd.imgbuild.manifest.v1+json", new: "application/vnd.oci.image.config.v1+json"}, "no build of imgbuild", fault.Verify},
	{"config up a folder", evil{in: "manifest", old: `"worker.manifest.json"`, new: `"../worker.manifest.json"`}, "is not what a manifest", fault.Verify},
	{"config of no name", evil{in: "manifest", old: `"worker.manifest.json"`, new: `""`}, "is not what a manifest", fault.Verify},
	{"config all ending", evil{in: "manifest", old: `"worker.manifest.json"`, new: `".manifest.json"`}, "is not what a manifest", fault.Verify},
	{"config of another name", evil{in: "manifest", old: `"worker.manifest.json"`, new: `"master.manifest.json"`}, "the index says worker", fault.Verify},
	{"config negative", evil{in: "manifest", old: `"size":`, new: `"size":-`}, "bytes, at most", fault.Verify},
	{"config of a terabyte", evil{in: "manifest", old: `"size":`, new: `"size":1000000000000,"x":`}, "bytes, at most", fault.Verify},
	{"config larger than it is", evil{in: "manifest", old: `"size":`, new: `"size":5000,"x":`}, "want 5000 bytes", fault.Fetch},
	{"config smaller than it is", evil{in: "manifest", old: `"size":`, new: `"size":5,"x":`}, "want 5 bytes", fault.Fetch},
	{"config not there", evil{in: "manifest", old: `"digest":"`, new: `"digest":"sha256:` + strings.Repeat("a", 64) + `","x":"`}, "not found", fault.Fetch},
	{"digest of MD5", evil{in: "manifest", old: `"digest":"sha256:`, new: `"digest":"md5:`}, "md5", fault.Verify},
	{"digest a path", evil{in: "manifest", old: `"digest":"sha256:`, new: `"digest":"sha256:../../`}, "hash", fault.Verify},
	{"digest none", evil{in: "manifest", old: `"digest":"`, new: `"x":"`}, "digest", fault.Verify},
	// layers
	{"no layers", evil{in: "manifest", old: `"layers":[`, new: `"layers":[],"x":[`}, "lists worker.spdx.json, which is not there", fault.Verify},
	{"layer a tar", evil{in: "manifest", old: chunkType, new: `"application/vnd.oci.image.layer.v1.tar+gzip"`}, "is of the type", fault.Verify},
	{"layer from elsewhere", evil{in: "manifest", old: chunkType, new: `"application/vnd.oci.image.layer.nondistributable.v1.tar","urls":["http://169.254.169.254/"]`}, "is of the type", fault.Verify},
	{"layer of no type", evil{in: "manifest", old: chunkType, new: `""`}, "is of the type", fault.Verify},
	{"title up a folder", evil{in: "manifest", old: `"worker.spdx.json"`, new: `"../worker.spdx.json"`}, "is of the type", fault.Verify},
	{"file up a folder", evil{in: "manifest", old: `"layers":[`, new: `"layers":[{"mediaType":"application/vnd.imgbuild.file.v1","size":2,"digest":"` + digest([]byte("{}")) + `","annotations":{` + title + `:"../x"}},`}, "is no file that lies beside", fault.Verify},
	{"file that nobody lists", evil{in: "manifest", old: `"layers":[`, new: `"layers":[{"mediaType":"application/vnd.imgbuild.file.v1","size":2,"digest":"` + digest([]byte("{}")) + `","annotations":{` + title + `:"authorized_keys"}},`}, "is no file that lies beside", fault.Verify},
	{"signature of a stranger", evil{in: "manifest", old: `"layers":[`, new: `"layers":[{"mediaType":"application/vnd.imgbuild.file.v1","size":2,"digest":"` + digest([]byte("{}")) + `","annotations":{` + title + `:"../worker.raw.sig"}},`}, "is no file that lies beside", fault.Verify},
	{"output as it is", evil{in: "manifest", old: `"layers":[`, new: `"layers":[{"mediaType":"application/vnd.imgbuild.file.v1","size":2,"digest":"` + digest([]byte("{}")) + `","annotations":{` + title + `:"worker.raw"}},`}, "is no file that lies beside", fault.Verify},
	{"title twice", evil{in: "manifest", old: `"layers":[`, new: `"layers":[{"mediaType":` + spdxType + `,"size":2,"digest":"` + digest([]byte("{}")) + `","annotations":{` + title + `:"worker.spdx.json"}},`}, "twice", fault.Verify},
	{"no title", evil{in: "manifest", old: title + `:"worker.spdx.json"`, new: `"x":"y"`}, "is of the type", fault.Verify},
	{"no annotations", evil{in: "manifest", old: `"annotations":{"dev`, new: `"x":{"dev`}, "a chunk of \"\"", fault.Verify},
	{"document of another type", evil{in: "manifest", old: spdxType, new: `"text/html"`}, "is of the type", fault.Verify},
	{"document larger than listed", evil{in: "manifest", old: spdxType + `,"size":2`, new: spdxType + `,"size":3`}, "is not what", fault.Verify},
	{"document of another digest", evil{in: "manifest", old: digest([]byte("{}")), new: "sha256:" + strings.Repeat("a", 64)}, "is not what", fault.Verify},
	{"chunk of what nobody lists", evil{in: "manifest", old: `"worker.raw"`, new: `"master.raw"`}, "is no output", fault.Verify},
	{"chunk up a folder", evil{in: "manifest", old: `"worker.raw"`, new: `"../worker.raw"`}, "is no output", fault.Verify},
	{"chunk of a document", evil{in: "manifest", old: `"worker.raw"`, new: `"worker.spdx.json"`}, "is no output", fault.Verify},
	{"offset negative", evil{in: "manifest", old: `offset":"131072"`, new: `offset":"-1"`}, "is no number", fault.Verify},
	{"offset with a sign", evil{in: "manifest", old: `offset":"131072"`, new: `offset":"+131072"`}, "is no number", fault.Verify},
	{"offset with a blank", evil{in: "manifest", old: `offset":"131072"`, new: `offset":" 131072"`}, "is no number", fault.Verify},
	{"offset hexadecimal", evil{in: "manifest", old: `offset":"131072"`, new: `offset":"0x20000"`}, "is no number", fault.Verify},
	{"offset with zeros", evil{in: "manifest", old: `offset":"131072"`, new: `offset":"0131072"`}, "is no number", fault.Verify},
	{"offset none", evil{in: "manifest", old: `"dev.imgbuild.chunk.offset"`, new: `"x"`}, "is no number", fault.Verify},
	{"offset of the sky", evil{in: "manifest", old: `offset":"131072"`, new: `offset":"9223372036854775807"`}, "which has 307200", fault.Verify},
	{"offset beyond all numbers", evil{in: "manifest", old: `offset":"131072"`, new: `offset":"9223372036854775808"`}, "is no number", fault.Verify},
	{"behind the end", evil{in: "manifest", old: `offset":"131072"`, new: `offset":"307200"`}, "which has 307200", fault.Verify},
	{"over the end", evil{in: "manifest", old: `offset":"131072"`, new: `offset":"262144"`}, "which has 307200", fault.Verify},
	{"overlap", evil{in: "manifest", old: `offset":"131072"`, new: `offset":"61439"`}, "twice", fault.Verify},
	{"two at one place", evil{in: "manifest", old: `offset":"131072"`, new: `offset":"0"`}, "twice", fault.Verify},
	{"the wrong way round", evil{in: "manifest", old: `offset":"0"`, new: `offset":"200000"`}, "twice", fault.Verify},
	{"a gap where data are", evil{in: "manifest", old: `offset":"131072"`, new: `offset":"131073"`}, "its manifest says", fault.Verify},
	{"chunk of no bytes", evil{in: "manifest", old: `chunk.size":"61440"`, new: `chunk.size":"0"`}, "a chunk of 0 bytes", fault.Verify},
	{"chunk negative", evil{in: "manifest", old: `chunk.size":"61440"`, new: `chunk.size":"-61440"`}, "is no number", fault.Verify},
	{"chunk too large", evil{in: "manifest", old: `chunk.size":"61440"`, new: `chunk.size":"1073741824"`}, "at most", fault.Verify},
	{"chunk smaller than it is", evil{in: "manifest", old: `chunk.size":"61440"`, new: `chunk.size":"61439"`}, "the chunk of worker.raw at 0", fault.Verify},
	{"chunk larger than it is", evil{in: "manifest", old: `chunk.size":"61440"`, new: `chunk.size":"61441"`}, "the chunk of worker.raw at 0", fault.Verify},
	{"packed too large", evil{in: "manifest", old: chunkType + `,"size":`, new: chunkType + `,"size":1000000000,"x":`}, "at most", fault.Verify},
	{"packed negative", evil{in: "manifest", old: chunkType + `,"size":`, new: chunkType + `,"size":-`}, "bytes with the digest", fault.Verify},
	{"packed larger than it is", evil{in: "manifest", old: chunkType + `,"size":`, new: chunkType + `,"size":5000,"x":`}, "want 5000 bytes", fault.Fetch},
	{"manifest of five megabytes", evil{in: "manifest", old: `"layers":[`, new: `"x":"` + strings.Repeat("x", 5<<20) + `","layers":[`}, "at most", fault.Verify},
	// what chunks hold
	{"a gigabyte of zeros", evil{pack: func([]byte) []byte { return bomb() }}, "the chunk of worker.raw", fault.Verify},
	{"a large window", evil{pack: func([]byte) []byte { return streamed(32<<20, zstd.WithWindowSize(32<<20)) }}, "the chunk of worker.raw", fault.Verify},
	{"a thousand frames", evil{pack: func(p []byte) []byte { return bytes.Repeat(frame(p), 1000) }}, "the chunk of worker.raw", fault.Verify},
	{"no frame", evil{pack: bytes.Clone}, "the chunk of worker.raw", fault.Verify},
	{"half a frame", evil{pack: func(p []byte) []byte { f := frame(p); return f[:len(f)/2] }}, "the chunk of worker.raw", fault.Verify},
	{"junk behind the frame", evil{pack: func(p []byte) []byte { return append(frame(p), "junk"...) }}, "the chunk of worker.raw", fault.Verify},
	{"other bytes", evil{pack: func(p []byte) []byte { return frame(bytes.ToUpper(p)) }}, "its manifest says", fault.Verify},
	// the index
	{"index no JSON", evil{in: "index", new: "<html>"}, "invalid character", fault.Verify},
	{"index null", evil{in: "index", new: "null"}, "no builds of imgbuild", fault.Verify},
	{"index of no build", evil{in: "index", old: `"manifests":[`, new: `"manifests":[],"x":[`}, "empty", fault.Verify},
	{"Docker's list", evil{in: "index", old: "application/vnd.oci.image.index.v1+json", new: "application/vnd.docker.distribution.manifest.list.v2+json"}, "no builds of imgbuild", fault.Verify},
	{"index of another artefact", evil{in: "index", old: "application/vnd.imgbuild.index.v1", new: "x"}, "no builds of imgbuild", fault.Verify},
	{"index in an index", evil{in: "index", old: "application/vnd.oci.image.manifest.v1+json", new: "application/vnd.oci.image.index.v1+json"}, "no build", fault.Verify},
	{"entry of another artefact", evil{in: "index", old: "application/vnd.imgbuild.image.v1", new: "x"}, "no build", fault.Verify},
	{"entry for no platform", evil{in: "index", old: `"platform"`, new: `"x"`}, "no platform", fault.Verify},
	{"entry for Windows", evil{in: "index", old: `"os":"linux"`, new: `"os":"windows"`}, "no platform", fault.Verify},
	{"entry for a path", evil{in: "index", old: `"architecture":"amd64"`, new: `"architecture":"../x"`}, "no platform", fault.Verify},
	{"entry for another platform", evil{in: "index", old: `"architecture":"amd64"`, new: `"architecture":"arm64"`}, "the index says", fault.Verify},
	{"entry for another role", evil{in: "index", old: `role":"worker"`, new: `role":"master"`}, "the index says", fault.Verify},
	{"entry of another name", evil{in: "index", old: `title":"worker"`, new: `title":"master"`}, "the index says", fault.Verify},
	{"entry up a folder", evil{in: "index", old: `title":"worker"`, new: `title":"../worker"`}, "is called", fault.Verify},
	{"entry with a newline", evil{in: "index", old: `title":"worker"`, new: `title":"a\nb"`}, "is called", fault.Verify},
	{"entry of no role", evil{in: "index", old: `"dev.imgbuild.role"`, new: `"x"`}, "role", fault.Verify},
	{"entry of another size", evil{in: "index", old: `"size":`, new: `"size":1,"x":`}, "the index says 1", fault.Verify},
	{"entry negative", evil{in: "index", old: `"size":`, new: `"size":-`}, "at most", fault.Verify},
	{"entry of a gigabyte", evil{in: "index", old: `"size":`, new: `"size":1000000000,"x":`}, "at most", fault.Verify},
	{"entry not there", evil{in: "index", old: `"digest":"`, new: `"digest":"sha256:` + strings.Repeat("a", 64) + `","x":"`}, "404", fault.Fetch},
	{"entry of MD5", evil{in: "index", old: `"digest":"sha256:`, new: `"digest":"md5:`}, "md5", fault.Verify},
	{"entry twice", evil{in: "index", old: `"manifests":[`, new: `"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.imgbuild.image.v1","size":5,"digest":"` + digest(nil) + `","platform":{"architecture":"amd64","os":"linux"},"annotations":{"org.opencontainers.image.title":"worker","dev.imgbuild.role":"worker"}},`}, "twice", fault.Verify},
	{"index of five megabytes", evil{in: "index", old: `"manifests":[`, new: `"x":"` + strings.Repeat("x", 5<<20) + `","manifests":[`}, "at most", fault.Verify},
	// the server
	{"a bit of a blob", evil{serve: ofBlobs(func(w io.Writer, text []byte) { _, _ = w.Write(append([]byte{text[0] ^ 1}, text[1:]...)) })}, "not the bytes", fault.Fetch},
	{"a byte less", evil{serve: ofBlobs(func(w io.Writer, text []byte) { _, _ = w.Write(text[1:]) })}, "not the bytes", fault.Fetch},
	{"a byte more", evil{serve: ofBlobs(func(w io.Writer, text []byte) { _, _ = w.Write(append(text, 1)) })}, "not the bytes", fault.Fetch},
	{"without end", evil{serve: ofBlobs(func(w io.Writer, _ []byte) { _, _ = io.Copy(w, io.LimitReader(zeros{}, 1<<30)) })}, "not the bytes", fault.Fetch},
	{"another manifest", evil{serve: func(w http.ResponseWriter, r *http.Request, text []byte) bool {
		if !strings.Contains(r.URL.Path, "manifests/sha256:") {
			return false
		}
		_, _ = w.Write(append(text, ' '))
		return true
	}}, "does not match", fault.Fetch},
	{"errors for ever", evil{serve: status(http.StatusServiceUnavailable, "")}, "503", fault.Fetch},
	{"an error with an escape", evil{serve: status(http.StatusBadRequest, "{\"errors\":[{\"code\":\"X\",\"message\":\"\\u001b[2J\\nimgbuild: all is well\"}]}")}, "X: ", fault.Fetch},
	{"who are you", evil{serve: status(http.StatusUnauthorized, "")}, "sign in first", fault.Fetch},
	{"you may not", evil{serve: status(http.StatusForbidden, "")}, "sign in first", fault.Fetch},
	{"round and round", evil{serve: lead("")}, "stopped after 10 redirects", fault.Fetch},
	{"to the cloud's metadata", evil{serve: lead("http://169.254.169.254/latest")}, "not encrypted", fault.Fetch},
	{"to a neighbour", evil{serve: lead("https://10.0.0.1/")}, "not its own address", fault.Fetch},
	{"to another port", evil{serve: lead("http://127.0.0.1:1/")}, "not encrypted", fault.Fetch},
	{"to a file", evil{serve: lead("file:///etc/passwd")}, "not encrypted", fault.Fetch},
	{"a token from a neighbour", evil{serve: func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
		w.Header().Set("WWW-Authenticate", `Bearer realm="https://169.254.169.254/token",service="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}}, "169.254.169.254", fault.Fetch},
}

func ofBlobs(write func(w io.Writer, text []byte)) func(http.ResponseWriter, *http.Request, []byte) bool {
	return func(w http.ResponseWriter, r *http.Request, text []byte) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		write(w, bytes.Clone(text))
		return true
	}
}

func status(code int, body string) func(http.ResponseWriter, *http.Request, []byte) bool {
	return func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path == "/v2/" {
			return false
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
		return true
	}
}

func lead(to string) func(http.ResponseWriter, *http.Request, []byte) bool {
	return func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		w.Header().Set("Location", to)
		if to == "" {
			w.Header().Set("Location", r.URL.Path)
		}
		w.WriteHeader(http.StatusTemporaryRedirect)
		return true
	}
}

// TestHostile has registries hold what no push writes: one line says what is wrong, and
// nothing is written, in the folder or anywhere else.
func TestHostile(t *testing.T) {
	for _, c := range hostile {
		t.Run(c.name, func(t *testing.T) {
			top := t.TempDir()
			out, cache := filepath.Join(top, "a", "out"), filepath.Join(top, "cache")
			err := pullFrom(t, c.handler(t), out, cache)
			if err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != c.kind {
				t.Errorf("%v (%s), want one with %q (%s)", err, fault.KindOf(err), c.want, c.kind)
			}
			if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
				t.Errorf("more than one line: %q", err)
			}
			left := ""
			_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, _ error) error {
				if path == cache {
					return fs.SkipDir
				}
				left += strings.TrimPrefix(path, top) + " "
				return nil
			})
			if left != " /a /a/out " {
				t.Errorf("left: %s", left)
			}
		})
	}
	t.Logf("%d cases", len(hostile))
}

// TestNotHostile: without a word changed, the same registry is pulled from.
func TestNotHostile(t *testing.T) {
	out := t.TempDir()
	if err := pullFrom(t, (&evil{}).handler(t), out, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(out, "worker.raw"))
	if err != nil || len(text) != 300*kib || !bytes.HasPrefix(text[128*kib:], []byte("two")) {
		t.Error(err, len(text))
	}
	if _, err := os.Stat(filepath.Join(out, "worker.manifest.json")); errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
