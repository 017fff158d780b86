# does: bytecode
if command -v py3compile >/dev/null 2>&1; then
py3compile -p X
fi
if command -v pypy3compile >/dev/null 2>&1; then
pypy3compile -p X || true
fi
