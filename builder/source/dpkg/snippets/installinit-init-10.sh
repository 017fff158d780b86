# does: init
if [ "$1" = "configure" ] || [ "$1" = "abort-upgrade" ] || [ "$1" = "abort-deconfigure" ] || [ "$1" = "abort-remove" ] ; then
if [ -z "$DPKG_ROOT" ] && [ -x "/etc/init.d/X" ]; then
update-rc.d X defaults-disabled >/dev/null
if [ -n "$2" ]; then
_dh_action=restart
else
_dh_action=start
fi
invoke-rc.d --skip-systemd-native X $_dh_action || ipmievd_initd_failed
fi
fi
