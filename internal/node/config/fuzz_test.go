package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

// FuzzParse wants no panic, and no error that shows a value.
func FuzzParse(f *testing.F) {
	f.Add("apiVersion: imgbuild.dev/v1alpha1\nkind: NodeConfig\nrole: worker\ncluster: demo\nendpoint: 10.0.0.10:6443\ntoken: abcdef.0123456789abcdef\ncaCert: x\n")
	f.Add("token: &a [*a]\n")
	f.Add("a: b\n---\nc: d\n")
	f.Fuzz(func(t *testing.T, text string) {
		const secret = "abcdef.0123456789abcdef"
		c, err := config.Parse([]byte(text))
		if err != nil && strings.Contains(err.Error(), secret[7:]) && strings.Contains(text, "token: "+secret) {
			t.Errorf("the error shows the token: %v", err)
		}
		if c != nil && strings.Contains(fmt.Sprintf("%v %+v %#v", c, c, c), secret[7:]) && string(c.Token.Reveal()) == secret && strings.Count(text, secret[7:]) == 1 {
			t.Errorf("printed, the config shows its token: %+v", c)
		}
	})
}
