package firstboot

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// waitForAPI waits until the endpoint answers with a certificate of this
// cluster's CA and knows the token. It never talks to anyone else: a wrong
// certificate is told, and waited out, without a secret being sent.
func (a *Agent) waitForAPI(ctx context.Context) error {
	client := a.client(a.trust(), true)
	return a.waitFor(ctx, func(ctx context.Context) error { return a.askAPI(ctx, client) })
}

// trust believes this cluster's CA alone.
func (a *Agent) trust() *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(a.config.CACert))
	return trusting(pool)
}

func trusting(pool *x509.CertPool) *tls.Config {
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// lookAgain is after how many vain questions the node config is read again: a
// person may have put a fresh token or the right endpoint into it.
const lookAgain = 5

// configChanged notes whether there is another node config than the one in use.
func (a *Agent) configChanged(ctx context.Context) bool {
	if a.config == nil {
		return false
	}
	data, err := a.findConfig(ctx)
	a.changed = err == nil && sum(data) != a.sum
	return a.changed
}

// answerFault says what is wrong with an answer that did not come to TLS, and
// whether it came from somebody who is not of this cluster.
func (a *Agent) answerFault(err error) (f *fault, stranger bool) {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	switch {
	case errors.As(err, &unknown):
		return &fault{"check the endpoint, and that node config and cluster belong together",
			fmt.Errorf("%s answers with a certificate that this cluster's CA did not sign", a.config.Endpoint)}, true
	case errors.As(err, &host):
		return &fault{"check the endpoint", fmt.Errorf("%s answers with a certificate for other names", a.config.Endpoint)}, true
	}
	return &fault{"is the first master on, and the network between?", fmt.Errorf("%s does not answer", a.config.Endpoint)}, false
}

func (a *Agent) askAPI(ctx context.Context, client *http.Client) error {
	addr := "https://" + a.config.Endpoint + "/api/v1/namespaces/kube-public/configmaps/cluster-info"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, addr, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		f, _ := a.answerFault(err)
		return f
	}
	defer res.Body.Close() //nolint:errcheck // read only
	var info struct{ Data map[string]string }
	if res.StatusCode != http.StatusOK || json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&info) != nil {
		return &fault{"wait for the first master's first boot to end", fmt.Errorf("%s answers %s, the cluster is not published yet", a.config.Endpoint, res.Status)}
	}
	if id := a.config.Token.Reveal()[:6]; info.Data["jws-kubeconfig-"+id] == "" {
		return &fault{"make the token anew (`imgbuild cluster token`) and give the machine its node config on a seed disk",
			errors.New("the cluster does not know the token: it has ended, or is not signed yet")}
	}
	return nil
}
