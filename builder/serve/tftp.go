package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/pin/tftp/v3"

	"github.com/imgbuild/imgbuild/internal/repro"
)

// What TFTP waits for a client's word, how often it says its own again, and how many
// transfers it runs at once.
const (
	tftpTime    = 3 * time.Second
	tftpRetries = 5
	maxTFTP     = 256
)

// errTFTP is all that a client is told; the log says more.
var errTFTP = errors.New("no such file for you: the log of imgbuild serve says why")

// serveTFTP serves iPXE and machines' images by TFTP (RFC 1350, 2347 to 2349) until ctx ends.
// Nothing can be written.
func (s *Server) serveTFTP(ctx context.Context, conn net.PacketConn) error {
	slots := make(chan struct{}, maxTFTP)
	server := tftp.NewServer(func(name string, to io.ReaderFrom) error {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			return s.readTFTP(name, to)
		default:
			return errors.New("busy")
		}
	}, nil)
	server.SetTimeout(tftpTime)
	server.SetRetries(tftpRetries)
	if _, ok := conn.(*net.UDPConn); !ok { // not the kernel's: there are no other ports to answer from
		server.EnableSinglePort()
	}
	stop := context.AfterFunc(ctx, func() {
		_ = conn.Close()     // a read that waits ends with it
		go server.Shutdown() // waits for transfers, and they for clients: the process does not
	})
	defer stop()
	if err := server.Serve(conn); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serving TFTP: %w", err)
	}
	return nil
}

// readTFTP sends one file.
func (s *Server) readTFTP(name string, to io.ReaderFrom) error {
	e := Event{Via: "tftp"}
	if t, ok := to.(tftp.OutgoingTransfer); ok {
		addr := t.RemoteAddr()
		e.Client = addr.IP.String()
	}
	name = strings.TrimLeft(name, "/")
	if text := s.ipxe[name]; text != nil {
		e.File = name
		s.sendTFTP(e, to, bytes.NewReader(text), func(n int64) bool { return n == int64(len(text)) })
		return nil
	}
	parts := strings.Split(name, "/")
	if len(parts) != 3 || parts[0] != "m" || parts[2] != fileBoot {
		return s.refuseTFTP(e, "there is nothing of that name")
	}
	t := s.tickets.find(parts[1])
	if t == nil || t.boot == userData {
		return s.refuseTFTP(e, "there is no such ticket, or its time is over")
	}
	e.File, e.Machine, e.Ticket = fileBoot, t.of.name, t.short()
	size := s.sizeOf(t)
	one, why := s.tickets.begin(t, fileBoot, size, true)
	if why != "" {
		return s.refuseTFTP(e, why)
	}
	content, err := s.content(t, one)
	if err != nil {
		return s.refuseTFTP(e, errUnread.Error())
	}
	begun := false
	s.sendTFTP(e, to, &later{ReadSeeker: content, begin: func() error {
		if _, why := s.tickets.begin(t, fileBoot, size, false); why != "" {
			return s.refuseTFTP(e, why)
		}
		begun = true
		s.machines.step(t.of, phaseFetching, e.Client, repro.Now())
		return nil
	}}, func(n int64) bool { return begun && s.ended(t, fileBoot, n, size) })
	return nil
}

// later begins with the first byte that is wanted: firmware asks how large a file is, and
// goes, often without a word, before it asks for the file.
type later struct {
	io.ReadSeeker
	begin func() error
	begun bool
}

// Read implements io.Reader.
func (l *later) Read(b []byte) (int, error) {
	if !l.begun {
		if err := l.begin(); err != nil {
			return 0, err
		}
		l.begun = true
	}
	return l.ReadSeeker.Read(b)
}

// sendTFTP sends content, and tells of it. That a client asks how large a file is, and goes,
// is nothing to tell.
func (s *Server) sendTFTP(e Event, to io.ReaderFrom, content io.ReadSeeker, end func(n int64) (whole bool)) {
	begin := repro.Now()
	s.metrics.running.Add(1)
	n, err := to.ReadFrom(content)
	s.metrics.running.Add(-1)
	e.What = broken
	if end(n) && err == nil {
		e.What = sent
	}
	e.Bytes, e.Seconds = n, repro.Now().Sub(begin).Seconds()
	s.metrics.sent("tftp", n)
	code := 200
	if err != nil {
		code = 499
	}
	s.metrics.request("tftp", code)
	if n > 0 {
		s.tell.say(e)
	}
}

func (s *Server) refuseTFTP(e Event, note string) error {
	e.What, e.Note = refused, note
	s.tell.say(e)
	s.metrics.request("tftp", 404)
	return errTFTP
}
