package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/netutil"

	"github.com/imgbuild/imgbuild/builder/inventory"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// What one client can take of the server: how long it may say nothing, and how many there
// may be. A piece of 32 KiB has idle to leave.
const (
	headerTime     = 10 * time.Second
	idleTime       = time.Minute
	maxHeader      = 16 << 10
	maxConnections = 2048
	maxTransfers   = 512
	graceStep      = 50 * time.Millisecond
	graceSteps     = 40
	endTime        = 5 * time.Second // for transfers, once the server is to stop
)

// The names in a machine's folder.
const (
	fileBoot     = "boot.efi"
	fileUserData = "user-data"
	fileMetaData = "meta-data"
	fileVendor   = "vendor-data"
	fileIPXE     = "ipxe.efi"
	fileIPXEBIOS = "ipxe.kpxe"
	fileScript   = "boot.ipxe"
)

// url is that of a path of this server.
func (s *Server) url(path string) string { return "http://" + s.http + path }

// handler serves machines.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /"+fileScript, s.script)
	mux.HandleFunc("GET /"+fileIPXE, s.limited(s.loader))
	mux.HandleFunc("GET /images/{file}", s.limited(s.image))
	mux.HandleFunc("GET /m/{ticket}/{file}", s.limited(s.own))
	mux.HandleFunc("POST /m/{ticket}/done", s.done)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, r, http.StatusNotFound, Event{Note: "there is nothing of that name"})
	})
	return mux
}

// serveHTTP serves until ctx ends, and then lets transfers end for a moment.
func (s *Server) serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{Handler: withoutBody(h), ReadHeaderTimeout: headerTime, WriteTimeout: idleTime, IdleTimeout: idleTime,
		MaxHeaderBytes: maxHeader, ErrorLog: quiet, Protocols: http1()}
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		if server.Shutdown(end) != nil {
			_ = server.Close()
		}
	})
	defer stop()
	err := server.Serve(netutil.LimitListener(l, maxConnections))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serving HTTP: %w", err)
}

// withoutBody bounds the time for a request's body: nothing here reads one.
func withoutBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(repro.Now().Add(headerTime)) // a test's writer has none
		}
		next.ServeHTTP(w, r)
	})
}

// http1 leaves HTTP/2 out: no firmware speaks it.
func http1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

// limited bounds the transfers that run at once.
func (s *Server) limited(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
			next(w, r)
		default:
			w.Header().Set("Retry-After", "10")
			s.refuse(w, r, http.StatusServiceUnavailable, Event{Note: strconv.Itoa(maxTransfers) + " transfers run"})
		}
	}
}

// refuse answers with a script that says why, on the machine's screen where its iPXE runs
// it, and tells it here.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, code int, e Event) {
	e.Via, e.What, e.Client = "http", refused, client(r)
	if e.File == "" {
		e.File = shownPath(r)
	}
	s.tell.say(e)
	s.metrics.request("http", code)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, scriptSaying("imgbuild: "+e.Note)) // the client may be gone
}

func client(r *http.Request) string {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return host
}

// shownPath is a request's path without a ticket that is in it.
func shownPath(r *http.Request) string {
	parts := strings.Split(r.URL.Path, "/")
	for i, p := range parts {
		if len(p) == 2*ticketBytes {
			parts[i] = short(p)
		}
	}
	path := strings.Join(parts, "/")
	return path[:min(len(path), 100)]
}

// paced counts what is written, and gives each piece its own time.
type paced struct {
	http.ResponseWriter
	control *http.ResponseController
	n       int64
	code    int
}

func newPaced(w http.ResponseWriter) *paced {
	return &paced{ResponseWriter: w, control: http.NewResponseController(w), code: http.StatusOK}
}

// WriteHeader implements http.ResponseWriter.
func (p *paced) WriteHeader(code int) {
	p.code = code
	p.ResponseWriter.WriteHeader(code)
}

