package firstboot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
)

// looks is how often the endpoint is asked who is there: a load balancer sends each
// connection to another machine.
const looks = 4

// localAPI is this machine's own API server.
const localAPI = "127.0.0.1:6443"

// stop records that this node config is not tried again, and takes away what was
// made under it, which nobody has seen.
func (a *Agent) stop(ctx context.Context, reason string) error {
	a.journal.Stopped = reason
	if err := a.record(a.journal.Phase); err != nil {
		return err
	}
	if err := a.wipe(ctx); err != nil {
		return err
	}
	return a.whyStopped()
}

func (a *Agent) whyStopped() error {
	return &fault{"give this machine the node config of a master that joins (master-join.yaml), or switch it off", errors.New(a.journal.Stopped)}
}

// ownEndpoint says whether the endpoint is this machine's own address, so that
// nobody else can answer there.
func (a *Agent) ownEndpoint() bool {
	host, _, err := net.SplitHostPort(a.config.Endpoint)
	return err == nil && host == a.address()
}

// refuseSecond stops a first master whose cluster is there already: whoever answers
// at the endpoint by a certificate of this cluster's CA has initialised it.
func (a *Agent) refuseSecond(ctx context.Context) error {
	if a.journal.Phase != Fresh || a.ownEndpoint() {
		return nil
	}
	client := a.client(a.trust(), true)
	for i := range looks {
		answers := false
		err := a.waitFor(ctx, func(ctx context.Context) (err error) {
			answers, err = a.someoneAnswers(ctx, client)
			return err
		})
		if err != nil {
			return err
		}
		if answers {
			return a.stop(ctx, fmt.Sprintf("%s is answered by a master of this cluster: it is initialised already, and a second first master would make another", a.config.Endpoint))
		}
		if i < looks-1 {
			if err := pause(ctx, a.Pause); err != nil {
				return err
			}
		}
	}
	return nil
}

// someoneAnswers says whether an API server of this cluster is at the endpoint,
// well or not. A stranger there is an error: it has to be mended.
func (a *Agent) someoneAnswers(ctx context.Context, client *http.Client) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+a.config.Endpoint+"/version", nil)
	if err != nil {
		return false, err
	}
	res, err := client.Do(req)
	if err == nil {
		return true, res.Body.Close()
	}
	if why, stranger := a.answerFault(err); stranger {
		return false, why
	}
	return false, nil
}

// beAlone wants this machine's control plane to be the only one at the endpoint,
// before anyone can know of it. Of two that are new, the one whose kube-system has
// the lower UID stays, and waits until the other is gone; one that is published
// stays in any case. The other is wiped and stops.
func (a *Agent) beAlone(ctx context.Context) error {
	if a.journal.Phase == Published {
		return nil
	}
	own, need, agreed, rival := "", looks, 0, ""
	if a.ownEndpoint() {
		need = 1
	}
	err := a.waitFor(ctx, func(ctx context.Context) (err error) {
		if own == "" {
			if own, _, err = a.look(ctx, localAPI); err != nil {
				return fmt.Errorf("this machine's API does not answer yet: %w", err)
			}
		}
		seen, published, err := a.look(ctx, a.config.Endpoint)
		switch {
		case err != nil:
			agreed = 0
			return &fault{"does the endpoint lead to this machine?", fmt.Errorf("%s does not answer as this cluster: %w", a.config.Endpoint, err)}
		case seen == own:
			if agreed++; agreed < need {
				return errors.New("asking at the endpoint whether this is the only first master")
			}
			return nil
		case published || seen < own:
			rival = seen
			return nil
		}
		agreed = 0
		return &fault{"", errors.New("another first master is at the endpoint; it gives way")}
	})
	if err != nil || rival == "" {
		return err
	}
	return a.stop(ctx, fmt.Sprintf("another first master has made this cluster: at %s the namespace kube-system is %s, here it is %s", a.config.Endpoint, rival, own))
}

// look asks, by one connection, which cluster an API server serves, by the UID of
// its kube-system, and whether it is published.
func (a *Agent) look(ctx context.Context, address string) (uid string, published bool, err error) {
	client, err := a.adminClient()
	if err != nil {
		return "", false, err
	}
	defer client.CloseIdleConnections()
	var object struct{ Metadata struct{ UID string } }
	found, err := get(ctx, client, "https://"+address+"/api/v1/namespaces/kube-system", &object)
	if err == nil && (!found || object.Metadata.UID == "") {
		err = fmt.Errorf("%s has no kube-system yet", address)
	}
	if err != nil {
		return "", false, err
	}
	published, err = get(ctx, client, "https://"+address+"/api/v1/namespaces/kube-public/configmaps/cluster-info", &struct{}{})
	return object.Metadata.UID, published, err
}
