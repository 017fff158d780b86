package dpkg

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// alternative is one name of update-alternatives(1).
type alternative struct {
	name, link string
	slaves     []slave
	choices    []choice
}

type slave struct{ name, link string }

type choice struct {
	target   string
	priority int
	slaves   map[string]string // name → target
}

type alternatives map[string]*alternative

// install reads the arguments of update-alternatives --install: link, name, target,
// priority, and for each slave "--slave" link name target.
func (a alternatives) install(arguments string) error {
	w := strings.Fields(arguments)
	if len(w) < 4 || (len(w)-4)%4 != 0 {
		return fmt.Errorf("update-alternatives --install %s: want link, name, target, priority and slaves", arguments)
	}
	priority, err := strconv.Atoi(w[3])
	if err != nil {
		return fmt.Errorf("update-alternatives --install %s: %w", arguments, err)
	}
	one := a[w[1]]
	if one == nil {
		one = &alternative{name: w[1], link: w[0]}
		a[w[1]] = one
	}
	c := choice{target: w[2], priority: priority, slaves: map[string]string{}}
	for rest := range slices.Chunk(w[4:], 4) {
		if rest[0] != "--slave" {
			return fmt.Errorf("update-alternatives --install %s: %q is not --slave", arguments, rest[0])
		}
		c.slaves[rest[2]] = rest[3]
		if s := (slave{rest[2], rest[1]}); !slices.Contains(one.slaves, s) {
			one.slaves = append(one.slaves, s)
		}
	}
	one.choices = append(one.choices, c)
	return nil
}

// best is the choice of the highest priority.
func (a *alternative) best() choice {
	return slices.MaxFunc(a.choices, func(x, y choice) int { return x.priority - y.priority })
}

// make puts the links, and the record of what there is to choose from. What is not in
// the tree, such as a manual that was left out, gets no link.
func (a *alternative) make(r *root) error {
	slices.SortFunc(a.slaves, func(x, y slave) int { return strings.Compare(x.name, y.name) })
	slices.SortFunc(a.choices, func(x, y choice) int { return strings.Compare(x.target, y.target) })
	best := a.best()
	if _, _, err := r.Resolve(best.target); err != nil {
		return nil // update-alternatives fails, and the scripts that may meet this let it
	}
	links := []slave{{a.name, a.link}}
	targets := map[string]string{a.name: best.target}
	for _, s := range a.slaves {
		if _, _, err := r.Resolve(best.slaves[s.name]); err == nil && best.slaves[s.name] != "" {
			links = append(links, s)
			targets[s.name] = best.slaves[s.name]
		}
	}
	for _, l := range links {
		if err := r.link("etc/alternatives/"+l.name, targets[l.name]); err != nil {
			return err
		}
		if _, _, err := r.Resolve(path.Dir(l.link)); err != nil {
			continue
		}
		if err := r.link(l.link, "/etc/alternatives/"+l.name); err != nil {
			return err
		}
	}
	return r.text(admin+"alternatives/"+a.name, []byte(a.record()))
}

// record is the file's text as update-alternatives keeps it.
func (a *alternative) record() string {
	lines := []string{"auto", a.link}
	for _, s := range a.slaves {
		lines = append(lines, s.name, s.link)
	}
	lines = append(lines, "")
	for _, c := range a.choices {
		lines = append(lines, c.target, strconv.Itoa(c.priority))
		for _, s := range a.slaves {
			lines = append(lines, c.slaves[s.name])
		}
	}
	return strings.Join(lines, "\n") + "\n\n"
}
