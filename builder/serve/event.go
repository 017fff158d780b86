package serve

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/imgbuild/imgbuild/internal/repro"
)

// Event is one thing that happened. It holds no secret: of a ticket the first letters,
// nothing of what a machine is told.
type Event struct {
	Time    time.Time `json:"time"`
	Via     string    `json:"via"`  // dhcp, tftp or http; empty: the server itself
	What    string    `json:"what"` // offered, sent, refused …
	Machine string    `json:"machine,omitempty"`
	MAC     string    `json:"mac,omitempty"`
	Client  string    `json:"client,omitempty"` // address that asked
	File    string    `json:"file,omitempty"`
	Ticket  string    `json:"ticket,omitempty"`
	Bytes   int64     `json:"bytes,omitempty"`
	Seconds float64   `json:"seconds,omitempty"`
	Note    string    `json:"note,omitempty"`
}

// String is the event on one line; what others sent is in it only as it can be printed.
func (e Event) String() string {
	var out []string
	add := func(format string, v any, ok bool) {
		if ok {
			out = append(out, fmt.Sprintf(format, v))
		}
	}
	add("%s", e.Via, e.Via != "")
	add("%s", e.Machine, e.Machine != "")
	add("(%s)", e.MAC, e.MAC != "" && !strings.Contains(e.Machine, e.MAC))
	add("at %s", e.Client, e.Client != "")
	add("%s", e.What, true)
	add("%s", e.File, e.File != "")
	add("ticket %s", e.Ticket, e.Ticket != "")
	add("%d bytes", e.Bytes, e.Bytes > 0)
	add("in %.1f s", e.Seconds, e.Seconds > 0)
	line := strings.Join(out, " ")
	if e.Note != "" {
		line += ": " + e.Note
	}
	return printable(line)
}

// printable is text on one line, without what a terminal could take for a command.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, text)
}

// What is told of refusals is bounded: who floods a network shall not fill a disk.
const refusalsPerSecond = 20

// teller passes events on, with their time.
type teller struct {
	mu     sync.Mutex
	tell   func(Event)
	second int64
	told   int
	silent int
	once   map[string]time.Time // refusals that repeat: when they were told
}

func newTeller(tell func(Event)) *teller {
	if tell == nil {
		tell = func(Event) {}
	}
	return &teller{tell: tell, once: map[string]time.Time{}}
}

func (t *teller) say(e Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.Time = repro.Now()
	if e.What == refused {
		if now := e.Time.Unix(); now != t.second {
			t.second, t.told = now, 0
		}
		if t.told++; t.told > refusalsPerSecond {
			t.silent++
			return
		}
		if t.silent > 0 {
			e.Note = fmt.Sprintf("%s (and %d refusals that were too many to tell)", e.Note, t.silent)
			t.silent = 0
		}
	}
	t.tell(e)
}

// maxOnce is how many different refusals are remembered, repeat how long.
const maxOnce, repeat = 4096, time.Minute

// sayOnce tells what repeats, such as the offers of a machine that keeps asking, once a minute.
func (t *teller) sayOnce(e Event) {
	key, now := e.MAC+" "+e.What+" "+e.Note, repro.Now()
	t.mu.Lock()
	last, known := t.once[key]
	if len(t.once) >= maxOnce {
		clear(t.once)
	}
	again := known && now.Sub(last) < repeat
	if !again {
		t.once[key] = now
	}
	t.mu.Unlock()
	if !again {
		t.say(e)
	}
}

// What events say.
const (
	offered  = "offered"
	sent     = "sent"
	broken   = "broken off"
	refused  = "refused"
	reported = "installed"
	goesOn   = "boots from its disk"
)
