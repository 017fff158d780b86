package firstboot

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/template"

	_ "embed"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

// vipUnit is keepalived with the agent's configuration.
const vipUnit = "imgbuild-vip.service"

//go:embed keepalived.conf.tmpl
var keepalivedText string

var keepalivedTemplate = template.Must(template.New("keepalived.conf").Parse(keepalivedText))

// keepalivedConfig is what keepalived reads: who the masters are, in which order
// they take the address, and how it learns that the local API lives.
func keepalivedConfig(virtual, self, linkName string, masters []string) (string, error) {
	v := struct {
		Virtual, Self, Link string
		Priority            int
		Peers               []string
	}{virtual, self, linkName, 100 - slices.Index(masters, self), slices.DeleteFunc(slices.Clone(masters), func(m string) bool { return m == self })}
	if slices.Index(masters, self) < 0 {
		return "", fmt.Errorf("%s is not among the masters (%s)", self, strings.Join(masters, ", "))
	}
	if v.Virtual += "/32"; net.ParseIP(virtual).To4() == nil {
		v.Virtual = virtual + "/128"
	}
	var b strings.Builder
	err := keepalivedTemplate.Execute(&b, v)
	return b.String(), err
}

// holdAddress lets this machine take part in holding the virtual address, if the
// node config says so. It gets it once its own API lives.
func (a *Agent) holdAddress(ctx context.Context) error {
	a.journal.Virtual, a.journal.Masters = "", ""
	if a.config.VIP {
		host, _, err := net.SplitHostPort(a.config.Endpoint)
		if err != nil {
			return err
		}
		a.journal.Virtual, a.journal.Masters, a.journal.Address = host, strings.Join(a.config.Masters, " "), a.address()
	}
	if err := a.record(a.journal.Phase); err != nil {
		return err
	}
	return a.startVIP(ctx)
}

// resumeVIP is that of a member's later boots, which may have no node config any
// more: the journal knows the masters. A config that is there may bring a newer list.
func (a *Agent) resumeVIP(ctx context.Context) error {
	if a.journal.Virtual == "" {
		return nil
	}
	data, err := a.findConfig(ctx)
	if err == nil {
		c, err := config.Parse(data)
		ca, caErr := os.ReadFile(a.path("/etc/kubernetes/pki/ca.crt"))
		if errors.Join(err, caErr) == nil && c.VIP && c.CACert == string(ca) && slices.Contains(c.Masters, a.journal.Address) {
			a.journal.Masters = strings.Join(c.Masters, " ")
			if err := a.record(a.journal.Phase); err != nil {
				return err
			}
		}
	}
	return a.startVIP(ctx)
}

// startVIP waits for the link that has this machine's own address and starts keepalived.
func (a *Agent) startVIP(ctx context.Context) error {
	if a.journal.Virtual == "" {
		return nil
	}
	name := ""
	err := a.waitFor(ctx, func(context.Context) error {
		links, err := a.links()
		if err != nil {
			return err
		}
		i := slices.IndexFunc(links, func(l link) bool { return l.address == a.journal.Address })
		if i < 0 {
			return &fault{"look at the network", fmt.Errorf("no link has this machine's address %s", a.journal.Address)}
		}
		name = links[i].name
		return nil
	})
	if err != nil {
		return err
	}
	text, err := keepalivedConfig(a.journal.Virtual, a.journal.Address, name, strings.Fields(a.journal.Masters))
	if err != nil {
		return err
	}
	file := a.path(RunDir, "keepalived.conf")
	verb := "restart"
	if old, err := os.ReadFile(file); err == nil && string(old) == text { // #nosec G304 -- a fixed path of the node
		verb = "start" // a second try does not let the address go
	}
	if err := writeDurably(file, []byte(text), 0o600); err != nil {
		return err
	}
	if out, err := a.Runner.Run(ctx, "systemctl", verb, vipUnit); err != nil {
		return fmt.Errorf("starting keepalived: %w: %s", err, out)
	}
	return nil
}

// Livez asks this machine's own API server whether it lives: keepalived's question.
func (a *Agent) Livez(ctx context.Context) error {
	ca, err := os.ReadFile(a.path("/etc/kubernetes/pki/ca.crt"))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+localAPI+"/livez", nil)
	if err != nil {
		return err
	}
	res, err := a.client(trusting(pool), true).Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // only the status counts
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the API server answers %s", res.Status)
	}
	return nil
}
