package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"hailoclip/api/bulk"
	"hailoclip/api/client"
)

// TestIndexByWrongService: what a service answers is its own affair. More results than images, fewer, or none end images, not the program.
func TestIndexByWrongService(t *testing.T) {
	t.Parallel()
	results := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		list := strings.TrimSuffix(strings.Repeat(`{"embedding":[1],"matches":[],"error":"","code":""},`, results), ",")
		fmt.Fprintf(w, `{"images":[%s],"results":[%s],"texts":[]}`, list, list)
	}))
	defer server.Close()
	service, err := client.New(server.URL, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, prompts := range [][]string{nil, {"a cat"}} {
		g := &serviceGroups{labels: indexLabels{Prompt: prompts}, service: service}
		for results = range 4 {
			group := []*serviceImage{}
			for range 2 {
				group = append(group, &serviceImage{ctx: t.Context(), image: bytes.Repeat([]byte{1}, 10), done: make(chan struct{})})
			}
			g.ask(group)
			for _, i := range group {
				<-i.done
				if (i.err == nil) != (results == 2) || errors.Is(i.err, bulk.ErrImage) {
					t.Errorf("%d results, prompts %q: %v", results, prompts, i.err)
				}
			}
		}
	}
}
