package qemu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/run"
)

var ovmf = firmware{"/fw/code.fd", "/fw/vars.fd"}

func TestArgumentsGolden(t *testing.T) {
	dir := t.TempDir()
	o := Options{Disk: "/img/a.qcow2", Format: "qcow2", Dir: dir, Memory: 2048, CPUs: 2, Via: FWCfg, Net: "/run/a,b.sock", MAC: "52:54:00:00:00:0a", Channel: true,
		Seed: "/m/seed.img", Credentials: map[string][]byte{"imgbuild.node": []byte("x")}}
	args, err := arguments(o, boards["amd64"], tcg, ovmf, "/s")
	if err != nil {
		t.Fatal(err)
	}
	o.Rate, o.WriteLog, o.Clock, o.Net, o.Credentials, o.Seed = 20<<20, "/m/a,b.log", time.Unix(0, 0), "", nil, ""
	o.Ignition, o.Net, o.NoROM = "/m/a,b.ign", "/run/net", true
	tried, err := arguments(o, boards["amd64"], tcg, ovmf, "/s")
	if err != nil {
		t.Fatal(err)
	}
	args = append(append(args, "-- and tried hard:"), tried...)
	got := strings.ReplaceAll(strings.ReplaceAll(strings.Join(args, " "), " -", "\n-"), dir, "DIR") + "\n"
	want, err := os.ReadFile("testdata/arguments.golden")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("the command line changed (-want +got):\n%s", diff)
	}
}

func TestNoSecretOnTheCommandLine(t *testing.T) {
	const canary = "abcdef.0123456789abcdef"
	for _, via := range []string{SMBIOS, FWCfg} {
		o := Options{Dir: t.TempDir(), Memory: 2048, CPUs: 2, Via: via, Net: "/run/net.sock", MAC: "52:54:00:00:00:0a", Channel: true,
			Credentials: map[string][]byte{"imgbuild.node": []byte(canary)}}
		args, err := arguments(o, boards["amd64"], tcg, ovmf, "/s")
		if err != nil {
			t.Fatal(err)
		}
		if line := strings.Join(args, " "); strings.Contains(line, canary) || !strings.Contains(line, "cred-imgbuild.node") {
			t.Errorf("%s: %s", via, line)
		}
		file := filepath.Join(o.Dir, "cred-imgbuild.node")
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info, err)
		}
		if !slices.Contains(args, "stream,id=net,server=off,addr.type=unix,addr.path=/run/net.sock") {
			t.Errorf("no link in %v", args)
		}
		removeCredentials(o.Dir)
		if left, _ := os.ReadDir(o.Dir); len(left) > 0 {
			t.Errorf("%s: left behind: %v", via, left)
		}
	}
}

