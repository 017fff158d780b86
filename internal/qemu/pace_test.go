package qemu

import (
	"testing"
	"time"
)

// TestPace: where a tenth of the host's seconds pass, ten seconds of the host are one or two of the machine's
// clock.
func TestPace(t *testing.T) {
	if testing.Short() {
		t.Skip("waits ten seconds: left out by -short")
	}
	if emulated, err := Emulated(t.Context(), ""); err != nil || !emulated {
		t.Skipf("the processor here is a real one, whose time is as it is (%v)", err)
	}
	m, err := Start(t.Context(), Options{Dir: t.TempDir(), Memory: 64, CPUs: 1, Pace: 0.1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Kill() //nolint:errcheck // it is of no more use
	clock := func() int {
		var is struct {
			Hour int `json:"tm_hour"`
			Min  int `json:"tm_min"`
			Sec  int `json:"tm_sec"`
		}
		if err := m.ask(t.Context(), "qom-get", map[string]any{"path": "/machine", "property": "rtc-time"}, &is); err != nil {
			t.Fatal(err)
		}
		return is.Hour*3600 + is.Min*60 + is.Sec
	}
	from := clock()
	time.Sleep(10 * time.Second)
	if passed := (clock() - from + 86400) % 86400; passed > 5 {
		t.Errorf("%d seconds have passed", passed)
	}
	for _, pace := range []float64{-1, 1.5} {
		if _, err := paced(pace); err == nil {
			t.Errorf("a pace of %g is taken", pace)
		}
	}
}
