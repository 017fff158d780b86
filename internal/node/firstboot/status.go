package firstboot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/imgbuild/imgbuild/internal/repro"
)

// StatusFile is where a node says how its first boot stands.
const StatusFile = RunDir + "/status.json"

// Status is what the node says of its first boot, in StatusFile and on the console.
type Status struct {
	Phase    Phase     `json:"phase"`
	Role     string    `json:"role"`
	Hostname string    `json:"hostname"`
	Address  string    `json:"address,omitempty"` // empty while the network is down
	Step     string    `json:"step"`              // what is being done, or failed
	Number   int       `json:"number,omitempty"`  // of the step, from 1; 0 before and after the first boot
	Of       int       `json:"of,omitempty"`      // steps in all
	Attempt  int       `json:"attempt"`           // 1 is the first
	Waiting  string    `json:"waiting,omitempty"` // what for, where nothing is wrong yet
	Cause    string    `json:"cause,omitempty"`
	Cure     string    `json:"cure,omitempty"`
	Warnings []string  `json:"warnings"` // of kubeadm's preflight
	Since    time.Time `json:"since"`    // when step, waiting or cause became what they are
}

// ReadStatus reads what the agent of this node said last.
func ReadStatus(file string) (Status, error) {
	var s Status
	data, err := os.ReadFile(file) // #nosec G304 -- a fixed path of the node
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return s, fmt.Errorf("the first boot has said nothing yet: %w; look at `systemctl status imgbuild-firstboot`", err)
	}
	return s, nil
}

// Tell shows a person what the agent of this node said last. It is an error unless
// the node is a member of its cluster.
func (a *Agent) Tell(context.Context) error {
	s, err := ReadStatus(a.path(StatusFile))
	if err != nil {
		return err
	}
	if _, err := fmt.Fprint(a.Console, s.Screen()); err != nil || s.Phase == Committed && s.Cause == "" {
		return err
	}
	return errors.New("this node is no member of its cluster")
}

// Screen is the status for a person: a few plain lines, no escape sequences, for
// a serial console may keep them all.
func (s Status) Screen() string {
	const bar = "--------------------------------------------------------------------"
	var b strings.Builder
	line := func(name, format string, args ...any) {
		plain := strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return ' '
			}
			return r
		}, fmt.Sprintf(format, args...))
		fmt.Fprintf(&b, "  %-8s %s\n", name, strings.Join(strings.Fields(plain), " "))
	}
	b.WriteString("-- imgbuild " + bar[12:] + "\n")
	line(orDefault(s.Role, "node"), "%s, %s", orDefault(s.Hostname, "no name yet"), orDefault(s.Address, "no address yet"))
	switch {
	case s.Cause != "":
		line("failed", "%s%s", s.Step, s.progress())
		line("cause", "%s", s.Cause)
	case s.Phase == Committed:
		line("state", "a member of its cluster")
	case s.Waiting != "":
		line("step", "%s%s", s.Step, s.progress())
		line("waiting", "%s", s.Waiting)
	default:
		line("step", "%s%s", s.Step, s.progress())
	}
	if s.Cure != "" {
		line("cure", "%s", s.Cure)
	}
	line("since", "%s", s.Since.Format(time.RFC3339))
	return b.String() + bar + "\n"
}

func (s Status) progress() string {
	if s.Number == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d of %d, try %d)", s.Number, s.Of, s.Attempt)
}

// say writes the status, and one line to the console and the journal.
func (a *Agent) say(format string, args ...any) {
	a.print("imgbuild: " + fmt.Sprintf(format, args...) + "\n")
	a.save()
}

// show writes the status, and all of it to the console.
func (a *Agent) show() {
	a.save()
	a.print(a.status.Screen())
}

// banner says on the console that the node stopped, and what would help.
func (a *Agent) banner() {
	a.print("\nThis node did not join its cluster.\n" + a.status.Screen() + "\n")
}

func (a *Agent) print(text string) { _, _ = fmt.Fprint(a.Console, a.hide(text)) }

// save writes the status file; its time stays while nothing else changes.
func (a *Agent) save() {
	s := &a.status
	if now := s.Step + "\n" + s.Waiting + "\n" + s.Cause; now != a.said || s.Since.IsZero() {
		a.said, s.Since = now, repro.Now().UTC()
	}
	if s.Address = a.address(); s.Address == noAddress {
		s.Address = ""
	}
	data, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return // plain data cannot fail
	}
	data = append([]byte(a.hide(string(data))), '\n')
	for _, file := range []string{a.path(StatusFile), a.path(StateDir, "status.json")} {
		if err := writeDurably(file, data, 0o644); err != nil {
			a.print(fmt.Sprintf("imgbuild: cannot write %s: %v\n", file, err))
		}
	}
}

func (a *Agent) path(parts ...string) string {
	return filepath.Join(append([]string{"/", a.Root}, parts...)...)
}
