package firstboot

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/imgbuild/imgbuild/internal/repro"
)

// Status is what the node says of its first boot, in /run/imgbuild/status.json.
type Status struct {
	Phase    Phase     `json:"phase"`
	Role     string    `json:"role"`
	Hostname string    `json:"hostname"`
	Step     string    `json:"step"`              // what is being done, or failed
	Attempt  int       `json:"attempt"`           // 1 is the first
	Waiting  string    `json:"waiting,omitempty"` // what for, where nothing is wrong yet
	Cause    string    `json:"cause,omitempty"`
	Cure     string    `json:"cure,omitempty"`
	Warnings []string  `json:"warnings"` // of kubeadm's preflight
	Since    time.Time `json:"since"`
}

// say writes the status, and one line to the console and the journal.
func (a *Agent) say(format string, args ...any) {
	text := a.hide(fmt.Sprintf(format, args...))
	_, _ = fmt.Fprintf(a.Console, "imgbuild: %s\n", text)
	a.status.Since = repro.Now().UTC()
	data, err := json.MarshalIndent(a.status, "", " ")
	if err != nil {
		return // plain data cannot fail
	}
	data = append([]byte(a.hide(string(data))), '\n')
	for _, file := range []string{a.path(RunDir, "status.json"), a.path(StateDir, "status.json")} {
		if err := writeDurably(file, data, 0o644); err != nil {
			_, _ = fmt.Fprintf(a.Console, "imgbuild: cannot write %s: %v\n", file, err)
		}
	}
}

// banner says on the console that the node stopped, and what would help.
func banner(w io.Writer, s Status) {
	const bar = "********************************************************************"
	_, _ = fmt.Fprintf(w, "\n%s\n* This node did not join its cluster.\n* step:  %s\n* cause: %s\n* cure:  %s\n%s\n\n", bar, s.Step, s.Cause, s.Cure, bar)
}

func (a *Agent) path(parts ...string) string {
	return filepath.Join(append([]string{"/", a.Root}, parts...)...)
}
