package kit

import (
	"errors"
	"os"
	"regexp"
	"strings"
)

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// Commands are the imgbuild command lines that a page shows, without "imgbuild".
func Commands(page string) (out [][]string, err error) {
	text, err := os.ReadFile(page) // #nosec G304 -- a document of this project
	if err != nil {
		return nil, err
	}
	for _, block := range shellBlock.FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(block[1]) {
			line, _, _ = strings.Cut(line, " #")
			if words := strings.Fields(line); len(words) > 1 && words[0] == "imgbuild" {
				out = append(out, words[1:])
			}
		}
	}
	if len(out) == 0 {
		return nil, errors.New(page + ": no command on the page")
	}
	return out, nil
}
