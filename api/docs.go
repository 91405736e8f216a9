package api

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

//go:embed docs.html
var docsTemplate string

// docsPage makes a page for people of the description of the interface. It needs nothing but style sheets of the console.
func docsPage(description []byte) ([]byte, error) {
	var doc docs
	if err := yaml.Unmarshal(description, &doc); err != nil {
		return nil, err
	}
	page, err := template.New("docs").Funcs(template.FuncMap{
		"prose": prose, "last": lastPart, "list": doc.list, "slug": slug,
	}).Parse(docsTemplate)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = page.Execute(&b, &doc)
	return b.Bytes(), err
}

// docs is what the page shows of the description. The file has it all inline or in components, and nothing elsewhere.
type docs struct {
	Info struct{ Title, Summary, Description string }
	Tags []struct{ Name, Description string }

	Paths      fields[docsPath]
	Components struct {
		Parameters map[string]docsParameter
		Responses  map[string]docsResponse
		Schemas    fields[docsSchema]
	}
}

type docsPath struct {
	Parameters             []docsParameter
	Get, Put, Post, Delete *docsOperation
}

type docsOperation struct {
	Method, Path string `yaml:"-"`

	ID                   string `yaml:"operationId"`
	Tags                 []string
	Summary, Description string
	Parameters           []docsParameter
	Body                 struct{ Content fields[docsMedia] } `yaml:"requestBody"`
	Responses            fields[docsResponse]
	Samples              []struct{ Source string } `yaml:"x-codeSamples"`
}

type docsParameter struct {
	Ref                   string `yaml:"$ref"`
	Name, In, Description string
	Required              bool
	Schema                docsSchema
}

type docsResponse struct {
	Ref         string `yaml:"$ref"`
	Description string
	Content     fields[docsMedia]
	Other       []string `yaml:"x-other-content"` // media types of answers in no schema
}

type docsMedia struct{ Schema *docsSchema } // nil: bytes

type docsSchema struct {
	Ref         string `yaml:"$ref"`
	Type        any    // a name, or several
	Format      string
	Description string
	Enum        []any
	Required    []string
	Properties  fields[docsSchema]
	Items       *docsSchema
	OneOf       []docsSchema `yaml:"oneOf"`
	AllOf       []docsSchema `yaml:"allOf"`
	Additional  yaml.Node    `yaml:"additionalProperties"` // a schema, or whether there may be others
	Minimum     any
	Above       any `yaml:"exclusiveMinimum"`
	Maximum     any
	MinLength   int `yaml:"minLength"`
	MaxLength   int `yaml:"maxLength"`
	MinItems    int `yaml:"minItems"`
	MaxItems    int `yaml:"maxItems"`
	Pattern     string
}

// fields is a map in the order of the file.
type fields[T any] []field[T]

type field[T any] struct {
	Name  string
	Value T
}

// UnmarshalYAML keeps the order.
func (f *fields[T]) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: not a mapping", n.Line)
	}
	for i := 0; i < len(n.Content); i += 2 {
		one := field[T]{Name: n.Content[i].Value}
		if err := n.Content[i+1].Decode(&one.Value); err != nil {
			return err
		}
		*f = append(*f, one)
	}
	return nil
}

// list returns the operations with a tag. References to parameters and responses are resolved.
func (d *docs) list(tag string) (found []docsOperation) {
	for _, path := range d.Paths {
		for _, one := range []struct {
			method string
			*docsOperation
		}{{"GET", path.Value.Get}, {"PUT", path.Value.Put}, {"POST", path.Value.Post}, {"DELETE", path.Value.Delete}} {
			if one.docsOperation == nil || !slices.Contains(one.Tags, tag) {
				continue
			}
			op := *one.docsOperation
			op.Method, op.Path = one.method, path.Name
			op.Parameters = slices.Concat(path.Value.Parameters, op.Parameters)
			for i, p := range op.Parameters {
				if p.Ref != "" {
					op.Parameters[i] = d.Components.Parameters[lastPart(p.Ref)]
				}
			}
			op.Responses = slices.Clone(op.Responses)
			for i, r := range op.Responses {
				if r.Value.Ref != "" {
					op.Responses[i].Value = d.Components.Responses[lastPart(r.Value.Ref)]
				}
			}
			found = append(found, op)
		}
	}
	return found
}

// Has says whether a property must be there.
func (s docsSchema) Has(name string) bool { return slices.Contains(s.Required, name) }

// TypeName is the type in a word or two; "" of a reference, or where there are several.
func (s docsSchema) TypeName() string {
	var names []string
	switch t := s.Type.(type) {
	case string:
		names = []string{t}
	case []any:
		for _, one := range t {
			names = append(names, fmt.Sprint(one))
		}
	}
	return strings.Join(names, " or ")
}

// Of is the schema of the values of a map; nil where s is none.
func (s docsSchema) Of() *docsSchema {
	var of docsSchema
	if s.Additional.Kind != yaml.MappingNode || s.Additional.Decode(&of) != nil {
		return nil
	}
	return &of
}

// Bounds says what values there may be.
func (s docsSchema) Bounds() string {
	var all []string
	add := func(given bool, format string, args ...any) {
		if given {
			all = append(all, fmt.Sprintf(format, args...))
		}
	}
	add(s.Minimum != nil && s.Maximum != nil, "%v to %v", s.Minimum, s.Maximum)
	add(s.Minimum != nil && s.Maximum == nil, "at least %v", s.Minimum)
	add(s.Above != nil, "above %v", s.Above)
	add(s.Maximum != nil && s.Minimum == nil, "at most %v", s.Maximum)
	add(s.MinLength > 0, "not empty")
	add(s.MaxLength > 0, "at most %d characters", s.MaxLength)
	add(s.MinItems > 0, "at least %d", s.MinItems)
	add(s.MaxItems > 0, "at most %d", s.MaxItems)
	add(s.Pattern != "", "%s", s.Pattern)
	return strings.Join(all, ", ")
}

func lastPart(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

// slug makes a name one that may be an id.
func slug(name string) string { return strings.ReplaceAll(strings.ToLower(name), " ", "-") }

var codeSpan = regexp.MustCompile("`([^`]+)`")

// prose makes paragraphs of a text, with code where it is between backticks.
func prose(text string) template.HTML {
	var b strings.Builder
	for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if paragraph != "" {
			b.WriteString("<p>" + codeSpan.ReplaceAllString(template.HTMLEscapeString(paragraph), "<code>$1</code>") + "</p>\n")
		}
	}
	return template.HTML(b.String()) //nolint:gosec // escaped above, and our own
}
