// Package lock says what was asked for (Request) and what that was resolved to
// (Pin). It holds the lock file's format, imgbuild.lock, and decides whether a
// lock still answers a spec. It downloads nothing.
package lock

// Kind says what a request asks for.
type Kind string

// The kinds of input that a node is made of.
const (
	KindBase  Kind = "base"  // a base operating system: a Debian package set or an OCI image
	KindPart  Kind = "part"  // an executable: kubeadm, containerd, crictl …
	KindImage Kind = "image" // a container image that lies on board
)

// Request is what a component asks for. Version is without a leading "v";
// Source is one of the names in builder/source's table, or "auto".
type Request struct {
	Kind    Kind     `json:"kind"`
	Name    string   `json:"name"`
	Version string   `json:"version,omitempty"`
	Source  string   `json:"source"`
	Args    []string `json:"args,omitempty"` // what the source needs to know: packages, a folder, a reference
}

// Pin is a request resolved: everything that is needed to fetch the same bytes again.
// For a gomodule pin URL is "module@version" and Digest its "h1:" sum as in go.sum,
// vouched for by the Go checksum database; for all others Digest is "sha256:…".
type Pin struct {
	Request string            `json:"request"` // name of the request that it answers
	Kind    Kind              `json:"kind"`
	Name    string            `json:"name"`
	Version string            `json:"version"`
	Arch    string            `json:"arch"`
	Source  string            `json:"source"`
	URL     string            `json:"url,omitempty"`
	Size    int64             `json:"size,omitempty"`
	Digest  string            `json:"digest"`
	Args    map[string]string `json:"args,omitempty"`
}
