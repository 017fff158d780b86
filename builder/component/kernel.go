package component

import (
	"slices"

	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/images"
)

// kernelSysctls is the union of what kubeadm's preflight, the kubelet's
// protectKernelDefaults and kubernetes-sigs/image-builder ask for, and what CIS
// asks for and a node can bear.
var kernelSysctls = map[string]string{
	"net.bridge.bridge-nf-call-iptables":         "1",
	"net.bridge.bridge-nf-call-ip6tables":        "1",
	"net.ipv4.ip_forward":                        "1",
	"net.ipv6.conf.all.forwarding":               "1",
	"net.ipv6.conf.default.forwarding":           "1",
	"net.ipv6.conf.all.disable_ipv6":             "0",
	"net.ipv6.conf.all.accept_ra":                "2", // forwarding would switch router advertisements off
	"net.ipv6.conf.default.accept_ra":            "2",
	"net.ipv4.tcp_congestion_control":            "bbr",
	"net.core.default_qdisc":                     "fq",
	"net.ipv4.tcp_keepalive_time":                "600",
	"net.ipv4.tcp_keepalive_intvl":               "60",
	"vm.overcommit_memory":                       "1",
	"vm.panic_on_oom":                            "0",
	"kernel.panic":                               "10",
	"kernel.panic_on_oops":                       "1",
	"kernel.keys.root_maxkeys":                   "1000000",
	"kernel.keys.root_maxbytes":                  "25000000",
	"kernel.pid_max":                             "4194304",
	"fs.inotify.max_user_instances":              "8192",
	"fs.inotify.max_user_watches":                "524288",
	"fs.aio-max-nr":                              "1048576",
	"fs.suid_dumpable":                           "0",
	"kernel.unprivileged_bpf_disabled":           "1",
	"kernel.randomize_va_space":                  "2",
	"kernel.kptr_restrict":                       "1",
	"kernel.dmesg_restrict":                      "1",
	"kernel.yama.ptrace_scope":                   "1",
	"fs.protected_hardlinks":                     "1",
	"fs.protected_symlinks":                      "1",
	"fs.protected_fifos":                         "2",
	"fs.protected_regular":                       "2",
	"net.ipv4.conf.all.send_redirects":           "0",
	"net.ipv4.conf.default.send_redirects":       "0",
	"net.ipv4.conf.all.accept_redirects":         "0",
	"net.ipv4.conf.default.accept_redirects":     "0",
	"net.ipv6.conf.all.accept_redirects":         "0",
	"net.ipv6.conf.default.accept_redirects":     "0",
	"net.ipv4.conf.all.accept_source_route":      "0",
	"net.ipv4.conf.default.accept_source_route":  "0",
	"net.ipv4.conf.all.secure_redirects":         "0",
	"net.ipv4.conf.default.secure_redirects":     "0",
	"net.ipv6.conf.all.accept_source_route":      "0",
	"net.ipv6.conf.default.accept_source_route":  "0",
	"net.ipv4.ip_local_reserved_ports":           "30000-32767", // NodePorts: no outgoing connection takes one
	"net.ipv4.tcp_syncookies":                    "1",
	"net.ipv4.icmp_echo_ignore_broadcasts":       "1",
	"net.ipv4.icmp_ignore_bogus_error_responses": "1",
}

// everySysctl names each setting that is not as the image's file says. Those of
// links by pattern are looked at when there is a link.
const everySysctl = `! grep -v '^[^=]*\*' /usr/lib/sysctl.d/90-imgbuild.conf | while read -r key _ value; do [ "$(sysctl -n "$key" | tr '\t' ' ')" = "$value" ] || echo "$key is not $value"; done | grep .`

// kernel is the kernel package, its modules and its settings.
func kernel() Component {
	return Component{
		Name: "kernel", Doc: "kernel, modules and settings that Kubernetes asks for",
		Request: func(n *spec.Node) Wants {
			if n.Base.OCI != "" {
				return Wants{}
			}
			base, _ := images.Find(n.Base.Name) // the spec knows the same names
			w := Wants{Packages: []string{base.Kernel(n.Base.Kernel, n.Arch), "kmod", "systemd-boot-efi"}}
			if n.Disk.BIOS {
				w.Packages = append(w.Packages, "grub-pc-bin")
			}
			return w
		},
		Add: func(n *spec.Node, f Facts) (Addition, error) {
			files, err := overlay("kernel", view{Node: n, Facts: f})
			a := Addition{
				Files:   files,
				Cmdline: []string{"transparent_hugepage=madvise"},
				Modules: append([]string{"overlay", "br_netfilter", "nf_conntrack", "tcp_bbr", "sch_fq", "nft_masq", "nft_ct"}, n.Boot.Modules...),
				Sysctls: map[string]string{},
				Checks: []Check{
					{"modules", "grep -qw ^br_netfilter /proc/modules && grep -qw ^overlay /proc/modules"},
					{"every kernel setting is in force", everySysctl},
					{"bridge traffic is filtered", "[ $(cat /proc/sys/net/bridge/bridge-nf-call-iptables /proc/sys/net/bridge/bridge-nf-call-ip6tables | grep -cx 1) = 2 ]"},
					{"forwarding", "[ $(cat /proc/sys/net/ipv4/ip_forward) = 1 ] && [ $(cat /proc/sys/net/ipv6/conf/all/forwarding) = 1 ]"},
					{"huge pages are asked for", "grep -q '\\[madvise\\]' /sys/kernel/mm/transparent_hugepage/enabled"},
					{"rare modules do not load", "! modprobe -q udf && ! modprobe -q dccp"},
					{"kernel config is readable", "test -r /usr/lib/modules/$(uname -r)/config"},
				},
			}
			for _, c := range n.Boot.Console {
				a.Cmdline = append(a.Cmdline, "console="+c)
			}
			for key, value := range kernelSysctls {
				a.Sysctls[key] = value
			}
			// Never strict: that drops the replies that pod networks route by another link.
			for _, key := range []string{"net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.rp_filter"} {
				a.Sysctls[key] = podNetworks[n.CNI.Name].RPFilter
			}
			slices.Sort(a.Modules)
			return a, err
		},
	}
}
