package source

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/internal/fetch"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// DefaultReleaseURL is the upstream release host of Kubernetes.
const DefaultReleaseURL = "https://dl.k8s.io"

// probeTime is how long auto waits for the release host and the registry.
const probeTime = 5 * time.Second

// release takes Kubernetes' executables from a host laid out as the upstream
// one: release/vX/bin/linux/ARCH/NAME, beside it .sha256, .sig and .cert. Images
// come from their registry, by digest. Parts of other projects it does not carry.
type release struct {
	opt  Options
	http *fetch.Client
	note sync.Once
}

var _ Source = (*release)(nil)

// releaseParts are the executables that a release has.
var releaseParts = []string{"kubeadm", "kubelet", "kubectl", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"}

func newRelease(o Options) *release {
	return &release{opt: o, http: fetch.New(o.Store, fetch.Options{Offline: o.Offline,
		Progress: func(done, total int64) { o.Report.Progress("release", done, total, "B") }})}
}

func releaseURL(o Options) string {
	if o.ReleaseURL == "" {
		return DefaultReleaseURL
	}
	return strings.TrimSuffix(o.ReleaseURL, "/")
}

func releaseFile(o Options, part, version string) string {
	return fmt.Sprintf("%s/release/v%s/bin/linux/%s/%s", releaseURL(o), strings.TrimPrefix(version, "v"), o.Arch, part)
}

var hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Resolve implements Source. With roots given, the signature over the digest is
// checked here, and kept in the pin so that a later build checks it again without asking.
func (r *release) Resolve(ctx context.Context, req lock.Request) (lock.Pin, error) {
	if req.Kind == lock.KindImage {
		return pullPin(ctx, r.opt, req, "release")
	}
	if !slices.Contains(releaseParts, req.Name) {
		return lock.Pin{}, fmt.Errorf("the Kubernetes release has no %s: %w", req.Name, ErrNotOffered)
	}
	url := releaseFile(r.opt, req.Name, req.Version)
	text, err := r.http.Small(ctx, url+".sha256", 4096)
	if errors.Is(err, fetch.ErrNotFound) {
		return lock.Pin{}, fmt.Errorf("%w: is there a Kubernetes %s?", err, req.Version)
	}
	if err != nil {
		return lock.Pin{}, err
	}
	sum, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	if !hexDigest.MatchString(sum) {
		return lock.Pin{}, fmt.Errorf("%s.sha256 holds no SHA-256 digest", url)
	}
	pin := lock.Pin{Request: req.Name, Kind: req.Kind, Name: req.Name, Version: strings.TrimPrefix(req.Version, "v"), Arch: r.opt.Arch, Source: "release", URL: url, Digest: "sha256:" + sum}
	if r.opt.ReleaseRoots == "" {
		r.note.Do(func() {
			r.opt.Report.Note("release executables are checked by digest only, not by signature: set kubernetes.release.roots to a file with the signers' root certificates")
		})
		return pin, nil
	}
	if err := r.addSignature(ctx, &pin); err != nil {
		return lock.Pin{}, err
	}
	return pin, r.checkSignature(pin)
}

// addSignature fetches .sig and .cert; both are base64 on the upstream host.
func (r *release) addSignature(ctx context.Context, pin *lock.Pin) error {
	pin.Args = map[string]string{}
	for _, kind := range []string{"sig", "cert"} {
		text, err := r.http.Small(ctx, pin.URL+"."+kind, 64<<10)
		if err != nil {
			return err
		}
		plain := strings.Join(strings.Fields(string(text)), "")
		if strings.HasPrefix(string(text), "-----BEGIN") { // a mirror that keeps the certificate as PEM
			plain = base64.StdEncoding.EncodeToString(text)
		}
		pin.Args[kind] = plain
	}
	return nil
}

func (r *release) checkSignature(pin lock.Pin) error {
	if err := verifySignature(pin, r.opt.ReleaseRoots, r.opt.ReleaseSigner); err != nil {
		return fmt.Errorf("checking the signature of %s: %w", pin.URL, err)
	}
	return nil
}

// Parts implements Source.
func (r *release) Parts(ctx context.Context, pins []lock.Pin) ([]Executable, error) {
	items := make([]fetch.Item, len(pins))
	for i, pin := range pins {
		if r.opt.ReleaseRoots != "" {
			if err := r.checkSignature(pin); err != nil {
				return nil, err
			}
		}
		items[i] = fetch.Item{URL: pin.URL, Size: pin.Size, SHA256: pin.Digest}
	}
	defer r.opt.Report.Stage(fmt.Sprintf("fetching %d executables of the release", len(pins)))()
	paths, err := r.http.All(ctx, items)
	if err != nil {
		return nil, err
	}
	out := make([]Executable, len(pins))
	for i, pin := range pins {
		if out[i], err = executable(pin.Name, paths[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Images implements Source: it pulls exactly the pinned images.
func (r *release) Images(ctx context.Context, pins []lock.Pin, _ *tree.Tree) ([]Image, error) {
	return (&ociImage{opt: r.opt}).Images(ctx, pins, nil)
}

// Constants implements Source by running the release's kubeadm.
func (r *release) Constants(ctx context.Context, kubernetes string) (Constants, error) {
	pin, err := r.Resolve(ctx, lock.Request{Kind: lock.KindPart, Name: "kubeadm", Version: kubernetes})
	if err != nil {
		return Constants{}, err
	}
	return constantsBy(ctx, r, r.opt, pin, kubernetes)
}

// probeRelease says, soon, whether the release host and the registry can be used; nil means yes.
func probeRelease(ctx context.Context, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	quick := fetch.New(o.Store, fetch.Options{Retries: -1, Stall: probeTime, Offline: o.Offline})
	if _, err := quick.Small(ctx, releaseFile(o, "kubeadm", o.Kubernetes)+".sha256", 4096); err != nil {
		return err
	}
	ref, err := name.ParseReference(standIn(o.Registry, KubeadmRegistry+"/kube-apiserver:v"+o.Kubernetes))
	if err != nil {
		return err
	}
	if _, err := remote.Head(ref, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return fmt.Errorf("asking the registry for %s: %w", ref, err)
	}
	return nil
}
