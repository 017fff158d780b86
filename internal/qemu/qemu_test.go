package qemu

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestNoSecretOnTheCommandLine(t *testing.T) {
	const canary = "abcdef.0123456789abcdef"
	for _, via := range []string{SMBIOS, FWCfg} {
		o := Options{Dir: t.TempDir(), Memory: 2048, CPUs: 2, Via: via, Net: "/run/net.sock", MAC: "52:54:00:00:00:0a", Channel: true,
			Credentials: map[string][]byte{"imgbuild.node": []byte(canary)}}
		args, err := arguments(o, tcg)
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
	}
}

func TestAcceleratorOverride(t *testing.T) {
	for choice, want := range map[string]string{"kvm": "kvm", "tcg": "tcg,thread=multi"} {
		t.Setenv(AccelEnv, choice)
		if got, err := accelerator(t.Context()); err != nil || got[1] != want {
			t.Errorf("%s: %v, %v", choice, got, err)
		}
	}
	t.Setenv(AccelEnv, "abacus")
	if _, err := accelerator(t.Context()); err == nil {
		t.Error("an unknown accelerator is taken")
	}
}
