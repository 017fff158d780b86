package serve

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestInstalled remembers beyond a restart, and forgets what a person takes out.
func TestInstalled(t *testing.T) {
	file := t.TempDir() + "/installed"
	now := time.Unix(1e9, 0)
	i, err := openInstalled(file)
	must(t, err)
	must(t, i.add("w1", now))
	must(t, i.add("mac 52:54:00:00:00:01", now))
	must(t, i.add("w1", now))
	text, err := os.ReadFile(file)
	if err != nil || string(text) != "w1\t2001-09-09T01:46:40Z\nmac 52:54:00:00:00:01\t2001-09-09T01:46:40Z\n" {
		t.Errorf("%q, %v", text, err)
	}
	if i, err = openInstalled(file); err != nil || !i.has("w1") || i.has("w") {
		t.Errorf("after a restart: %v", err)
	}
	must(t, os.WriteFile(file, []byte(strings.TrimPrefix(string(text), "w1\t2001-09-09T01:46:40Z\n")+"w2\t20"), 0o600)) // torn
	if i.has("w1") || i.has("w2") || !i.has("mac 52:54:00:00:00:01") {
		t.Error("the file was not read again")
	}
	must(t, os.Remove(file))
	if i.has("mac 52:54:00:00:00:01") {
		t.Error("the file is gone, its lines are not")
	}
	must(t, os.WriteFile(file, []byte("w2\t20"), 0o600))
	must(t, i.add("w3", now))
	if text, _ := os.ReadFile(file); string(text) != "w2\t20\nw3\t2001-09-09T01:46:40Z\n" {
		t.Errorf("%q", text)
	}
	if _, err := openInstalled(file); err == nil || !strings.Contains(err.Error(), "line 1: want a machine's name") {
		t.Errorf("%v", err)
	}
}
