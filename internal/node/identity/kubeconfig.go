package identity

import (
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// Admins is the group that kubeadm binds to the role cluster-admin.
const Admins = "kubeadm:cluster-admins"

// Operator is who a kubeconfig is for: the certificate's subject, and its life.
type Operator struct {
	User   string
	Groups []string
	TTL    time.Duration
}

// subjectForm is what may name a user or a group; X.509 allows 64 letters (RFC 5280, ub-common-name).
var subjectForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:._@-]{0,63}$`)

// Check reports everything that is wrong, joined. The group that goes past every
// authorisation is refused: what it may do cannot be taken back.
func (o Operator) Check() error {
	var errs []error
	if !subjectForm.MatchString(o.User) {
		errs = append(errs, fmt.Errorf("user %q: want up to 64 letters, digits and ':._@-'", o.User))
	}
	if len(o.Groups) == 0 {
		errs = append(errs, fmt.Errorf("no group: a user of none may do nothing; %s may do everything", Admins))
	}
	for _, g := range o.Groups {
		switch {
		case !subjectForm.MatchString(g):
			errs = append(errs, fmt.Errorf("group %q: want up to 64 letters, digits and ':._@-'", g))
		case g == "system:masters":
			errs = append(errs, fmt.Errorf("group %s: nothing can take its rights back until the CA changes; take %s, whose rights are a role binding", g, Admins))
		}
	}
	if o.TTL <= 0 {
		errs = append(errs, fmt.Errorf("lifetime %v: want a duration such as 8h", o.TTL))
	}
	return errors.Join(errs...)
}

// Kubeconfig mints a kubeconfig for an operator, signed by the cluster's CA. The
// text is a secret.
func (c *Cluster) Kubeconfig(o Operator) (config.Secret, error) {
	if err := o.Check(); err != nil {
		return config.Secret{}, err
	}
	ca, err := config.ParseCert(c.CACert)
	if err != nil {
		return config.Secret{}, err
	}
	if end := repro.Now().Add(o.TTL); end.After(ca.NotAfter) {
		return config.Secret{}, fmt.Errorf("lifetime %v: the cluster's CA ends before that, at %s", o.TTL, ca.NotAfter.Format(time.RFC3339))
	}
	cert, key, err := client(c.CACert, c.PKI.CAKey, pkix.Name{CommonName: o.User, Organization: o.Groups}, o.TTL)
	if err != nil {
		return config.Secret{}, err
	}
	user := fmt.Sprintf("\n    client-certificate-data: %s\n    client-key-data: %s", b64(cert), b64(key.Reveal()))
	return config.NewSecret(kubeconfigText(c.Name, "https://"+c.Endpoint, c.CACert, o.User, user)), nil
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func kubeconfigText(cluster, server, caCert, name, user string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: %[1]q
  cluster:
    server: %[2]s
    certificate-authority-data: %[3]s
users:
- name: %[4]q
  user: %[5]s
contexts:
- name: "%[4]s@%[1]s"
  context: {cluster: %[1]q, user: %[4]q}
current-context: "%[4]s@%[1]s"
`, cluster, server, b64(caCert), name, user)
}
