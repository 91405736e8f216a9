package api

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"sync"

	"go.yaml.in/yaml/v3"

	"hailoclip/api/console"
	"hailoclip/api/rawjson"
)

//go:embed openapi.yaml
var openAPIDocument []byte

// openAPIFiles are the description of the interface as it is written, in JSON, and as a page for people; by name.
var openAPIFiles = sync.OnceValues(func() (map[string]console.File, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(openAPIDocument, &document); err != nil {
		return nil, err
	}
	asJSON, err := appendNode(nil, &document)
	if err != nil {
		return nil, err
	}
	page, err := docsPage(openAPIDocument)
	if err != nil {
		return nil, err
	}
	written := console.NewFile("openapi.yaml", openAPIDocument)
	written.Media = "application/yaml"
	return map[string]console.File{
		"openapi.yaml": written, "openapi.json": console.NewFile("openapi.json", asJSON), "docs.html": console.NewFile("docs.html", page),
	}, nil
})

// describe serves one of openAPIFiles.
func describe(name string) func(*request) error {
	return func(r *request) error {
		files, err := openAPIFiles()
		if err != nil {
			return fmt.Errorf("%w: openapi.yaml: %w", errInternalFailure, err)
		}
		return r.answerFile(files[name])
	}
}

// appendNode appends YAML as JSON, with keys in the same order.
func appendNode(b []byte, n *yaml.Node) (_ []byte, err error) {
	switch n.Kind {
	case yaml.DocumentNode:
		return appendNode(b, n.Content[0])
	case yaml.MappingNode:
		b = append(b, '{')
		for i := 0; i < len(n.Content); i += 2 {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(rawjson.AppendString(b, n.Content[i].Value), ':')
			if b, err = appendNode(b, n.Content[i+1]); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	case yaml.SequenceNode:
		b = append(b, '[')
		for i, item := range n.Content {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendNode(b, item); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	}
	var value any
	if err = n.Decode(&value); err != nil {
		return nil, err
	}
	scalar, err := json.Marshal(value)
	return append(b, scalar...), err
}
