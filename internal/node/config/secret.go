package config

import (
	"errors"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// Secret is text that must not be seen: it prints as "[secret]" under every verb
// and refuses to be marshalled. Only Reveal gives it away, so that a search for
// that word finds every place that does.
type Secret struct{ text *string } // behind a pointer, which fmt does not follow in an unexported field

// NewSecret wraps text.
func NewSecret(text string) Secret { return Secret{&text} }

// Reveal returns the text.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Empty says whether there is no text.
func (s Secret) Empty() bool { return s.Reveal() == "" }

// Format implements fmt.Formatter.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[secret]")) }

// MarshalJSON refuses.
func (s Secret) MarshalJSON() ([]byte, error) { return nil, errMarshal }

// MarshalYAML refuses.
func (s Secret) MarshalYAML() (any, error) { return nil, errMarshal }

var errMarshal = errors.New("a secret cannot be marshalled")

// UnmarshalYAML reads a plain text; an error does not repeat it.
func (s *Secret) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return fmt.Errorf("line %d: want text", n.Line)
	}
	s.text = &n.Value
	return nil
}
