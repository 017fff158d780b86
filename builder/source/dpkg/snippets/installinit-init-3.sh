# does: init
if [ "$1" = "configure" ] || [ "$1" = "abort-upgrade" ] || [ "$1" = "abort-deconfigure" ] || [ "$1" = "abort-remove" ] ; then
if [ -z "$DPKG_ROOT" ] && [ -x "/etc/init.d/X" ]; then
update-rc.d X defaults >/dev/null
invoke-rc.d --skip-systemd-native X start || exit 1
fi
fi
