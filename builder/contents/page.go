package contents

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
)

//go:embed page.html
var pageText string

//go:embed diff.html
var diffText string

//go:embed style.css
var style string

var helpers = template.FuncMap{"size": size, "style": func() template.CSS { return template.CSS(style) }, // #nosec G203 -- ours
	"place": func(t tile) template.CSS { // #nosec G203 -- numbers
		return template.CSS(fmt.Sprintf("left:%.3f%%;top:%.3f%%;width:%.3f%%;height:%.3f%%", t.X, t.Y, t.W, t.H))
	}}

var (
	pageTemplate = template.Must(template.New("page").Funcs(helpers).Parse(pageText))
	diffTemplate = template.Must(template.New("diff").Funcs(helpers).Parse(diffText))
)

// tile is a part's place on the map, in percent of it.
type tile struct {
	*Part
	X, Y, W, H float64
}

// WritePage writes a page that shows where the space goes: one file, without scripts and
// without anything from elsewhere.
func (c *Contents) WritePage(w io.Writer) error {
	var total int64
	for _, p := range c.Parts {
		total += p.Bytes
	}
	return pageTemplate.Execute(w, map[string]any{"C": c, "Total": total, "Tiles": lay(c.Parts, total), "Largest": c.Largest(50)})
}

// WritePage writes what differs as a page of the same kind.
func (d *Diff) WritePage(w io.Writer, before, after string) error {
	return diffTemplate.Execute(w, map[string]any{"Groups": d.Groups(), "Before": before, "After": after})
}

// Largest are the largest files, at most n.
func (c *Contents) Largest(n int) []Entry {
	var out []Entry
	for _, e := range c.Entries {
		if e.Mode.IsRegular() {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b Entry) int { return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.Path, b.Path)) })
	return out[:min(n, len(out))]
}

// lay places parts, the largest first, in rows that are as square as they can be
// (Bruls, Huizing, van Wijk: Squarified Treemaps).
func lay(parts []*Part, total int64) (out []tile) {
	if total == 0 {
		return nil
	}
	x, y, w, h := 0.0, 0.0, 100.0, 100.0
	for len(parts) > 0 {
		short := min(w, h)
		n, sum, best := 0, 0.0, 0.0
		for i, p := range parts {
			area := float64(p.Bytes) / float64(total) * 100 * 100
			s := sum + area
			worst := max(worstOf(float64(parts[0].Bytes)/float64(total)*1e4, s, short), worstOf(area, s, short))
			if i > 0 && worst > best {
				break
			}
			n, sum, best = i+1, s, worst
		}
		at := 0.0
		for _, p := range parts[:n] {
			share := 0.0
			if sum > 0 {
				share = float64(p.Bytes) / float64(total) * 1e4 / sum
			}
			if w >= h {
				out = append(out, tile{p, x, y + at*h, sum / h, share * h})
			} else {
				out = append(out, tile{p, x + at*w, y, share * w, sum / w})
			}
			at += share
		}
		if w >= h {
			x, w = x+sum/h, w-sum/h
		} else {
			y, h = y+sum/w, h-sum/w
		}
		parts = parts[n:]
		if w <= 1e-6 || h <= 1e-6 {
			break // what is left is too small to be seen
		}
	}
	return out
}

// worstOf is how far from square an area is in a row of that sum along that side.
func worstOf(area, sum, side float64) float64 {
	if area <= 0 {
		return 0
	}
	r := side * side * area / (sum * sum)
	return max(r, 1/r)
}
