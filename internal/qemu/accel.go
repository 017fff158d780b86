package qemu

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/imgbuild/imgbuild/internal/run"
)

// AccelEnv overrides the choice of accelerator: kvm or tcg.
const AccelEnv = "IMGBUILD_ACCEL"

var (
	kvm = []string{"-accel", "kvm", "-cpu", "host"}
	tcg = []string{"-accel", "tcg,thread=multi", "-cpu", "max"}
)

// accelerator chooses how the guest's code runs. /dev/kvm may be there and not
// work, so KVM is only taken when firmware has come up under it.
func accelerator(ctx context.Context) ([]string, error) {
	switch choice := os.Getenv(AccelEnv); choice {
	case "kvm":
		return kvm, nil
	case "tcg":
		return tcg, nil
	case "":
	default:
		return nil, fmt.Errorf("%s=%s: want kvm or tcg", AccelEnv, choice)
	}
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		return tcg, nil
	} else if err := f.Close(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	probe := &seen{word: "BdsDxe", found: cancel}
	args := append([]string{"-machine", "q35", "-m", "256", "-display", "none", "-nodefaults", "-no-user-config", "-serial", "stdio", "-no-reboot",
		"-drive", "if=pflash,format=raw,readonly=on,file=" + firmware}, kvm...)
	_ = run.Run(ctx, run.Cmd{Name: "qemu-system-x86_64", Args: args, Stdout: probe}) // only what it prints counts
	if probe.yes {
		return kvm, nil
	}
	return tcg, nil
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
