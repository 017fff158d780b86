package faults

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/node/identity"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/vnet"
)

// How the endpoint treats a machine.
const (
	through  = ""         // to the first master
	dead     = "dead"     // nobody there
	busy     = "busy"     // a load balancer that has nobody behind it: 503
	stranger = "stranger" // somebody who has another CA's certificate
)

// balancer is the cluster's endpoint: a load balancer on the gateway, which can be
// bad to one machine and good to the others.
type balancer struct {
	net   *vnet.Net
	to    string
	certs map[string]*tls.Config

	mu     sync.Mutex
	treats map[string]string // address of a machine → how
	told   int               // bytes that machines said to the stranger, inside TLS
}

func newBalancer(n *vnet.Net, own, other *identity.Cluster, to string) (*balancer, error) {
	b := &balancer{net: n, to: to, treats: map[string]string{}, certs: map[string]*tls.Config{}}
	for how, c := range map[string]*identity.Cluster{busy: own, stranger: other} {
		conf, err := serverTLS(c)
		if err != nil {
			return nil, err
		}
		b.certs[how] = conf
	}
	l, err := n.Listen(Endpoint)
	if err != nil {
		return nil, err
	}
	go b.accept(l)
	return b, nil
}

// treat says how a machine is treated from now on.
func (b *balancer) treat(ip, how string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.treats[ip] = how
}

func (b *balancer) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return // closed
		}
		go b.serve(conn)
	}
}

func (b *balancer) serve(conn net.Conn) {
	defer conn.Close()
	host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
	b.mu.Lock()
	how := b.treats[host]
	b.mu.Unlock()
	switch how {
	case through:
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		master, err := b.net.Dial(ctx, b.to)
		if err != nil {
			return
		}
		defer master.Close()
		go func() { _, _ = io.Copy(master, conn); _ = master.Close() }()
		_, _ = io.Copy(conn, master)
	case dead:
	default:
		_ = conn.SetDeadline(repro.Now().Add(20 * time.Second))
		inner := tls.Server(conn, b.certs[how])
		said := make([]byte, 4096)
		n, err := inner.Read(said)
		if how == stranger {
			b.mu.Lock()
			b.told += n
			b.mu.Unlock()
		}
		if err == nil {
			_, _ = io.WriteString(inner, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}
	}
}

// serverTLS is a server's certificate for the endpoint, by the CA of a cluster.
func serverTLS(c *identity.Cluster) (*tls.Config, error) {
	ca, _ := pem.Decode([]byte(c.CACert))
	key, _ := pem.Decode([]byte(c.PKI.CAKey.Reveal()))
	if ca == nil || key == nil {
		return nil, errors.New("the identity holds no CA")
	}
	parent, err := x509.ParseCertificate(ca.Bytes)
	if err != nil {
		return nil, err
	}
	signer, err := x509.ParseECPrivateKey(key.Bytes)
	if err != nil {
		return nil, err
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "balancer"}, NotBefore: parent.NotBefore, NotAfter: parent.NotAfter,
		IPAddresses: []net.IP{net.ParseIP(boottest.Gateway)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, parent, own.Public(), signer)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: own}}}, err
}
