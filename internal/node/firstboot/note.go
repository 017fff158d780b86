package firstboot

import (
	"context"
	"encoding/json"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

// noteTries is how often a boot looks for this member's Node object, which its kubelet
// makes: kubeadm does not wait for that.
const noteTries = 100

// newNote is what the status says of a phase, for the Node object.
func (a *Agent) newNote(p Phase) *config.Note {
	s := a.status
	return &config.Note{Phase: string(p), Step: s.Step, Attempt: s.Attempt, Cause: s.Cause,
		Since: s.Since.Truncate(time.Second), Image: a.facts.PlanID}
}

// tell puts a note on this machine's Node object, in so many tries. It is for people:
// where it does not work, nothing else stops.
func (a *Agent) tell(ctx context.Context, note *config.Note, tries int) bool {
	data, err := json.Marshal(note)
	if err != nil {
		return false // plain data cannot fail
	}
	for n := 1; ; n++ {
		out, err := a.Runner.Run(ctx, "kubectl", "--kubeconfig", a.path("/etc/kubernetes/kubelet.conf"), "--request-timeout=20s",
			"annotate", "node", a.journal.Hostname, "--overwrite", config.Annotation+"="+a.hide(string(data)))
		if err == nil || ctx.Err() != nil {
			return err == nil
		}
		if n == tries {
			a.say("the Node object does not tell of the first boot: %s", lastLine(out))
			return false
		}
		if pause(ctx, a.Pause) != nil {
			return false
		}
	}
}

// tellRest tells what the record says that the cluster was not told of this member: a
// power cut may come between the two, and the API may be away.
func (a *Agent) tellRest(ctx context.Context) {
	if a.journal.Note == nil || !a.tell(ctx, a.journal.Note, noteTries) {
		return
	}
	a.journal.Note = nil
	if err := a.record(a.journal.Phase); err != nil {
		a.say("the next boot tells the cluster of the first once more: %v", err)
	}
}
