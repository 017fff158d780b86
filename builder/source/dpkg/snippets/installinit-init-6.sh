# does: init
if [ "$1" = "configure" ] || [ "$1" = "abort-upgrade" ] || [ "$1" = "abort-deconfigure" ] || [ "$1" = "abort-remove" ] ; then
if [ -x "/etc/init.d/X" ]; then
update-rc.d X defaults-disabled >/dev/null || exit 1
fi
fi
