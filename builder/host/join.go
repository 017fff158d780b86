package host

import (
	"fmt"
	"net/url"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

// Join is how a host comes by its node config, where the config for the host has to do
// with it. The zero value: by a credential of the machine, or a seed disk.
type Join struct {
	URL    string        // it is fetched from there
	Inline config.Secret // it stands in the config
}

// None says that the config has nothing to do with it.
func (j Join) None() bool { return j.URL == "" && j.Inline.Empty() }

// JoinFrom checks a URL that hosts are to fetch their node config from.
func JoinFrom(address string) (Join, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return Join{}, fmt.Errorf("want an http(s) URL that hosts fetch their node config from") // it may hold a key: it is not repeated
	}
	if u.User != nil {
		return Join{}, fmt.Errorf("a user name or password has no place in a URL that stands in provider metadata")
	}
	return Join{URL: u.String()}, nil
}

// JoinWith checks a node config that is to stand in the config for a host, where
// whoever sees the provider's metadata can read it.
func JoinWith(text []byte, role string) (Join, error) {
	c, err := config.Parse(text)
	switch {
	case err != nil:
		return Join{}, err
	case c.PKI != nil:
		return Join{}, fmt.Errorf("it holds the keys that sign for the cluster, and a config for a host is no place for them: " +
			"give it to the machine as a credential, on a seed disk, or by --join-url")
	case c.Role != role:
		return Join{}, fmt.Errorf("it is a %s's, and this is a %s", c.Role, role)
	}
	return Join{Inline: config.NewSecret(string(text))}, nil
}
