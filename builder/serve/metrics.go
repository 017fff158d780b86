package serve

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// metrics are counters, in Prometheus' text format. Labels have few values, none that a
// client could choose.
type metrics struct {
	running atomic.Int64
	mu      sync.Mutex
	counts  map[string]int64 // name{labels}
}

// The names, and what they count.
const (
	metricRequests = "imgbuild_serve_requests_total"
	metricSent     = "imgbuild_serve_sent_bytes_total"
	metricDHCP     = "imgbuild_serve_dhcp_total"
	metricRunning  = "imgbuild_serve_transfers"
	metricTickets  = "imgbuild_serve_tickets"
	metricMachines = "imgbuild_serve_machines"
)

var help = []struct{ name, kind, text string }{
	{metricRequests, "counter", "Requests answered, by protocol and status code."},
	{metricSent, "counter", "Bytes of files sent, by protocol."},
	{metricDHCP, "counter", "DHCP requests, by what came of them."},
	{metricRunning, "gauge", "Transfers that run."},
	{metricTickets, "gauge", "One-time URLs that have not run out."},
	{metricMachines, "gauge", "Machines that have asked, by what became of them."},
}

func newMetrics() *metrics { return &metrics{counts: map[string]int64{}} }

func (m *metrics) add(key string, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[key] += n
}

func (m *metrics) request(via string, code int) {
	m.add(metricRequests+`{via="`+via+`",code="`+strconv.Itoa(code)+`"}`, 1)
}

func (m *metrics) sent(via string, n int64) { m.add(metricSent+`{via="`+via+`"}`, n) }

func (m *metrics) dhcp(what string) { m.add(metricDHCP+`{answer="`+what+`"}`, 1) }

// admin serves what is for the operator: it says which machines there are.
func (s *Server) admin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		s.writeMetrics(w)
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", " ")
		_ = e.Encode(map[string]any{"machines": s.machines.states()}) // the client may be gone
	})
	return mux
}

func (s *Server) writeMetrics(w io.Writer) {
	s.metrics.mu.Lock()
	now := maps.Clone(s.metrics.counts)
	s.metrics.mu.Unlock()
	now[metricRunning], now[metricTickets] = s.metrics.running.Load(), s.tickets.live()
	for _, m := range s.machines.states() {
		now[metricMachines+`{state="`+m.State+`"}`]++
	}
	keys := slices.Sorted(maps.Keys(now))
	for _, h := range help {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", h.name, h.text, h.name, h.kind)
		for _, key := range keys {
			if name, _, _ := strings.Cut(key, "{"); name == h.name {
				fmt.Fprintf(w, "%s %d\n", key, now[key])
			}
		}
	}
}
