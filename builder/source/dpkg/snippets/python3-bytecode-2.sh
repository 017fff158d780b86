# does: bytecode
if which py3compile >/dev/null 2>&1; then
py3compile -p X
fi
if which pypy3compile >/dev/null 2>&1; then
pypy3compile -p X || true
fi
