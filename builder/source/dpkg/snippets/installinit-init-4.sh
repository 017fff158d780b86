# does: init
if [ "$1" = "install" ] && [ -n "$2" ] && [ -e "/etc/init.d/X" ] ; then
chmod +x "/etc/init.d/X" >/dev/null || true
fi
