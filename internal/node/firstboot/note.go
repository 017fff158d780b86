package firstboot

import (
	"context"
	"encoding/json"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

// noteTries is how often a new member looks for its Node object, which its kubelet
// makes: kubeadm does not wait for that.
const noteTries = 20

// note tells the cluster, once there is one that knows the node. It is for people:
// where it does not work in so many tries, nothing else stops.
func (a *Agent) note(ctx context.Context, tries int) {
	if a.journal.Phase != Published && a.journal.Phase != Committed {
		return
	}
	s := a.status
	data, err := json.Marshal(config.Note{Phase: string(s.Phase), Step: s.Step, Attempt: s.Attempt, Cause: s.Cause,
		Since: s.Since.Truncate(time.Second), Image: a.facts.PlanID})
	if err != nil {
		return // plain data cannot fail
	}
	for n := 1; ; n++ {
		out, err := a.Runner.Run(ctx, "kubectl", "--kubeconfig", a.path("/etc/kubernetes/kubelet.conf"), "--request-timeout=20s",
			"annotate", "node", a.journal.Hostname, "--overwrite", config.Annotation+"="+a.hide(string(data)))
		if err == nil || ctx.Err() != nil {
			return
		}
		if n == tries {
			a.say("the Node object does not tell of the first boot: %s", lastLine(out))
			return
		}
		if pause(ctx, a.Pause) != nil {
			return
		}
	}
}
