package firstboot

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/node/identity"
)

// registration is the part that init and join share (kubeadm API v1beta4).
func registration(c *config.NodeConfig, hostname string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "nodeRegistration:\n  name: %q\n  criSocket: %s\n  imagePullPolicy: IfNotPresent\n", hostname, criSocket)
	if c.NodeIP != "" {
		fmt.Fprintf(&b, "  kubeletExtraArgs:\n  - {name: node-ip, value: %q}\n", c.NodeIP)
	}
	return b.String()
}

// timeouts are for slow disks and emulated machines; a quick one never meets them.
const timeouts = `timeouts:
  controlPlaneComponentHealthCheck: 12m0s
  kubeletHealthCheck: 8m0s
  kubernetesAPICall: 12m0s
  etcdAPICall: 10m0s
  tlsBootstrap: 12m0s
  discovery: 10m0s
`

// kubeletConfig is the cluster's KubeletConfiguration: the CIS benchmark's asks
// that kubeadm's defaults leave open, and what a built node promises.
const kubeletConfig = `---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: systemd
failSwapOn: true
failCgroupV1: true
protectKernelDefaults: true
makeIPTablesUtilChains: true
seccompDefault: true
podPidsLimit: 4096
readOnlyPort: 0
resolvConf: /run/systemd/resolve/resolv.conf
rotateCertificates: true
tlsMinVersion: VersionTLS12
tlsCipherSuites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]
`

// leaseArgs let the leader of the control plane's loops keep its place through a
// slow disk or processor for 40 s; the defaults give up after 10 s, and a node that
// is only slow then restarts them again and again.
const leaseArgs = `  - {name: leader-elect-lease-duration, value: 60s}
  - {name: leader-elect-renew-deadline, value: 40s}
  - {name: leader-elect-retry-period, value: 8s}
`

// apiServerArgs are what the CIS benchmark asks of the API server beyond kubeadm's
// defaults: 1.2.15-1.2.19 and 1.2.30. The policy comes with the image.
const apiServerArgs = `  extraArgs:
  - {name: profiling, value: "false"}
  - {name: service-account-extend-token-expiration, value: "false"}
  - {name: audit-policy-file, value: /etc/imgbuild/audit-policy.yaml}
  - {name: audit-log-path, value: /var/log/kubernetes/audit/audit.log}
  - {name: audit-log-maxage, value: "30"}
  - {name: audit-log-maxbackup, value: "10"}
  - {name: audit-log-maxsize, value: "100"}
  extraVolumes:
  - {name: audit-policy, hostPath: /etc/imgbuild/audit-policy.yaml, mountPath: /etc/imgbuild/audit-policy.yaml, readOnly: true, pathType: File}
  - {name: audit-log, hostPath: /var/log/kubernetes/audit, mountPath: /var/log/kubernetes/audit, pathType: DirectoryOrCreate}
`

// patches are the owner's changes to static pods and the kubelet's configuration.
func patches(f config.Facts) string {
	if !f.Patches {
		return ""
	}
	return "patches:\n  directory: " + config.PatchesDir + "\n"
}

// KubeadmConfig is what kubeadm reads (API v1beta4): for init on the first master,
// for join on every other node, where the CA is pinned by its hash.
func KubeadmConfig(f config.Facts, c *config.NodeConfig, hostname string) (string, error) {
	if c.Role == config.Master && !c.Joins {
		return initConfig(f, c, hostname)
	}
	hash, err := identity.CAHash(c.CACert)
	if err != nil {
		return "", err
	}
	return joinConfig(f, c, hostname, hash), nil
}

func initConfig(f config.Facts, c *config.NodeConfig, hostname string) (string, error) {
	host, _, err := net.SplitHostPort(c.Endpoint)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nbootstrapTokens:\n- token: %s\n  ttl: %s\n  description: join token of the cluster's identity\n",
		c.Token.Reveal(), orDefault(c.TokenTTL, "24h0m0s"))
	if c.NodeIP != "" {
		fmt.Fprintf(&b, "localAPIEndpoint:\n  advertiseAddress: %q\n", c.NodeIP)
	}
	b.WriteString(registration(c, hostname) + patches(f) + timeouts)
	fmt.Fprintf(&b, "---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nclusterName: %q\nkubernetesVersion: v%s\ncontrolPlaneEndpoint: %q\n",
		c.Cluster, f.KubernetesVersion, c.Endpoint)
	fmt.Fprintf(&b, "encryptionAlgorithm: ECDSA-P256\nnetworking:\n  podSubnet: %s\n  serviceSubnet: %s\n  dnsDomain: %s\n", f.PodCIDR, f.ServiceCIDR, f.DNSDomain)
	b.WriteString(etcdArgs(f.EtcdElection))
	fmt.Fprintf(&b, "apiServer:\n  certSANs: [%q, \"127.0.0.1\", \"localhost\"]\n%s", host, apiServerArgs)
	for _, part := range []string{"controllerManager", "scheduler"} {
		b.WriteString(part + ":\n  extraArgs:\n" + leaseArgs + "  - {name: profiling, value: \"false\"}\n")
	}
	b.WriteString(kubeletConfig)
	if strings.HasPrefix(f.KubernetesVersion, "1.35.") {
		b.WriteString("volumePluginDir: /var/lib/kubelet-plugins\n")
	}
	fmt.Fprintf(&b, "---\napiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: %s\nmetricsBindAddress: 127.0.0.1:10249\n", f.ProxyMode)
	return b.String(), nil
}

func joinConfig(f config.Facts, c *config.NodeConfig, hostname, caHash string) string {
	return fmt.Sprintf("apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\ndiscovery:\n  bootstrapToken:\n    token: %s\n    apiServerEndpoint: %q\n    caCertHashes: [%q]\n",
		c.Token.Reveal(), c.Endpoint, caHash) + controlPlane(c) + registration(c, hostname) + patches(f) + timeouts
}

// controlPlane makes a join that of a master. Its keys and certificates are in place.
func controlPlane(c *config.NodeConfig) string {
	switch {
	case !c.Joins:
		return ""
	case c.NodeIP == "":
		return "controlPlane: {}\n"
	}
	return fmt.Sprintf("controlPlane:\n  localAPIEndpoint:\n    advertiseAddress: %q\n", c.NodeIP)
}

// etcdArgs set the election timeout, and the heartbeat to a tenth of it, as etcd's
// tuning guide has it. The masters that join take them from the cluster.
func etcdArgs(election string) string {
	d, err := time.ParseDuration(election)
	if err != nil || d <= time.Second { // etcd's own
		return ""
	}
	return fmt.Sprintf("etcd:\n  local:\n    extraArgs:\n    - {name: election-timeout, value: %q}\n    - {name: heartbeat-interval, value: %q}\n",
		strconv.FormatInt(d.Milliseconds(), 10), strconv.FormatInt(d.Milliseconds()/10, 10))
}

func orDefault(value, other string) string {
	if value == "" {
		return other
	}
	return value
}