// Write implements io.Writer.
func (p *paced) Write(b []byte) (int, error) {
	if err := p.control.SetWriteDeadline(repro.Now().Add(idleTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	n, err := p.ResponseWriter.Write(b)
	if p.code == http.StatusOK || p.code == http.StatusPartialContent {
		p.n += int64(n)
	}
	return n, err
}

// transfer sends content, and tells of it.
func (s *Server) transfer(w http.ResponseWriter, r *http.Request, e Event, content io.ReadSeeker, end func(n int64) (whole bool)) {
	begin, p := repro.Now(), newPaced(w)
	s.metrics.running.Add(1)
	defer s.metrics.running.Add(-1)
	defer func() { // a client that is gone ends a transfer like any other
		if end != nil && end(p.n) || end == nil && strconv.FormatInt(p.n, 10) == w.Header().Get("Content-Length") {
			e.What = sent
		}
		e.Bytes, e.Seconds = p.n, repro.Now().Sub(begin).Seconds()
		s.metrics.sent("http", p.n)
		s.metrics.request("http", p.code)
		if r.Method != http.MethodHead {
			s.tell.say(e)
		}
	}()
	e.Via, e.What, e.Client = "http", broken, client(r)
	if r.Header.Get("Range") != "" {
		e.Note = "a part of it"
	}
	http.ServeContent(p, r, "", time.Time{}, content)
}

// script is /boot.ipxe: at first one that calls back with who the machine is, then that machine's.
func (s *Server) script(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if !q.Has("mac") {
		s.write(w, "text/plain; charset=utf-8", scriptAsking(s.url("/"+fileScript)))
		return
	}
	asks := who{mac: parseMAC(q.Get("mac")), serial: strings.TrimSpace(q.Get("serial"))}
	if id := strings.ToLower(q.Get("uuid")); len(id) == 36 {
		asks.uuids = []string{id}
	}
	m, err := s.machines.find(asks)
	if err != nil {
		s.refuse(w, r, http.StatusNotFound, Event{MAC: asks.mac, File: "/" + fileScript, Note: err.Error()})
		return
	}
	e := Event{Via: "http", What: offered, Machine: m.name, MAC: asks.mac, Client: client(r)}
	boot := s.machines.boot(m)
	if boot == inventory.Local {
		e.What = goesOn
		s.tell.sayOnce(e)
		s.write(w, "text/plain; charset=utf-8", scriptLocal(m.name))
		return
	}
	if platform, arch := q.Get("platform"), q.Get("arch"); boot != userData && (platform == "pcbios" || arch != "" && arch != "x86_64") {
		s.refuse(w, r, http.StatusNotFound, Event{Machine: m.name, MAC: asks.mac, File: "/" + fileScript,
			Note: "its firmware is " + clean(platform+" "+arch) + ": a node boots by UEFI of x86-64"})
		return
	}
	t, err := s.mint(m, boot, client(r))
	if err != nil {
		s.refuse(w, r, http.StatusInternalServerError, Event{Machine: m.name, MAC: asks.mac, File: "/" + fileScript, Note: errUnread.Error()})
		return
	}
	e.Ticket, e.Note = t.short(), boot
	s.tell.sayOnce(e)
	if boot == userData {
		s.write(w, "text/plain; charset=utf-8", scriptUserData(s.url("/m/"+t.id+"/")))
		return
	}
	s.write(w, "text/plain; charset=utf-8", scriptBoot(m.name, boot, s.url("/m/"+t.id+"/"+fileBoot), s.catalogue.images[m.m.Role].Cmdline()))
}

func (s *Server) write(w http.ResponseWriter, kind, text string) {
	w.Header().Set("Content-Type", kind)
	s.metrics.request("http", http.StatusOK)
	_, _ = io.WriteString(w, text) // the client may be gone
}

// loader is iPXE itself, for firmware that boots by HTTP and has to ask again.
func (s *Server) loader(w http.ResponseWriter, r *http.Request) {
	if s.ipxe[fileIPXE] == nil {
		s.refuse(w, r, http.StatusNotFound, Event{Note: "there is no iPXE: give one by --ipxe"})
		return
	}
	w.Header().Set("Content-Type", "application/efi")
	s.transfer(w, r, Event{File: fileIPXE}, bytes.NewReader(s.ipxe[fileIPXE]), nil)
}

// image is a public file.
func (s *Server) image(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	f := s.catalogue.reader(name)
	if f == nil {
		s.refuse(w, r, http.StatusNotFound, Event{Note: "there is nothing of that name"})
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	e := Event{File: name}
	m := s.machines.at(client(r))
	if m == nil {
		s.transfer(w, r, e, f, nil)
		return
	}
	e.Machine = m.name
	s.transfer(w, r, e, f, func(n int64) bool {
		s.machines.count(m, name, n)
		return n == f.Size()
	})
}

// own is what a ticket's machine alone gets.
func (s *Server) own(w http.ResponseWriter, r *http.Request) {
	id, name := r.PathValue("ticket"), r.PathValue("file")
	t := s.tickets.find(id)
	if t == nil {
		s.refuse(w, r, http.StatusNotFound, Event{Note: "there is no such ticket, or its time is over: a new boot gets a new one"})
		return
	}
	e := Event{Machine: t.of.name, File: name, Ticket: t.short()}
	switch node := t.boot != userData; {
	case node && name == fileBoot, !node && name == fileUserData:
	case !node && name == fileMetaData:
		s.write(w, "text/plain; charset=utf-8", metaData(t.of))
		return
	case !node && name == fileVendor:
		s.write(w, "text/plain; charset=utf-8", "")
		return
	default:
		s.refuse(w, r, http.StatusNotFound, Event{Machine: e.Machine, Note: "there is nothing of that name"})
		return
	}
	size, look := s.sizeOf(t), r.Method == http.MethodHead
	one, why := s.begin(r.Context(), t, name, size, look)
	if why != "" {
		s.refuse(w, r, http.StatusGone, Event{Machine: e.Machine, Ticket: e.Ticket, Note: why})
		return
	}
	end := func(n int64) bool { return s.tickets.end(t, name, n, size) }
	if look {
		end = nil
	}
	content, err := s.content(t, one)
	if err != nil {
		if !look {
			end(0)
		}
		s.refuse(w, r, http.StatusInternalServerError, Event{Machine: e.Machine, Note: errUnread.Error()})
		return
	}
	if look {
		w.Header().Set("Content-Type", contentType(t))
		s.transfer(w, r, e, content, nil)
		return
	}
	s.machines.step(t.of, phaseFetching, client(r), repro.Now())
	w.Header().Set("Content-Type", contentType(t))
	w.Header().Set("Cache-Control", "no-store")
	s.transfer(w, r, e, content, func(n int64) bool { return s.ended(t, name, n, size) })
}

// metaData is what cloud-init wants beside user data (its NoCloud). The instance is the
// machine: to a new one it would do everything again.
func metaData(m *machine) string {
	text := "instance-id: imgbuild-" + strings.NewReplacer(" ", "-", ":", "").Replace(m.name) + "\n"
	if m.m.Name != "" {
		text += "local-hostname: " + m.m.Name + "\n"
	}
	return text
}

// begin waits a moment for the connection that a client has given up for this one.
func (s *Server) begin(ctx context.Context, t *ticket, name string, size int64, look bool) (one told, why string) {
	for range graceSteps {
		if one, why = s.tickets.begin(t, name, size, look); why != ticketBusy {
			break
		}
		select {
		case <-ctx.Done():
			return told{}, why
		case <-time.After(graceStep):
		}
	}
	return one, why
}

// done is a machine's word that it is installed.
func (s *Server) done(w http.ResponseWriter, r *http.Request) {
	t := s.tickets.report(r.PathValue("ticket"))
	if t == nil {
		s.refuse(w, r, http.StatusNotFound, Event{Note: "there is no such ticket of a machine that was to be installed"})
		return
	}
	s.machines.step(t.of, phaseInstalled, client(r), repro.Now())
	if err := s.machines.installed.add(t.of.name, repro.Now()); err != nil {
		s.tell.say(Event{What: refused, Machine: t.of.name, Note: "it is installed, and cannot be written down: after a restart it would be installed again: " + err.Error()})
	}
	s.metrics.request("http", http.StatusNoContent)
	s.tell.say(Event{Via: "http", What: reported, Machine: t.of.name, Client: client(r), Ticket: t.short(), Note: "its next boot goes on to its disk"})
	w.WriteHeader(http.StatusNoContent)
}
