package stamp

import (
	"bytes"
	"errors"
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/node/config"
)

// Personal is a node config with a machine's own name and keys in it: an empty name, and
// no keys, leave what it says.
func Personal(node []byte, hostname string, keys []string) ([]byte, error) {
	if _, err := config.Parse(node); err != nil {
		return nil, fault.Wrap(fault.Spec, err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(node, &doc); err != nil || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, fault.New(fault.Spec, "node config: %w", errors.Join(err, errors.New("want a mapping")))
	}
	var add yaml.Node
	own := map[string]any{}
	if hostname != "" {
		own["hostname"] = hostname
	}
	if len(keys) > 0 {
		own["sshAuthorizedKeys"] = keys
	}
	if err := add.Encode(own); err != nil {
		return nil, err
	}
	for i := 0; i+1 < len(add.Content); i += 2 {
		set(doc.Content[0], add.Content[i], add.Content[i+1])
	}
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(&doc), e.Close()); err != nil {
		return nil, err
	}
	if _, err := config.Parse(out.Bytes()); err != nil {
		return nil, fault.Wrap(fault.Spec, fmt.Errorf("with the machine's own name and keys: %w", err))
	}
	return out.Bytes(), nil
}

// set puts a key into a mapping, or another value at it.
func set(mapping, key, value *yaml.Node) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key.Value {
			mapping.Content[i+1] = value
			return
		}
	}
	mapping.Content = append(mapping.Content, key, value)
}
