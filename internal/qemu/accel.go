package qemu

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/imgbuild/imgbuild/internal/run"
)

// AccelEnv overrides the choice of accelerator: kvm or tcg.
const AccelEnv = "IMGBUILD_ACCEL"

// calm is for a kernel that is emulated: systemd-stub adds it to the command line. Timers
// of a high resolution, set anew some thousand times a second, keep QEMU's own thread busy in
// place of the guest, and what guards against a processor's faults, or clears memory twice,
// costs much where the processor is a program.
const calm = "io.systemd.stub.kernel-cmdline-extra=highres=off nohz=off mitigations=off init_on_alloc=0"

// accel is how the guest's code runs.
type accel string

const (
	kvm accel = "kvm"
	tcg accel = "tcg"
)

// arguments are QEMU's for it.
func (a accel) arguments(b board) []string {
	if a == kvm {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	return []string{"-accel", "tcg,thread=multi", "-cpu", b.emulated, "-smbios", "type=11,value=" + calm}
}

// accelerator chooses how the guest's code runs. /dev/kvm may be there and not
// work, so KVM is only taken when firmware has come up under it.
func accelerator(ctx context.Context, b board) (accel, error) {
	switch choice := accel(os.Getenv(AccelEnv)); choice {
	case kvm, tcg:
		return choice, nil
	case "":
	default:
		return "", fmt.Errorf("%s=%s: want kvm or tcg", AccelEnv, choice)
	}
	if b.arch != runtime.GOARCH {
		return tcg, nil
	}
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		return tcg, nil
	} else if err := f.Close(); err != nil {
		return "", err
	}
	return remember(acceleratorFile(), func() (accel, error) { return probeKVM(ctx, b) })
}

// probeKVM starts a machine of firmware alone and looks whether it speaks.
func probeKVM(ctx context.Context, b board) (accel, error) {
	f, err := b.firmware()
	if err != nil {
		return "", err
	}
	limited, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	probe := &seen{word: "BdsDxe", found: cancel}
	args := append([]string{"-machine", b.machine, "-m", "256", "-display", "none", "-nodefaults", "-no-user-config", "-serial", "stdio", "-no-reboot",
		"-drive", "if=pflash,format=raw,readonly=on,file=" + esc(f.code)}, kvm.arguments(b)...)
	_ = run.Run(limited, run.Cmd{Name: b.program, Args: args, Stdout: probe}) // only what it prints counts
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if probe.yes {
		return kvm, nil
	}
	return tcg, nil
}

// acceleratorFile is where the probe's answer is kept; empty: nowhere.
func acceleratorFile() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "imgbuild", "accelerator")
}

// remember asks probe once in the host's uptime: a new kernel may answer
// differently. A file that cannot be read or written costs another probe.
func remember(file string, probe func() (accel, error)) (accel, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	boot := strings.TrimSpace(string(id))
	if err != nil || file == "" {
		return probe()
	}
	if text, err := os.ReadFile(file); err == nil { // #nosec G304 -- in the user's own cache
		switch string(text) {
		case boot + " kvm\n":
			return kvm, nil
		case boot + " tcg\n":
			return tcg, nil
		}
	}
	found, err := probe()
	if err != nil {
		return "", err
	}
	if os.MkdirAll(filepath.Dir(file), 0o700) == nil {
		_ = os.WriteFile(file, []byte(boot+" "+string(found)+"\n"), 0o600)
	}
	return found, nil
}

// seen watches output for a word and calls found when it comes.
type seen struct {
	word, text string
	yes        bool
	found      func()
}

func (s *seen) Write(p []byte) (int, error) {
	if s.text += string(p); !s.yes && strings.Contains(s.text, s.word) {
		s.yes = true
		s.found()
	}
	return len(p), nil
}
