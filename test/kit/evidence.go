package kit

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
)

// brief is what tells most about a machine in the fewest lines: how busy it is, its
// containers, and the end of what each ended one of the control plane said.
const brief = `date; cat /proc/loadavg; tail -n 2 /proc/pressure/io /proc/pressure/cpu; df /var | tail -n 1; crictl ps -a
for n in etcd kube-apiserver kube-controller-manager kube-scheduler; do for c in $(crictl ps -a -q --state exited --name "^$n\$"); do echo "== $n $c"; crictl logs --tail 6 "$c" 2>&1 | cut -c 1-400; done; done`

// whole is what a person would look at, all of it.
const whole = `cat /run/imgbuild/status.json /var/lib/imgbuild/firstboot/journal.json; ls -laR /etc/kubernetes /var/lib/etcd /var/lib/kubelet/pki; cat /etc/kubernetes/manifests/etcd.yaml
systemctl --no-pager --full status kubelet containerd; for c in $(crictl ps -a -q); do echo "== $c"; crictl logs --tail 1000 "$c" 2>&1; done; journalctl -b --no-pager -o short-monotonic | tail -n 6000`

// Keep leaves the logs of machines that do not do as they should beside the temporary
// files, in imgbuild-WHAT-NAME.log, and tells the test the brief of them. One that is off is nil.
func Keep(t *testing.T, what string, machines ...*boottest.Machine) {
	t.Helper()
	for _, m := range machines {
		if m == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute) // t may have ended
		short, err := m.Sh(ctx, brief)
		long, err2 := m.Sh(ctx, whole)
		cancel()
		file := filepath.Join(os.TempDir(), "imgbuild-"+what+"-"+m.Name+".log")
		err = errors.Join(err, err2, os.WriteFile(file, []byte(short+"\n"+long+"\n"+m.Tail(1000)), 0o600))
		t.Logf("the logs of %s: %s (%v)\n%s", m.Name, file, err, short)
	}
}
