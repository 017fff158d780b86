package contents

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/builder/verify"
	"github.com/imgbuild/imgbuild/internal/run"
)

// browser is Chromium without a screen; test/tools.sh installs it.
const browser = "chromium-headless-shell"

//go:embed testdata/measure.js
var measure string

// measured is what measure.js says.
type measured struct {
	Title                                                              string
	Fetched, Tiles, Outside, Colours, Total, TileBytes, RowBytes, Rows int
	Area, Worst                                                        float64
	Wide                                                               bool
}

var measuredForm = regexp.MustCompile(`<pre id="measured">(.*)</pre>`)

// show opens a page in a browser, which must have nothing to say of it, and measures it.
func show(t *testing.T, page func(io.Writer) error) (m measured) {
	t.Helper()
	if _, err := run.Look(browser); err != nil {
		t.Skipf("the page is not looked at: %s is not installed (make tools)", browser)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "page.html")
	var text, said, dom bytes.Buffer
	err := page(&text)
	text.WriteString("<script>" + measure + "</script>\n")
	err = errors.Join(err, os.WriteFile(file, text.Bytes(), 0o600))
	if err == nil { // the sandbox wants a user that may make namespaces; the page is our own
		err = run.Run(t.Context(), run.Cmd{Name: browser, Args: []string{"--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=1200,900",
			"--user-data-dir=" + filepath.Join(dir, "profile"), "--dump-dom", "file://" + file}, Stdout: &dom, Stderr: &said})
	}
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(said.String()) {
		if strings.Contains(line, ":CONSOLE:") {
			t.Errorf("the browser says: %s", line)
		}
	}
	found := measuredForm.FindStringSubmatch(dom.String())
	if found == nil {
		t.Fatalf("nothing was measured; the browser says:\n%s", said.String())
	}
	if err := json.Unmarshal([]byte(html.UnescapeString(found[1])), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestPageInBrowser wants the map drawn, each part as large as it should be, and the bytes to add up.
func TestPageInBrowser(t *testing.T) {
	c := &Contents{Entries: map[string]Entry{}, Report: &verify.Report{OS: map[string]string{"IMAGE_ID": "imgbuild-worker", "IMAGE_VERSION": "1.37.2"}}}
	total := 0
	for i, kind := range []string{Images, Program, Program, Package, Package, Own} {
		for j := range 12 {
			size := 1 << 28 / (i + 1) / (j + 1) / (j + 1)
			c.Parts = append(c.Parts, &Part{Kind: kind, Name: fmt.Sprintf("%s %d <&> %d", kind, i, j), Version: "1:2-3", Files: 3, Bytes: int64(size)})
			total += size
		}
	}
	for i := range 60 { // no place for a letter
		c.Parts = append(c.Parts, &Part{Kind: Package, Name: fmt.Sprintf("small %d", i), Files: 1, Bytes: int64(3000 + 500*i)})
		total += 3000 + 500*i
	}
	sortParts(c.Parts)
	m := show(t, c.WritePage)
	if m.Title != "imgbuild-worker 1.37.2" || m.Fetched != 0 || m.Colours != 4 || m.Wide {
		t.Errorf("%+v", m)
	}
	if m.Tiles != len(c.Parts) || m.Outside > 0 || math.Abs(m.Area-1) > 0.01 || m.Worst > 0.05 {
		t.Errorf("the map: %+v", m)
	}
	if m.Total != total || m.TileBytes != total || m.RowBytes != total {
		t.Errorf("of %d bytes the tiles have %d, the rows %d, the map says %d", total, m.TileBytes, m.RowBytes, m.Total)
	}
}

// TestDiffInBrowser wants every difference to have its row.
func TestDiffInBrowser(t *testing.T) {
	d := &Diff{Packages: []Change{{"bash", "5.2", "5.3"}, {"perl", "5.40", ""}}, Files: []Change{{"/etc/" + strings.Repeat("long", 60), "", "-rw-r--r-- 4 B"}}}
	m := show(t, func(w io.Writer) error { return d.WritePage(w, "a<b.raw", "b.raw") })
	want := measured{Title: "a<b.raw → b.raw", Rows: 2 + 3} // each group has a head
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
}
