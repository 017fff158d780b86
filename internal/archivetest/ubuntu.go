package archivetest

import (
	"context"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// debootstrap is its script for Ubuntu, which knows Ubuntu's mirrors; /usr/share/debootstrap is of the package debootstrap.
const debootstrap = "/usr/share/debootstrap/scripts/gutsy"

// Ubuntu is the address of an archive of Ubuntu that has the suite for amd64, as debootstrap knows it. A test
// is skipped where none is known or answers.
func Ubuntu(t *testing.T, suite string) string {
	t.Helper()
	text, err := os.ReadFile(debootstrap)
	if err != nil {
		t.Skip("no mirror of Ubuntu is known without the package debootstrap: ", err)
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 2 && words[0] == "default_mirror" && strings.HasSuffix(words[1], "/ubuntu") && answers(t, words[1]+"/dists/"+suite+"/InRelease") {
			return words[1]
		}
	}
	t.Skipf("no mirror of Ubuntu that debootstrap knows has %s, or none can be reached", suite)
	return ""
}

func answers(t *testing.T, addr string) bool {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, addr, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}
