package dpkg

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// unitName is a unit's name in its parts (systemd.unit(5)): prefix.service, the template
// prefix@.service, or prefix@instance.service.
type unitName struct {
	prefix, instance, ending string
	at                       bool // a template or an instance
}

func readUnit(name string) (u unitName, err error) {
	dot := strings.LastIndexByte(name, '.')
	if dot <= 0 || strings.Contains(name, "/") {
		return u, fmt.Errorf("%q: a unit's name has no slash, and ends with its type, such as .service", name)
	}
	u.ending = name[dot:]
	u.prefix, u.instance, u.at = strings.Cut(name[:dot], "@")
	return u, nil
}

func (u unitName) String() string {
	if u.at {
		return u.prefix + "@" + u.instance + u.ending
	}
	return u.prefix + u.ending
}

func (u unitName) template() bool { return u.at && u.instance == "" }

// file is where the unit is described: an instance in its template.
func (u unitName) file() string {
	u.instance = ""
	return u.String()
}

// orDefault is the instance that a template has by default, if it has one.
func (u unitName) orDefault(install [][2]string) (unitName, error) {
	out := u
	for _, line := range install {
		if line[0] != "DefaultInstance" || !u.template() {
			continue
		}
		var err error
		if out.instance, err = u.expand(strings.TrimSpace(line[1])); err != nil {
			return u, err
		}
	}
	return readUnit(out.String())
}

// startedBy says whether the unit can be wanted by another one: a template only by one that
// has the instance to give.
func (u unitName) startedBy(other string) bool {
	by, err := readUnit(other)
	return err == nil && (!u.template() || by.at)
}

// alias is where a link is made that gives the unit another name; empty where systemd takes
// none of that name. A template's name takes the unit's instance.
func (u unitName) alias(name string) string {
	other, err := readUnit(path.Base(name))
	if err != nil || other.ending != u.ending {
		return ""
	}
	if other.template() && u.at {
		other.instance = u.instance
	}
	if other.at != u.at || !u.template() && other.instance != u.instance {
		return ""
	}
	return path.Join(path.Dir(name), other.String())
}

var specifier = regexp.MustCompile(`%.?`)

// expand replaces the specifiers that mean the same on every machine; any other is an error.
func (u unitName) expand(value string) (out string, err error) {
	last := u.prefix[strings.LastIndexByte(u.prefix, '-')+1:]
	known := map[string]string{"%i": u.instance, "%j": last, "%n": u.String(), "%N": strings.TrimSuffix(u.String(), u.ending), "%p": u.prefix}
	return specifier.ReplaceAllStringFunc(value, func(s string) string {
		with, ok := known[s]
		if !ok {
			err = fmt.Errorf("%q: only the machine knows what %s is", value, s)
		}
		return with
	}), err
}