func TestCredentialsThatDoNotFit(t *testing.T) {
	for want, o := range map[string]Options{
		"pass it by SMBIOS":  {Via: FWCfg, Credentials: map[string][]byte{strings.Repeat("x", 40): nil}},
		"on a seed disk":     {Via: SMBIOS, Credentials: map[string][]byte{"big": make([]byte, maxSMBIOS)}},
		"no such file or di": {Via: SMBIOS, Dir: filepath.Join(t.TempDir(), "none"), Credentials: map[string][]byte{"a": nil}},
	} {
		if o.Dir == "" {
			o.Dir = t.TempDir()
		}
		if _, err := credentialArgs(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestAcceleratorOverride(t *testing.T) {
	for _, want := range []accel{kvm, tcg} {
		t.Setenv(AccelEnv, string(want))
		if got, err := accelerator(t.Context(), board{arch: runtime.GOARCH}); err != nil || got != want {
			t.Errorf("%s: %v, %v", want, got, err)
		}
	}
	t.Setenv(AccelEnv, "abacus")
	if _, err := accelerator(t.Context(), board{arch: runtime.GOARCH}); err == nil {
		t.Error("an unknown accelerator is taken")
	}
	t.Setenv(AccelEnv, "")
	if got, err := accelerator(t.Context(), board{arch: "another"}); err != nil || got != tcg {
		t.Errorf("of another architecture: %v, %v", got, err)
	}
}

func TestAcceleratorIsRemembered(t *testing.T) {
	file, asked := filepath.Join(t.TempDir(), "cache", "accelerator"), 0
	ask := func(answer accel, err error) func() (accel, error) {
		return func() (accel, error) { asked++; return answer, err }
	}
	if _, err := remember(file, ask("", context.Canceled)); !errors.Is(err, context.Canceled) {
		t.Errorf("a failed probe: %v", err)
	}
	for range 3 {
		if got, err := remember(file, ask(kvm, nil)); err != nil || got != kvm {
			t.Errorf("%v, %v", got, err)
		}
	}
	if asked != 2 {
		t.Errorf("probed %d times, want 2", asked)
	}
	if err := os.WriteFile(file, []byte("another-boot kvm\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := remember(file, ask(tcg, nil)); err != nil || got != tcg || asked != 3 {
		t.Errorf("after a reboot: %v, %v, probed %d times", got, err, asked)
	}
}

func TestMissingFirmware(t *testing.T) {
	_, err := board{firmwares: []firmware{{"/nonexistent/code.fd", "/nonexistent/vars.fd"}}, firmwarePkg: "ovmf"}.firmware()
	if !run.IsMissingTool(err) || !strings.Contains(err.Error(), "package ovmf") {
		t.Error(err)
	}
}

func TestOverlayOfAnotherImage(t *testing.T) {
	if err := run.Need(map[string]string{"qemu-img": "qemu-utils"}); err != nil {
		t.Skip(err)
	}
	image := filepath.Join(t.TempDir(), "a,b.raw")
	write := func(size int) {
		if err := os.WriteFile(image, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(1 << 20)
	o := Options{Disk: image, Format: "raw", DiskSize: 8 << 20, Dir: t.TempDir()}
	for range 2 { // a second boot of the same disk
		if err := prepareOverlay(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	write(2 << 20)
	if err := prepareOverlay(t.Context(), o); err == nil || !strings.Contains(err.Error(), "remove the folder") {
		t.Errorf("an overlay over a changed image is taken: %v", err)
	}
}

func TestWaitConsole(t *testing.T) {
	m := &Machine{console: newConsole(nil), done: make(chan struct{})}
	go func() {
		for _, part := range []string{"boot\r\nReached tar", "get Multi-User System.\r\n"} {
			time.Sleep(10 * time.Millisecond)
			m.console.Write([]byte(part))
		}
	}()
	if got, err := m.WaitConsole(t.Context(), regexp.MustCompile(`target \S+`)); err != nil || got != "target Multi-User" {
		t.Errorf("%q, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := m.WaitConsole(ctx, regexp.MustCompile("never")); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(m.done)
	if _, err := m.WaitConsole(t.Context(), regexp.MustCompile("never")); !errors.Is(err, errEnded) {
		t.Error(err)
	}
}

func TestBadMachineIsToldByStart(t *testing.T) {
	if err := boards["amd64"].need(); err != nil {
		t.Skip(err)
	}
	t.Setenv(AccelEnv, "tcg")
	o := Options{Dir: t.TempDir(), Memory: 256, CPUs: 1, Via: SMBIOS, Net: "/nonexistent/net.sock", MAC: "no MAC", Credentials: map[string][]byte{"a": nil}}
	_, err := Start(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "qemu-system-x86_64") {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(o.Dir, "cred-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A machine of firmware alone: it starts, speaks, is reset, and is cut off.
func TestFirmwareSpeaks(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine: left out by -short")
	}
	for arch := range boards {
		t.Run(arch, func(t *testing.T) { firmwareSpeaks(t, arch) })
	}
}

func firmwareSpeaks(t *testing.T, arch string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	o := Options{Arch: arch, Dir: filepath.Join(t.TempDir(), strings.Repeat("long,", 30)), Memory: 256, CPUs: 1, Via: FWCfg, Channel: true,
		Credentials: map[string][]byte{"imgbuild.node": []byte("secret")}}
	m, err := Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(o.Dir, "cred-*")); len(left) > 0 {
		t.Errorf("QEMU runs, and there are still %v", left)
	}
	if _, err := m.WaitConsole(ctx, regexp.MustCompile("BdsDxe: starting")); err != nil {
		t.Fatal(err)
	}
	if err := m.Reset(ctx); err != nil {
		t.Error(err)
	}
	if _, err := m.WaitConsole(ctx, regexp.MustCompile("(?s)BdsDxe: starting.*BdsDxe: starting")); err != nil {
		t.Error(err)
	}
	if err := m.Kill(); err != nil {
		t.Error(err)
	}
	if err := m.PowerOff(ctx); err != nil {
		t.Errorf("a machine that is off: %v", err)
	}
	if _, err := os.Stat(m.sockets); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the sockets are still there: %v", err)
	}
}
