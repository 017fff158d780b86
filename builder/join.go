package builder

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/builder/bill"
	"github.com/imgbuild/imgbuild/builder/host"
	"github.com/imgbuild/imgbuild/builder/output"
	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/internal/fault"
)

// hear loads everything that the caller says by name: spec, node config, key.
func (o *Options) hear(ctx context.Context) (*spec.Node, *bill.Key, error) {
	node, err := Load(*o)
	if err != nil {
		return nil, nil, err
	}
	if o.join, err = loadJoin(*o, node); err != nil {
		return nil, nil, err
	}
	key, err := loadKey(ctx, *o)
	return node, key, err
}

// loadJoin says how hosts come by their node config, where a flag does. Neither the
// URL nor the text is in the spec: manifest and provenance do not have them.
func loadJoin(o Options, n *spec.Node) (join host.Join, err error) {
	switch {
	case o.InlineJoin == "" && o.JoinURL == "":
		return host.Join{}, nil
	case o.InlineJoin != "" && o.JoinURL != "":
		return host.Join{}, fault.New(fault.Usage, "--inline-join and --join-url: use one of them")
	case !slices.ContainsFunc(n.Output.Formats, isConfig):
		return host.Join{}, fault.New(fault.Usage, "--inline-join and --join-url are for a config for hosts: add --format ignition or cloud-init; a disk image gets its node config at boot")
	case o.JoinURL != "":
		if join, err = host.JoinFrom(o.JoinURL); err != nil {
			return host.Join{}, fault.New(fault.Usage, "--join-url: %w", err)
		}
		if strings.HasPrefix(join.URL, "http:") {
			o.Report.Note("--join-url: without TLS, whoever is on the way can read the token; use https, or a network that is yours alone")
		}
		return join, nil
	}
	text, err := os.ReadFile(o.InlineJoin)
	if err != nil {
		return host.Join{}, fault.New(fault.Usage, "--inline-join: %w", err)
	}
	if join, err = host.JoinWith(text, n.Role); err != nil {
		return host.Join{}, fault.New(fault.Spec, "--inline-join %s: %w", o.InlineJoin, err)
	}
	return join, nil
}

func isConfig(format string) bool {
	f, err := output.Find(format)
	return err == nil && f.Reads == output.AsConfig
}

// joinKey tells builds apart that differ in it; it gives nothing away.
func joinKey(j host.Join) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(j.URL+"\n"+j.Inline.Reveal())))
}

// joinFlag is the flag that said how hosts join, or nothing.
func joinFlag(j host.Join) string {
	switch {
	case j.URL != "":
		return "join-url"
	case !j.Inline.Empty():
		return "inline-join"
	}
	return ""
}
