package source

import (
	"bytes"
	"errors"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func FuzzConstants(f *testing.F) {
	f.Add("package constants\nconst (\nDefaultEtcdVersion = \"3.7.0-0\"\nPauseVersion = \"3.10.2\"\nCoreDNSVersion = \"v1.14.6\"\n)\n")
	f.Add("package constants\nvar SupportedEtcdVersion = map[uint8]string{37: \"3.7.0-0\"}\n")
	f.Fuzz(func(_ *testing.T, text string) { _, _ = readConstants("constants.go", text, "1.37.2") })
}

func FuzzImageList(f *testing.F) {
	f.Add("registry.k8s.io/etcd:3.7.0-0\nregistry.k8s.io/coredns/coredns:v1.14.6\nregistry.k8s.io/pause:3.10.2\n")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := parseImageList(text); err == nil && (c.Etcd == "" || c.CoreDNS == "" || c.Pause == "") {
			t.Errorf("%q gives %+v", text, c)
		}
	})
}

func FuzzURIs(f *testing.F) {
	f.Add([]byte("'http://deb.example.org/pool/main/b/bash/bash_5.2%2b1_amd64.deb' bash_5.2%2b1_amd64.deb 1500792 SHA256:00\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		pins, err := DebianBase{Name: "debian-trixie"}.parseURIs(text)
		if lines := bytes.Count(text, []byte("'")); err == nil && len(pins) == 0 && lines > 0 {
			t.Errorf("%q gives nothing, and no error", text)
		}
	})
}

func FuzzCerts(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if certs, err := parseCerts(text); err == nil && len(certs) == 0 {
			t.Errorf("%q: no certificate, no error", text)
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:00","size":1,"platform":{"architecture":"amd64"},"annotations":{"org.opencontainers.image.ref.name":"a:1"}}]}`))
	f.Fuzz(func(_ *testing.T, text []byte) {
		_, _ = readIndex(text, "amd64", func(v1.Hash) ([]byte, error) { return nil, errors.New("none") })
	})
}
