package kit

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// EtcdHealthy asks the etcd of a master whether it is healthy; the client has a
// certificate of etcd's CA.
func EtcdHealthy(ctx context.Context, client *http.Client, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+net.JoinHostPort(address, "2379")+"/health", nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(res.Body)
	if err == nil && !strings.Contains(string(text), `"health":"true"`) {
		err = fmt.Errorf("etcd at %s: %s", address, text)
	}
	return err
}
