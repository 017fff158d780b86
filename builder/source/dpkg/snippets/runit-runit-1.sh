# does: runit
# Unlike postrm, I can be sure, that runit-helper is present on
# postinst.
#start: remove after trixie
if [ ! -e /usr/lib/runit-helper/runit-helper ]; then
#should not happen
echo "warning: can't find runit-helper, postinst action skipped!"
echo "warning: runit-helper: please report this bug"
fi
#end: remove after trixie
if [ -z "${DPKG_ROOT:-}" ] && [ -x /usr/lib/runit-helper/runit-helper ]; then
NAME='X' ENABLE='X' ONUPGRADE='X' /usr/lib/runit-helper/runit-helper postinst "$@"
fi
