package compat

import (
	"fmt"
	"testing"
)

func TestQdrant(t *testing.T) {
	const path = "/qdrant/infer"
	body := `{"inputs":[{"data":"a cat","data_type":"text","model":"Qdrant/clip-ViT-B-32-text","options":null},
		{"data":"data:image/png;base64,aGk=","data_type":"text","model":"clip-vit-b-32"},
		{"data":"aGk=","data_type":"image","model":"Qdrant/clip-ViT-B-32-vision","options":{"x":1}},
		{"data":"https://h/a.jpg","data_type":"image","model":"openai/clip-vit-base-patch32"},
		{"data":{"image":"aGk="},"data_type":"object","model":"clip-vit-b-32"},
		{"data":{"text":"a dog","image":null},"data_type":"object"}],"inference":"update","token":null}`
	const want = `T"a cat" T"data:image/png;base64,aGk=" I"aGk=" U"https://h/a.jpg" I"aGk=" T"a dog"`
	a, err := askOf(t, &qdrant, path, body)
	if err != nil || show(a) != want {
		t.Fatalf("%s, %v", show(a), err)
	}
	got := written(t, &qdrant, path, a, east, north, up, up, up, east)
	if list := got["embeddings"].([]any); len(list) != 6 || fmt.Sprint(list[1]) != "[0.6 0.8 0 0]" ||
		fmt.Sprint(got["usage"]) != "map[models:map[Qdrant/clip-ViT-B-32-text:map[tokens:3] Qdrant/clip-ViT-B-32-vision:map[tokens:0] clip-vit-b-32:map[tokens:6] openai/clip-vit-base-patch32:map[tokens:0]]]" {
		t.Errorf("%v", got)
	}
	refusals(t, &qdrant, path, [][3]string{
		{`{}`, "inputs", "array"},
		{`{"inputs":{}}`, "inputs", "array"},
		{`{"inputs":[]}`, "inputs", "array"},
		{`{"inputs":["x"]}`, "inputs[0]", "object"},
		{`{"inputs":[{"data_type":"text"}]}`, "inputs[0]", "'data'"},
		{`{"inputs":[{"data":"x"}]}`, "inputs[0]", "data_type"},
		{`{"inputs":[{"data":"x","data_type":"sound"}]}`, "inputs[0]", "data_type"},
		{`{"inputs":[{"data":7,"data_type":"text"}]}`, "inputs[0]", "string"},
		{`{"inputs":[{"data":7,"data_type":"image"}]}`, "inputs[0]", "string"},
		{`{"inputs":[{"data":{"text":"x","image":"aGk="},"data_type":"object"}]}`, "inputs[0]", "either"},
		{`{"inputs":[{"data":{"title":"x"},"data_type":"object"}]}`, "inputs[0]", "either"},
		{`{"inputs":[{"data":"x","data_type":"object"}]}`, "inputs[0]", "either"},
		{`{"inputs":[{"data":"x","data_type":"text","model":"Qdrant/clip-ViT-B-16-text"}]}`, "model", "does not exist"},
		{`{"inputs":[{"data":"x","data_type":"text","model":"bm25"}]}`, "model", "does not exist"},
		{`{"inputs":[{"data":"x","data_type":"text","model":["bm25"]}]}`, "model", "string"},
	})
	for status, want := range map[int]int{400: 400, 401: 401, 404: 400, 413: 400, 415: 400, 429: 429, 503: 503} {
		f := &Failure{Status: status, Text: "why"}
		if b := qdrant.Fail(nil, f); f.Status != want || string(b) != `{"error":"why"}` {
			t.Errorf("%d becomes %d %s", status, f.Status, b)
		}
	}
}
