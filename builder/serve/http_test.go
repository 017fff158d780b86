package serve

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"github.com/imgbuild/imgbuild/internal/node/install"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// serve has the rig's HTTP listen on loopback.
func (r *rig) serve(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	r.http = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.serveHTTP(ctx, l, r.handler()) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serving ended by %v", err)
		}
	})
}

type answered struct {
	code int
	body []byte
	head http.Header
}

func ask(t testing.TB, method, url string, header ...string) answered {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	must(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	must(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	must(t, err)
	return answered{res.StatusCode, body, res.Header}
}

var bootURL = regexp.MustCompile(`http://\S*/m/[0-9a-f]{32}/\S*`)

// boot asks for a machine's script, and gives the URL in it.
func (r *rig) bootURL(t testing.TB, query string) string {
	t.Helper()
	a := ask(t, "GET", r.url("/boot.ipxe?"+query))
	if a.code != 200 || !bytes.HasPrefix(a.body, []byte("#!ipxe\n")) {
		t.Fatalf("%d %s", a.code, a.body)
	}
	if words := string(a.body); strings.Contains(words, "/boot.efi") && !strings.Contains(words, "/boot.efi roothash=00 console=ttyS0,115200n8 || goto failed\n") {
		t.Errorf("without the kernel's command line:\n%s", words)
	}
	return bootURL.FindString(string(a.body))
}

// TestInstall follows a machine from its first question to the boot from its disk.
func TestInstall(t *testing.T) {
	r := start(t, inventoryText, nil)
	r.serve(t)
	first := ask(t, "GET", r.url("/boot.ipxe"))
	if !strings.Contains(string(first.body), "chain --replace --autofree "+r.url("/boot.ipxe")+"?mac=${netX/mac:hexhyp}&uuid=${uuid}&serial=${serial:uristring}&") {
		t.Errorf("%s", first.body)
	}
	const w1 = "mac=52-54-00-00-00-01&serial=&platform=efi&arch=x86_64"
	at := r.bootURL(t, w1)
	if again := r.bootURL(t, w1); again != at {
		t.Errorf("an unused ticket was not handed out again: %s, %s", at, again)
	}
	head := ask(t, "HEAD", at)
	if head.code != 200 || head.head.Get("Content-Length") != fmt.Sprint(fakeSize) || head.head.Get("Content-Type") != "application/efi" {
		t.Errorf("HEAD: %d %v", head.code, head.head)
	}
	done := strings.Replace(at, "boot.efi", "done", 1)
	if a := ask(t, "POST", done); a.code != 404 {
		t.Errorf("a machine that has had no image says that it is installed: %d", a.code)
	}
	got := ask(t, "GET", at)
	slot := inSlot(t, got.body)
	if got.code != 200 || !strings.Contains(slot["imgbuild.node"], "hostname: w1") {
		t.Errorf("%d, %s", got.code, slot["imgbuild.node"])
	}
	var order install.Order
	must(t, json.Unmarshal([]byte(slot["imgbuild.install"]), &order))
	if order.Disk != "/dev/vda" || order.Size != int64(len(r.disk)) || order.Done != done {
		t.Errorf("%+v", order)
	}
	packed := ask(t, "GET", order.URL)
	z, err := zstd.NewReader(nil)
	must(t, err)
	if disk, err := z.DecodeAll(packed.body, nil); err != nil || sum(disk) != order.SHA256 {
		t.Errorf("the disk is not what the order says: %v", err)
	}
	for _, method := range []string{"GET", "HEAD"} {
		if a := ask(t, method, at); a.code != 410 {
			t.Errorf("%s of a used ticket: %d", method, a.code)
		}
	}
	second := r.bootURL(t, w1)
	if second == at || second == "" {
		t.Error("a new boot got no new ticket")
	}
	if a := ask(t, "POST", done); a.code != 404 {
		t.Errorf("the ticket of an earlier boot is taken: %d", a.code)
	}
	ask(t, "GET", second)
	for range 2 { // the answer may be lost
		if a := ask(t, "POST", strings.Replace(second, "boot.efi", "done", 1)); a.code != 204 {
			t.Errorf("done: %d %s", a.code, a.body)
		}
	}
	if a := ask(t, "GET", r.url("/boot.ipxe?"+w1)); bootURL.Match(a.body) || !strings.HasSuffix(string(a.body), "exit 1\n") {
		t.Errorf("an installed machine is told %s", a.body)
	}
	after, err := New(r.options())
	must(t, err)
	defer after.Close()
	if m, err := after.machines.find(who{mac: "52:54:00:00:00:01"}); err != nil || after.machines.boot(m) != "local" {
		t.Errorf("after a restart it would be installed again: %v", err)
	}
	for _, want := range []string{"w1", "installed", "worker.raw.zst", "ticket " + at[len(r.url("/m/")):][:4] + "…"} {
		if !strings.Contains(r.said(), want) {
			t.Errorf("nobody said %q: %s", want, r.said())
		}
	}
}

func sum(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

// TestOthers boots what is not installed.
func TestOthers(t *testing.T) {
	r := start(t, inventoryText, func(o *Options) { o.Once = true })
	r.serve(t)
	at := r.bootURL(t, "mac=52:54:00:00:00:02")
	slot := inSlot(t, ask(t, "GET", at).body)
	if slot["imgbuild.var"] != "memory" || slot["imgbuild.install"] != "" {
		t.Errorf("%v", slot)
	}
	if a := ask(t, "POST", strings.Replace(at, "boot.efi", "done", 1)); a.code != 404 {
		t.Errorf("a diskless machine is installed: %d", a.code)
	}
	if got := r.bootURL(t, "mac=52:54:00:00:00:02"); got != "" {
		t.Errorf("--once, and its config is handed out again by %s", got)
	}
	if got := r.bootURL(t, "mac=52:54:00:00:00:03"); got != "" {
		t.Errorf("a machine that boots from its disk got %s", got)
	}
	data := r.bootURL(t, "mac=52:54:00:00:00:04&platform=pcbios&arch=i386")
	folder := strings.TrimSuffix(data, "user-data")
	if a := ask(t, "GET", folder+"meta-data"); !strings.Contains(string(a.body), "instance-id: imgbuild-f1\nlocal-hostname: f1\n") {
		t.Errorf("%s", a.body)
	}
	if a := ask(t, "GET", folder+"boot.efi"); a.code != 404 {
		t.Errorf("user data's ticket gives an image: %d", a.code)
	}
	if a := ask(t, "GET", data); !strings.Contains(string(a.body), "f1-secret") {
		t.Errorf("%d %s", a.code, a.body)
	}
	if a := ask(t, "GET", data); a.code != 410 || strings.Contains(string(a.body), "f1-secret") {
		t.Errorf("user data twice: %d", a.code)
	}
}

// TestRefused is what nobody gets, and that what they sent does no harm.
func TestRefused(t *testing.T) {
	r := start(t, inventoryText, nil)
	r.serve(t)
	must(t, os.WriteFile(r.dir+"/secret", []byte("canary"), 0o600))
	for path, code := range map[string]int{
		"/": 404, "/m/": 404, "/images/": 404, "/images": 404,
		"/images/worker.ign":                           404, // a manifest names it: it may hold a token
		"/images/worker.netboot.efi":                   404, // by tickets alone
		"/images/machines.yaml":                        404,
		"/images/secret":                               404,
		"/images/..%2fsecret":                          404,
		"/images/%2e%2e/machines.yaml":                 404,
		"/images/worker.raw.zst%00":                    404,
		"/images//etc/passwd":                          404,
		"/images/..%2f..%2f..%2fetc%2fpasswd":          404,
		"/m/0123456789abcdef0123456789abcdef/boot.efi": 404,
		"/m/x/boot.efi":                                404,
		"/ipxe.efi":                                    404,
		"/metrics":                                     404, // the operator's, elsewhere
		"/status":                                      404,
		"/boot.ipxe?mac=52:54:00:00:00:99":             404,
		"/boot.ipxe?mac=":                              404,
		"/boot.ipxe?mac=&uuid=x&serial=" + url.QueryEscape("\x1b[2J\ncanary"): 404,
		"/boot.ipxe?mac=52:54:00:00:00:01&platform=pcbios":                    404,
		"/boot.ipxe?mac=52:54:00:00:00:01&arch=arm64":                         404,
		"/boot.ipxe?mac=52:54:00:00:00:02&serial=SN+5":                        404,
	} {
		a := ask(t, "GET", r.url(path))
		if a.code/100 == 3 {
			a = ask(t, "GET", r.url(a.head.Get("Location")))
		}
		if a.code != code || bytes.Contains(a.body, []byte("canary")) {
			t.Errorf("%s: %d %s, want %d", path, a.code, a.body, code)
		}
		if code == 404 && !regexp.MustCompile(`^#!ipxe\necho [ -~]* && sleep 30 && exit 1\n$`).Match(a.body) {
			t.Errorf("%s: it says %q", path, a.body)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		if a := ask(t, method, r.url("/images/worker.raw.zst")); a.code != 405 && a.code != 404 {
			t.Errorf("%s: %d", method, a.code)
		}
	}
	if strings.Contains(r.said(), "\x1b") || strings.Contains(r.said(), "0123456789abcdef") {
		t.Errorf("told as it was sent: %q", r.said())
	}
}

// TestRanges counts pieces together: a ticket is good for one image, however it is cut.
func TestRanges(t *testing.T) {
	r := start(t, inventoryText, nil)
	r.serve(t)
	at := r.bootURL(t, "mac=52:54:00:00:00:01")
	var whole []byte
	for from := 0; from < fakeSize; from += 1 << 20 {
		a := ask(t, "GET", at, "Range", fmt.Sprintf("bytes=%d-%d", from, from+1<<20-1))
		if a.code != 206 {
			t.Fatalf("from %d: %d", from, a.code)
		}
		whole = append(whole, a.body...)
	}
	inSlot(t, whole)
	if a := ask(t, "GET", at, "Range", "bytes=0-0"); a.code != 410 {
		t.Errorf("after all of it, %d", a.code)
	}
	at = r.bootURL(t, "mac=52:54:00:00:00:01")
	half := fmt.Sprintf("bytes=%d-%d", fakeSize/2-1000, fakeSize/2+fakeSlot) // the slot, again and again
	n := 0
	for ; n < 100 && ask(t, "GET", at, "Range", half).code == 206; n++ {
	}
	if n > fakeSize/fakeSlot+1 {
		t.Errorf("a part was had %d times", n)
	}
	at = r.bootURL(t, "mac=52:54:00:00:00:02")
	for _, bad := range []string{"bytes=9999999999-", "bytes=5-1", "lines=1-2", "bytes=" + strings.Repeat("0-0,", 2000) + "0-0"} {
		if a := ask(t, "GET", at, "Range", bad); a.code != 416 && a.code != 400 && a.code != 206 {
			t.Errorf("%.20s: %d with %d bytes", bad, a.code, len(a.body))
		}
	}
	inSlot(t, ask(t, "GET", at).body)
}

// TestTime ends tickets.
func TestTime(t *testing.T) {
	r := start(t, inventoryText, nil)
	r.serve(t)
	at := r.bootURL(t, "mac=52:54:00:00:00:01")
	r.age(ticketLife + time.Second)
	if a := ask(t, "GET", at); a.code != 404 {
		t.Errorf("after its time: %d", a.code)
	}
	if got := r.bootURL(t, "mac=52:54:00:00:00:01"); got == at {
		t.Error("an old ticket was handed out again")
	}
	at = r.bootURL(t, "mac=52:54:00:00:00:01")
	ask(t, "GET", at)
	r.age(time.Hour) // an installation takes its time
	if a := ask(t, "POST", strings.Replace(at, "boot.efi", "done", 1)); a.code != 204 {
		t.Errorf("done after an hour: %d", a.code)
	}
}

// age makes every ticket older.
func (r *rig) age(d time.Duration) {
	r.tickets.mu.Lock()
	defer r.tickets.mu.Unlock()
	for _, k := range r.tickets.byID {
		k.made = k.made.Add(-d)
	}
}

// TestFreshConfig serves what the file says at the next boot, and one boot the same all along.
func TestFreshConfig(t *testing.T) {
	r := start(t, inventoryText, nil)
	r.serve(t)
	at := r.bootURL(t, "mac=52:54:00:00:00:01")
	fresh := strings.Replace(r.config, "cluster: demo", "cluster: fresh", 1)
	must(t, os.WriteFile(r.dir+"/worker.yaml", []byte(fresh), 0o600))
	if slot := inSlot(t, ask(t, "GET", at).body); !strings.Contains(slot["imgbuild.node"], "cluster: demo") {
		t.Error("a boot's config changed under way")
	}
	if slot := inSlot(t, ask(t, "GET", r.bootURL(t, "mac=52:54:00:00:00:01")).body); !strings.Contains(slot["imgbuild.node"], "cluster: fresh") {
		t.Error("the next boot got an old config")
	}
	must(t, os.WriteFile(r.dir+"/worker.yaml", []byte("token: canary"), 0o600))
	if a := ask(t, "GET", r.url("/boot.ipxe?mac=52:54:00:00:00:01")); a.code != 500 || bytes.Contains(a.body, []byte("canary")) {
		t.Errorf("%d %s", a.code, a.body)
	}
	if said := r.said(); !strings.Contains(said, "worker.yaml") || strings.Contains(said, "canary") {
		t.Errorf("%s", said)
	}
}

// TestAtOnce has 200 machines boot at the same time.
func TestAtOnce(t *testing.T) {
	r := start(t, inventoryText+withDefault, nil)
	r.serve(t)
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			at := r.bootURL(t, fmt.Sprintf("mac=52:54:00:01:00:%02x", i))
			res, err := http.Get(at)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if n, err := io.Copy(io.Discard, res.Body); n != fakeSize || err != nil {
				t.Errorf("machine %d: %d bytes, %v", i, n, err)
			}
		})
	}
	all.Wait()
	ends(t, "every transfer", func() bool { return r.metrics.running.Load() == 0 && len(r.slots) == 0 })
	if n := strings.Count(r.said(), `"what":"sent"`); n != 200 {
		t.Errorf("%d were told of", n)
	}
}

// TestOneAtATime gives two that share a ticket one image.
func TestOneAtATime(t *testing.T) {
	r := start(t, inventoryText, nil)
	r.serve(t)
	at := r.bootURL(t, "mac=52:54:00:00:00:01")
	whole := make(chan int, 8)
	for range cap(whole) {
		go func() {
			res, err := http.Get(at)
			if err != nil {
				whole <- 0
				return
			}
			defer res.Body.Close()
			n, _ := io.Copy(io.Discard, res.Body)
			whole <- int(n)
		}()
	}
	had := 0
	for range cap(whole) {
		if <-whole == fakeSize {
			had++
		}
	}
	if had != 1 {
		t.Errorf("%d had the image by one ticket", had)
	}
}

// TestGivenUp lets a machine try again whose connection broke.
func TestGivenUp(t *testing.T) {
	const size = 12 << 20 // more than sockets hold
	r := start(t, inventoryText, func(o *Options) {
		o.Open = func(string) (Image, error) { return fakeImage{"worker", size}, nil }
	})
	r.serve(t)
	at := r.bootURL(t, "mac=52:54:00:00:00:01")
	conn, err := net.Dial("tcp", r.http)
	must(t, err)
	conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	u, _ := url.Parse(at)
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", u.Path)
	io.ReadFull(conn, make([]byte, 1000))
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
	if a := ask(t, "GET", at); a.code != 200 || len(a.body) != size {
		t.Errorf("%d, %d bytes", a.code, len(a.body))
	}
}

// TestSlow hangs up on who says nothing, and on who takes nothing.
func TestSlow(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits")
	}
	r := start(t, inventoryText, nil)
	r.serve(t)
	conn, err := net.Dial("tcp", r.http)
	must(t, err)
	defer conn.Close()
	io.WriteString(conn, "GET /boot.ipxe HTTP/1.1\r\nHost: ")
	post, err := net.Dial("tcp", r.http)
	must(t, err)
	defer post.Close()
	io.WriteString(post, "POST /m/x/done HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
	for name, c := range map[string]net.Conn{"half a header": conn, "half a body": post} {
		c.SetReadDeadline(time.Now().Add(headerTime + 10*time.Second))
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFull refuses what is too much.
func TestFull(t *testing.T) {
	r := start(t, inventoryText, nil)
	r.serve(t)
	for range maxTransfers {
		r.slots <- struct{}{}
	}
	if a := ask(t, "GET", r.url("/images/worker.raw.zst")); a.code != 503 || a.head.Get("Retry-After") == "" {
		t.Errorf("%d", a.code)
	}
	<-r.slots
	if a := ask(t, "GET", r.url("/images/worker.raw.zst")); a.code != 200 {
		t.Errorf("%d", a.code)
	}
}

// TestNoSecret looks for what machines are told in all that is told of them.
func TestNoSecret(t *testing.T) {
	r := start(t, inventoryText, nil)
	r.serve(t)
	for _, mac := range []string{"01", "02", "04"} {
		at := r.bootURL(t, "mac=52:54:00:00:00:"+mac)
		ask(t, "GET", at)
		ask(t, "GET", at)
		ask(t, "GET", r.url("/images/worker.raw.zst"))
		ask(t, "POST", strings.Replace(at, "boot.efi", "done", 1))
	}
	admin := httptest.NewServer(r.admin())
	defer admin.Close()
	metrics, status := ask(t, "GET", admin.URL+"/metrics"), ask(t, "GET", admin.URL+"/status")
	all := r.said() + string(metrics.body) + string(status.body)
	token := regexp.MustCompile(`(?m)^token: (\S+)$`).FindStringSubmatch(r.config)[1]
	for _, secret := range []string{token, "f1-secret", "CERTIFICATE"} {
		if strings.Contains(all, secret) {
			t.Errorf("a secret is told: %s", secret)
		}
	}
	if found := regexp.MustCompile(`[0-9a-f]{32}`).FindString(all); found != "" {
		t.Errorf("a ticket is told: %s", found)
	}
	for _, want := range []string{`imgbuild_serve_requests_total{via="http",code="410"} 3`, `imgbuild_serve_sent_bytes_total{via="http"} `, `imgbuild_serve_machines{state="installed"} 1`, "# TYPE imgbuild_serve_transfers gauge\nimgbuild_serve_transfers 0\n"} {
		if !bytes.Contains(metrics.body, []byte(want)) {
			t.Errorf("no %q in\n%s", want, metrics.body)
		}
	}
	var got struct{ Machines []State }
	must(t, json.Unmarshal(status.body, &got))
	if len(got.Machines) != 3 || got.Machines[1].Machine != "w1" || got.Machines[1].State != "installed" || got.Machines[1].Fetched["boot.efi"] != fakeSize || got.Machines[1].Fetched["worker.raw.zst"] == 0 || got.Machines[1].Address != "127.0.0.1" {
		t.Errorf("%s", status.body)
	}
	for line := range strings.Lines(string(metrics.body)) {
		if !regexp.MustCompile(`^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? \d+)\n$`).MatchString(line) {
			t.Errorf("no line of Prometheus': %q", line)
		}
	}
}
