package api

import (
	"bytes"
	"fmt"
	"maps"
	"mime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// spec is the description of the interface, as the service hands it out. Its schemas are JSON Schema 2020-12.
type spec struct {
	document any
	compiler *jsonschema.Compiler

	mu       sync.Mutex
	compiled map[string]*jsonschema.Schema
}

func newSpec(t testing.TB, document []byte) *spec {
	t.Helper()
	s := &spec{document: must(jsonschema.UnmarshalJSON(bytes.NewReader(document))), compiler: jsonschema.NewCompiler(),
		compiled: map[string]*jsonschema.Schema{}}
	noError(t, s.compiler.AddResource("openapi.json", s.document))
	return s
}

// node is what a JSON pointer leads to, with its own pointer, which is another one where that is a reference.
type node struct {
	spec    *spec
	pointer string
	value   any
}

// at returns the node at a pointer; its value is nil where there is none.
func (s *spec) at(pointer string) node {
	n := node{s, "", s.document}
	for part := range strings.SplitSeq(pointer, "/") {
		if part != "" {
			n = n.child(strings.NewReplacer("~1", "/", "~0", "~").Replace(part))
		}
	}
	return n
}

func (n node) child(name string) node {
	in, _ := n.value.(map[string]any)
	child := node{n.spec, n.pointer + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name), in[name]}
	if to, ok := child.value.(map[string]any); ok {
		if ref, ok := to["$ref"].(string); ok {
			return n.spec.at(strings.TrimPrefix(ref, "#"))
		}
	}
	return child
}

// names are the keys of the node, in order.
func (n node) names() []string {
	in, _ := n.value.(map[string]any)
	return slices.Sorted(maps.Keys(in))
}

// items are the elements of the node, which is an array.
func (n node) items() (all []node) {
	in, _ := n.value.([]any)
	for i, value := range in {
		item := node{n.spec, fmt.Sprint(n.pointer, "/", i), value}
		to, _ := value.(map[string]any)
		if ref, ok := to["$ref"].(string); ok {
			item = n.spec.at(strings.TrimPrefix(ref, "#"))
		}
		all = append(all, item)
	}
	return all
}

func (n node) text(name string) string {
	text, _ := n.child(name).value.(string)
	return text
}

// operation is what a method of a path is described as.
func (s *spec) operation(method, path string) node {
	return s.at("/paths").child(path).child(strings.ToLower(method))
}

// operations calls do with each of them.
func (s *spec) operations(do func(method, path string, operation node)) {
	for _, path := range s.at("/paths").names() {
		for _, method := range s.at("/paths").child(path).names() {
			if method != "parameters" {
				do(strings.ToUpper(method), path, s.operation(method, path))
			}
		}
	}
}

// validate holds JSON against the schema at n.
func (n node) validate(body []byte) error {
	if n.value == nil {
		return fmt.Errorf("there is no schema %s", n.pointer)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	n.spec.mu.Lock()
	defer n.spec.mu.Unlock()
	schema := n.spec.compiled[n.pointer]
	if schema == nil {
		if schema, err = n.spec.compiler.Compile("openapi.json#" + n.pointer); err != nil {
			return err
		}
		n.spec.compiled[n.pointer] = schema
	}
	return schema.Validate(value)
}

// conforms says what an answer to an operation has that its description has not.
func (n node) conforms(r reply) error {
	response := n.child("responses").child(fmt.Sprint(r.status))
	if response.value == nil {
		response = n.child("responses").child(fmt.Sprintf("%dXX", r.status/100))
	}
	if response.value == nil {
		return fmt.Errorf("the status %d is not described", r.status)
	}
	for _, name := range response.child("headers").names() {
		if r.header.Get(name) == "" {
			return fmt.Errorf("the header %s is missing", name)
		}
	}
	content := response.child("content")
	if len(content.names()) == 0 {
		if len(r.body) > 0 {
			return fmt.Errorf("a body of %d bytes where none is described", len(r.body))
		}
		return nil
	}
	media, _, err := mime.ParseMediaType(r.header.Get("Content-Type"))
	if err != nil {
		return err
	}
	for _, other := range response.child("x-other-content").items() {
		if other.value == media {
			return nil
		}
	}
	described := content.child(media)
	if described.value == nil {
		described = content.child("*/*")
	}
	switch {
	case described.value == nil:
		return fmt.Errorf("a body of the type %q, which is not described", media)
	case media == "application/json" && described.child("schema").value != nil:
		if err := described.child("schema").validate(r.body); err != nil {
			return fmt.Errorf("%w: %.2000s", err, r.body)
		}
	}
	return nil
}
