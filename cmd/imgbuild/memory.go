package main

import (
	"os"
	"runtime/debug"
)

// memory is what the garbage collector keeps the heap to, in bytes: with it a
// build stays under 300 MB however large the image is.
const memory = 200 << 20

// limitMemory leaves the last word to GOMEMLIMIT.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memory)
	}
}
