package serve

import (
	"encoding/hex"
	"sync"
	"time"

	"github.com/imgbuild/imgbuild/builder/inventory"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// ticketBytes is how long a ticket is; one lives ticketLife, the longer reportLife for the
// machine's word that it is installed. A ticket that nobody has used is handed out again
// within ticketAgain: firmware asks several times for one boot.
const (
	ticketBytes = 16
	ticketLife  = 15 * time.Minute
	reportLife  = 24 * time.Hour
	ticketAgain = 5 * time.Minute
)

// ticketBusy is why a second transfer is refused while one runs.
const ticketBusy = "its ticket is being used"

// ticket is one boot of a machine: who holds it gets what that machine is told, once.
type ticket struct {
	id   string
	of   *machine
	boot string
	told told  // until it was sent
	size int64 // of its user data, bytes
	made time.Time
	// A transfer runs; one has begun; one had all of its file.
	busy, used, whole bool
	sent              map[string]int64 // file → bytes
}

// short is what is shown of it.
func (t *ticket) short() string { return short(t.id) }

func short(id string) string {
	if len(id) != 2*ticketBytes {
		return ""
	}
	return id[:4] + "…"
}

// tickets are the live ones, one for each machine.
type tickets struct {
	mu   sync.Mutex
	byID map[string]*ticket
	of   map[*machine]*ticket
}

func newTickets() *tickets {
	return &tickets{byID: map[string]*ticket{}, of: map[*machine]*ticket{}}
}

// mint is a machine's ticket for this boot; the one of an earlier boot ends with it. What
// it is to be told is read only where the ticket is new.
func (k *tickets) mint(m *machine, boot string, read func(*machine) (told, error)) (*ticket, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now, old := repro.Now(), k.of[m]
	if old != nil && !old.used && old.boot == boot && now.Sub(old.made) < ticketAgain {
		return old, nil
	}
	one, err := read(m)
	if err != nil {
		return nil, err
	}
	if old != nil {
		delete(k.byID, old.id)
	}
	t := &ticket{id: hex.EncodeToString(repro.Secret(ticketBytes)), of: m, boot: boot, told: one, size: int64(len(one.userData)), made: now, sent: map[string]int64{}}
	k.byID[t.id], k.of[m] = t, t
	return t, nil
}

// find is a ticket that lives.
func (k *tickets) find(id string) *ticket {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.byID[id]
	if t != nil && repro.Now().Sub(t.made) > ticketLife {
		return nil
	}
	return t
}

// begin starts a transfer of a file of size bytes, one at a time, and gives what the machine
// is told; why is empty where it may start. A look at it (HEAD) starts none.
func (k *tickets) begin(t *ticket, file string, size int64, look bool) (one told, why string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case t.sent[file] >= size:
		return told{}, "its ticket was used: a new boot gets a new one"
	case t.busy && !look:
		return told{}, ticketBusy
	}
	if !look {
		t.busy, t.used = true, true
	}
	return t.told, ""
}

// end ends a transfer; whole: as many bytes were sent by now as the file has. Then the
// ticket is of no more use for it.
func (k *tickets) end(t *ticket, file string, n, size int64) (whole bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t.busy = false
	t.sent[file] += n
	if whole = t.sent[file] >= size; whole {
		t.told, t.whole = told{}, true
	}
	return whole
}

// report takes a machine's word that it is installed; nil: it is nobody's who was to be,
// and who had the image. A machine may say it again: it cannot know that it was heard.
func (k *tickets) report(id string) *ticket {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.byID[id]
	if t == nil || t.boot != inventory.Install || !t.whole || repro.Now().Sub(t.made) > reportLife {
		return nil
	}
	return t
}

// live is how many there are that a machine could still fetch with.
func (k *tickets) live() (n int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.byID {
		if repro.Now().Sub(t.made) <= ticketLife {
			n++
		}
	}
	return n
}
