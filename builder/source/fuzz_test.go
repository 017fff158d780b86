package source

import (
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
