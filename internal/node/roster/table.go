package roster

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Write says it to a person, now being the time to count from.
func (r *Roster) Write(out io.Writer, now time.Time) error {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster %s at %s, Kubernetes %s\n\n", r.Cluster, r.Server, r.Version)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tROLE\tSTATE\tSINCE\tFIRST BOOT\tKUBELET\tADDRESS")
	for _, n := range r.Nodes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", n.Name, n.Role, n.state(), ago(now, n.Since), n.firstBoot(now), n.Version, n.Address)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(r.Nodes) == 0 {
		b.WriteString("no node has joined yet\n")
	}
	b.WriteString("\n")
	for _, n := range r.Nodes {
		if n.Waiting != "" {
			fmt.Fprintf(&b, "%s waits: %s\n", n.Name, n.Waiting)
		}
		if n.FirstBoot != nil && n.FirstBoot.Cause != "" {
			fmt.Fprintf(&b, "%s failed at %s: %s\n", n.Name, n.FirstBoot.Step, n.FirstBoot.Cause)
		}
	}
	for _, q := range r.Requests {
		fmt.Fprintf(&b, "request %s of %s waits for an answer since %s: kubectl certificate approve %s\n", q.Name, q.By, ago(now, q.Since), q.Name)
	}
	b.WriteString(r.tokens(now))
	if len(r.Hidden) > 0 {
		fmt.Fprintf(&b, "this user may not see: %s\n", strings.Join(r.Hidden, ", "))
	}
	b.WriteString("A machine that has not joined cannot be seen from here: its console, and `imgbuild-firstboot status` on it, say what it waits for.\n")
	_, err := io.WriteString(out, b.String())
	return err
}

func (r *Roster) tokens(now time.Time) string {
	var b strings.Builder
	for _, t := range r.Tokens {
		switch {
		case t.Ends == nil:
			fmt.Fprintf(&b, "token %s never ends\n", t.ID)
		case t.Ends.After(now):
			fmt.Fprintf(&b, "token %s ends in %s\n", t.ID, ago(*t.Ends, now))
		default:
			fmt.Fprintf(&b, "token %s has ended\n", t.ID)
		}
	}
	if b.Len() == 0 && len(r.Hidden) == 0 {
		return "no join token: new machines cannot join until `imgbuild cluster token DIR` makes one\n"
	}
	return b.String()
}

func (n Node) state() string {
	state := "NotReady"
	if n.Ready {
		state = "Ready"
	}
	if n.Cordoned {
		state += ", cordoned"
	}
	return state
}

func (n Node) firstBoot(now time.Time) string {
	if n.FirstBoot == nil {
		return "not noted"
	}
	text := n.FirstBoot.Phase
	if n.FirstBoot.Attempt > 1 {
		text += fmt.Sprintf(", try %d", n.FirstBoot.Attempt)
	}
	return text + ", " + ago(now, n.FirstBoot.Since)
}

// ago is the time between, in the two largest of its units.
func ago(now, then time.Time) string {
	d := now.Sub(then).Truncate(time.Second)
	switch {
	case then.IsZero():
		return "?"
	case d < time.Minute:
		return d.String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}
