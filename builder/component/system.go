package component

// system is the base's userland: the service manager, logs, and what must not run.
func system() Component {
	return Component{
		Name: "system", Doc: "service manager, journal, no core dumps, no timers of a mutable system",
		Request: wants("systemd", "systemd-sysv", "udev", "dbus", "bash", "coreutils", "util-linux", "mount", "procps", "ca-certificates",
			"libnss-myhostname", "libpam-systemd"),
		Add: fromOverlay("system", Addition{
			Mask: []string{
				"apt-daily.service", "apt-daily.timer", "apt-daily-upgrade.service", "apt-daily-upgrade.timer", "dpkg-db-backup.service",
				"dpkg-db-backup.timer", "e2scrub_all.service", "e2scrub_all.timer", "e2scrub_reap.service", "man-db.service", "man-db.timer",
				"systemd-firstboot.service", "systemd-machine-id-commit.service", "systemd-pcrmachine.service",
				"serial-getty@ttyS0.service", "serial-getty@ttyAMA0.service", // agetty hangs up whoever else writes to the console
				"systemd-update-done.service", "ldconfig.service", "systemd-hwdb-update.service", "systemd-journal-catalog-update.service",
				// What no node has a use for, each some tenths of a second of a boot.
				"systemd-tmpfiles-setup-dev-early.service", "systemd-udev-load-credentials.service", "systemd-networkd-persistent-storage.service",
				"modprobe@drm.service", "modprobe@fuse.service", "sys-fs-fuse-connections.mount",
			},
			Cmdline: []string{"systemd.firstboot=off", "panic=10"},
			Checks: []Check{
				{"no failed units", `! for u in $(systemctl --failed --no-legend --plain | cut -d" " -f1); do systemctl status --no-pager --lines=20 "$u"; journalctl -b --no-pager -p warning | head -60; done | grep .`},
				{"own units may do little", `! for u in $(systemctl list-unit-files --no-legend 'imgbuild-*.service' | cut -d" " -f1); do t=30; case $u in imgbuild-firstboot.*|imgbuild-ignition.*) t=70;; esac; systemd-analyze security --no-pager --threshold=$t $u >/run/said || { echo $u; tail -1 /run/said; }; done | grep .`},
				{"cgroup v2", "[ $(stat -fc %T /sys/fs/cgroup) = cgroup2fs ]"},
			},
		}),
	}
}
