package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/builder/verify"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/vnet"
	"github.com/imgbuild/imgbuild/test/kit"
)

// nodesByKubeconfig lists the cluster's nodes as an operator outside would, with
// nothing but the minted kubeconfig.
func nodesByKubeconfig(t *testing.T, n *vnet.Net, text string) []string {
	t.Helper()
	var k struct {
		Clusters []struct {
			Cluster struct {
				Server string
				CA     string `json:"certificate-authority-data"`
			}
		}
		Users []struct {
			User struct {
				Cert string `json:"client-certificate-data"`
				Key  string `json:"client-key-data"`
			}
		}
	}
	must(t, yaml.Unmarshal([]byte(text), &k))
	plain := func(s string) []byte {
		out, err := base64.StdEncoding.DecodeString(s)
		must(t, err)
		return out
	}
	pair, err := tls.X509KeyPair(plain(k.Users[0].User.Cert), plain(k.Users[0].User.Key))
	must(t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(plain(k.Clusters[0].Cluster.CA))
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext:     func(ctx context.Context, _, addr string) (net.Conn, error) { return n.Dial(ctx, addr) },
		TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}}}
	res, err := client.Get(k.Clusters[0].Cluster.Server + "/api/v1/nodes")
	must(t, err)
	defer res.Body.Close()
	var list struct {
		Items []struct{ Metadata struct{ Name string } }
	}
	must(t, json.NewDecoder(res.Body).Decode(&list))
	var names []string
	for _, item := range list.Items {
		names = append(names, item.Metadata.Name)
	}
	return names
}

// refuseCorruptRoot boots an image with a damaged root: the kernel must refuse it.
func refuseCorruptRoot(ctx context.Context, t *testing.T, image string, k kit.Kit) {
	bad := filepath.Join(k.Dir, "bad.raw")
	must(t, run.Run(ctx, run.Cmd{Name: "qemu-img", Args: []string{"convert", "-f", "qcow2", "-O", "raw", image, bad}}))
	defer os.Remove(bad)
	good, err := verify.Image(ctx, bad)
	must(t, err)
	f, err := os.OpenFile(bad, os.O_RDWR, 0)
	must(t, err)
	for _, p := range good.Partitions {
		if p.Name == "imgbuild-root" {
			_, err = f.WriteAt(make([]byte, 100<<20), p.Start+1<<20)
			must(t, err)
		}
	}
	must(t, f.Close())
	if report, err := verify.Image(ctx, bad); err == nil && len(report.Findings) == 0 {
		t.Error("verify finds nothing wrong with a root whose first 100 MiB are zero")
	}
	scratch := t.TempDir()
	m, err := boottest.Start(ctx, boottest.Node{Name: "corrupt", Image: bad, IP: kit.WorkerIP, Memory: 1024, CPUs: 2}, scratch, "", false)
	must(t, err)
	defer m.Kill()
	for end := time.Now().Add(4 * time.Minute); ; time.Sleep(time.Second) {
		console := m.Tail(2000)
		if strings.Contains(console, "is corrupted") {
			return
		}
		if strings.Contains(console, "Reached target multi-user.target") || time.Now().After(end) {
			t.Fatalf("the kernel does not refuse a corrupt root:\n%s", m.Tail(40))
		}
	}
}
