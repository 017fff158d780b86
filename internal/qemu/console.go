package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sync"
)

// console passes on what the guest says and keeps the end of it.
type console struct {
	to io.Writer // nil: nobody listens

	mu   sync.Mutex
	text []byte
	news chan struct{} // closed and replaced at each Write
}

// consoleKept is how many bytes WaitConsole can look back.
const consoleKept = 1 << 20

func newConsole(to io.Writer) *console { return &console{to: to, news: make(chan struct{})} }

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.text = append(c.text, bytes.ReplaceAll(p, []byte("\r"), nil)...)
	if len(c.text) > 2*consoleKept {
		c.text = append([]byte(nil), c.text[len(c.text)-consoleKept:]...)
	}
	close(c.news)
	c.news = make(chan struct{})
	c.mu.Unlock()
	if c.to == nil {
		return len(p), nil
	}
	return c.to.Write(p)
}

func (c *console) find(what *regexp.Regexp) ([]byte, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(what.Find(c.text)), c.news
}

// WaitConsole waits until the guest has said what on its serial console, since
// the machine's start, and returns the words that match. It ends with an error
// when ctx or the machine ends first. Carriage returns are left out.
func (m *Machine) WaitConsole(ctx context.Context, what *regexp.Regexp) (string, error) {
	for {
		found, news := m.console.find(what)
		if found != nil {
			return string(found), nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return "", fmt.Errorf("waiting for %q on the console: %w", what, ctx.Err())
		case <-m.done:
			if found, _ := m.console.find(what); found != nil {
				return string(found), nil
			}
			return "", fmt.Errorf("waiting for %q on the console: %w", what, errors.Join(errEnded, m.err))
		}
	}
}
