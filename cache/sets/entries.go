package sets

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// Role is what an entry is for.
type Role uint8

// Roles.
const (
	Ordinary Role = iota // may be an answer
	Negative             // competes with the ordinary ones and is never an answer
	Negation             // stands against one ordinary entry, with activation pair
)

// Entry is what images are compared with: a label, something of the background, or what stands against a label.
type Entry struct {
	Name    string
	Role    Role
	Against int        // of a Negation: the number of its entry
	Groups  [][]string // one list of texts for each prompt: the prompt in each template. nil: only Examples count
	Max     bool       // each group is a row of its own, and the largest cosine counts; else all texts are one row

	Examples []Example
}

// Rows is how many vectors come of the texts of e.
func (e Entry) Rows() int {
	if e.Max {
		return len(e.Groups)
	}
	return min(1, len(e.Groups))
}

// Entries returns what images are compared with: the labels in their order; then what is negative, labels first, then each
// background prompt, with background.auto each scene, and the examples of the background as one; then the negations. A label
// without prompts has its name for one, in the templates of clip7 unless d has others, but not when it has examples that
// count.
func (d Definition) Entries(scenes []string) []Entry {
	given, named := builtin["none"], builtin["clip7"]
	if d.Templates != nil {
		given = d.Templates.Texts()
		named = given
	}
	var ordinary, negative, negations []Entry
	for _, l := range d.Labels {
		e := Entry{Name: l.Name, Groups: groups(l.Prompts, given), Max: l.Pool == "max", Examples: l.Examples}
		if e.Groups == nil && (len(l.Examples) == 0 || d.FewShot.Mode == "off") {
			e.Groups = groups([]string{l.Name}, named)
		}
		if l.Negative {
			e.Role = Negative
			negative = append(negative, e)
			continue
		}
		if len(l.Negation) > 0 {
			negations = append(negations, Entry{
				Name: l.Name, Role: Negation, Against: len(ordinary), Groups: groups(l.Negation, given), Max: e.Max,
			})
		}
		ordinary = append(ordinary, e)
	}
	for _, prompt := range d.Background.Prompts {
		negative = append(negative, Entry{Name: prompt, Role: Negative, Groups: groups([]string{prompt}, given)})
	}
	if d.Background.Auto {
		for _, scene := range scenes {
			negative = append(negative, Entry{Name: scene, Role: Negative, Groups: groups([]string{scene}, named)})
		}
	}
	if len(d.Background.Examples) > 0 && d.FewShot.Mode != "off" {
		negative = append(negative, Entry{Name: "background", Role: Negative, Examples: d.Background.Examples})
	}
	return slices.Concat(ordinary, negative, negations)
}

// groups returns the prompts, each in all templates.
func groups(prompts, templates []string) (all [][]string) {
	for _, prompt := range prompts {
		group := make([]string, len(templates))
		for i, template := range templates {
			group[i] = strings.Replace(template, "{}", prompt, 1)
		}
		all = append(all, group)
	}
	return all
}

// Key names the rows of an entry's texts: it says which texts in which encoder they are of, and how they are pooled.
type Key [sha256.Size]byte

// Key returns the name of e's rows as the text encoder of that digest makes them.
func (e Entry) Key(encoder string) Key {
	h := sha256.New()
	write := func(text string) {
		_, _ = h.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(text))))
		_, _ = h.Write([]byte(text))
	}
	write(encoder)
	write(strconv.Itoa(e.Rows())) // each of as many texts
	for _, group := range e.Groups {
		for _, text := range group {
			write(text)
		}
	}
	return Key(h.Sum(nil))
}

// ETag identifies what a set answers: the hex SHA-256 over d, as Normalized returns it, and the digests of the model. Examples
// are in it by their ids, and images are not.
func ETag(d Definition, digests ...string) string {
	b, err := json.Marshal(struct {
		Definition Definition `json:"definition"`
		Digests    []string   `json:"digests"`
	}{d.brief(), digests})
	if err != nil { // only with numbers that Validate refuses
		panic(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// brief returns d without images, and with examples by their ids. Where the vector is of another image, the thumbnail, its id
// counts too.
func (d Definition) brief() Definition {
	d.Labels = slices.Clone(d.Labels)
	for _, o := range d.Owners() {
		var brief []Example
		for _, e := range *o.Examples {
			short := Example{ID: e.ID}
			if e.FromThumbnail {
				short.Model, short.FromThumbnail = ExampleID(e.Vector), true
			}
			brief = append(brief, short)
		}
		*o.Images, *o.Examples = nil, brief
	}
	return d
}
