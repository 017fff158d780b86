package spec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// Canonical returns the node as JSON that is the same for the same values,
// whatever they were written in: keys in the order of the types, map keys sorted,
// no empty lists, one line end at the end. It returns nil for a nil node.
func (n *Node) Canonical() []byte {
	if n == nil {
		return nil
	}
	data, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return nil // not reached: a Node holds texts, bools, lists and maps of texts only
	}
	return append(data, '\n')
}

// Hash returns the SHA-256 of Canonical as 64 hexadecimal digits.
func (n *Node) Hash() string {
	sum := sha256.Sum256(n.Canonical())
	return hex.EncodeToString(sum[:])
}
