package qemu

import (
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// What QEMU and SMBIOS 2.8 allow.
const (
	maxFWCfgName = 55    // FW_CFG_MAX_FILE_PATH without its final zero
	maxSMBIOS    = 60000 // bytes of strings; the whole table has a 16-bit length
)

// esc doubles the commas of a path, as QEMU's options want it.
func esc(path string) string { return strings.ReplaceAll(path, ",", ",,") }

// arguments is QEMU's command line. It holds paths, never a secret. Sockets are
// in the folder sockets, whose name must be short.
func arguments(o Options, b board, a accel, f firmware, sockets string) ([]string, error) {
	in := func(name string) string { return esc(filepath.Join(o.Dir, name)) }
	sock := func(name string) string { return esc(filepath.Join(sockets, name)) }
	args := append([]string{"-machine", b.machine, "-smp", strconv.Itoa(o.CPUs), "-m", strconv.Itoa(o.Memory), "-display", "none", "-nodefaults", "-no-user-config"}, a.arguments(b)...)
	if o.UUID != "" {
		args = append(args, "-uuid", o.UUID)
	}
	if !o.BIOS { // QEMU's own is one
		args = append(args,
			"-drive", "if=pflash,format=raw,readonly=on,file="+esc(f.code),
			"-drive", "if=pflash,format=raw,file="+in(varsFile))
	}
	if o.Disk != "" {
		drive, device := disk(o)
		args = append(args, "-drive", drive, "-device", device)
	}
	if !o.Clock.IsZero() {
		args = append(args, "-rtc", "base="+o.Clock.UTC().Format("2006-01-02T15:04:05"))
	}
	args = append(args, "-device", "pcie-root-port,id="+port, "-device", "virtio-rng-pci", "-serial", "stdio", "-qmp", "unix:"+sock(qmpSocket)+",server=on,wait=off")
	if o.Seed != "" {
		args = append(args, "-drive", "if=none,id=seed,format=raw,readonly=on,file="+esc(o.Seed), "-device", "virtio-blk-pci,drive=seed")
	}
	for i, file := range o.Extra {
		id := "extra" + strconv.Itoa(i)
		args = append(args, "-drive", "if=none,id="+id+",format=raw,readonly=on,file="+esc(file), "-device", "virtio-blk-pci,drive="+id)
	}
	args = append(args, media(o, b)...)
	if o.Kernel != "" {
		args = append(args, "-kernel", o.Kernel, "-initrd", o.Initrd, "-append", o.Cmdline)
	}
	if o.Net != "" {
		card := "virtio-net-pci,netdev=net,mac=" + o.MAC
		if o.NoROM {
			card += ",romfile="
		}
		args = append(args, "-netdev", "stream,id=net,server=off,addr.type=unix,addr.path="+esc(o.Net), "-device", card)
	}
	if o.Channel {
		args = append(args, "-device", "virtio-serial-pci", "-chardev", "socket,id=channel,server=on,wait=off,path="+sock(channelSocket),
			"-device", "virtserialport,chardev=channel,name="+channelName)
	}
	creds, err := credentialArgs(o)
	return append(args, creds...), err
}

// media are what can be taken out.
func media(o Options, b board) (args []string) {
	if o.CD != "" {
		args = append(args, "-drive", "if=none,id=cd,format=raw,readonly=on,media=cdrom,file="+esc(o.CD))
		args = append(args, b.cd...)
	}
	if o.Stick != "" {
		args = append(args, "-drive", "if=none,id=stick,format=raw,readonly=on,file="+esc(o.Stick), "-device", "qemu-xhci,id=usb", "-device", "usb-storage,bus=usb.0,drive=stick,removable=on")
	}
	return args
}

// disk is the -drive of the overlay, and its -device. What the guest flushes is not flushed on the
// host: a machine that is killed loses what its guest had not written, no more. A disk
// that is slow or recorded cannot write zeros or discard by itself: gigabytes of
// them would count as data.
func disk(o Options) (drive, device string) {
	file := esc(filepath.Join(o.Dir, overlayFile))
	drive, device = "if=none,id=disk,format=qcow2,cache=unsafe,discard=unmap,file="+file, "virtio-blk-pci,drive=disk"
	if o.WriteLog != "" {
		drive = "if=none,id=disk,driver=blklogwrites,log-sector-size=512,file.driver=qcow2,file.cache.no-flush=on,file.file.driver=file,file.file.filename=" + file +
			",log.driver=file,log.filename=" + esc(o.WriteLog)
	}
	if o.Rate > 0 {
		drive += ",throttling.bps-total=" + strconv.FormatInt(o.Rate, 10)
	}
	if o.Rate > 0 || o.WriteLog != "" {
		device += ",discard=off,write-zeroes=off,request-merging=off" // merged ones have more segments than the recorder can write at once
	}
	return drive, device
}

// credentialFile is where a credential waits for QEMU to read it.
func credentialFile(dir, name string) string { return filepath.Join(dir, "cred-"+name) }

// credentialArgs writes each credential to a file of its own and names the files.
// The channel's always go by SMBIOS: their names are too long for fw_cfg.
func credentialArgs(o Options) ([]string, error) {
	var args []string
	if o.Ignition != "" {
		args = append(args, "-fw_cfg", "name=opt/com.coreos/config,file="+esc(o.Ignition))
	}
	byName := map[string][]byte{}
	smbios := channelCredentials(o)
	if o.Via == FWCfg {
		byName = o.Credentials
	} else {
		maps.Copy(smbios, o.Credentials)
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		file, key := credentialFile(o.Dir, name), "opt/io.systemd.credentials/"+name
		if len(key) > maxFWCfgName {
			return nil, fmt.Errorf("the credential's name %q is too long for fw_cfg: pass it by SMBIOS", name)
		}
		if err := os.WriteFile(file, byName[name], 0o600); err != nil {
			return nil, err
		}
		args = append(args, "-fw_cfg", "name="+esc(key)+",file="+esc(file))
	}
	size := 0
	for _, name := range slices.Sorted(maps.Keys(smbios)) {
		file, data := credentialFile(o.Dir, name), "io.systemd.credential.binary:"+name+"="+base64.StdEncoding.EncodeToString(smbios[name])
		if size += len(data); size > maxSMBIOS {
			return nil, fmt.Errorf("credentials of more than %d bytes do not fit into SMBIOS tables: pass them by fw_cfg or on a seed disk", maxSMBIOS)
		}
		if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
			return nil, err
		}
		args = append(args, "-smbios", "type=11,path="+esc(file))
	}
	return args, nil
}

// removeCredentials removes the files that credentialArgs wrote.
func removeCredentials(dir string) {
	files, err := filepath.Glob(credentialFile(glob(dir), "*"))
	if err != nil {
		return
	}
	for _, file := range files {
		_ = os.Remove(file)
	}
}

// glob takes the meaning out of a path's wildcards.
func glob(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}
