package compat

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

func TestCLIPAsService(t *testing.T) {
	for _, c := range [][3]string{
		{"/post", `{"data":[{"text":"a cat","id":"7"},{"uri":"https://h/a.jpg"},{"uri":"data:image/png;base64,aGk="},{"blob":"aGk=","text":""}],"execEndpoint":"/","parameters":{}}`,
			`T"a cat" U"https://h/a.jpg" I"data:image/png;base64,aGk=" I"aGk="`},
		{"/post", `{"data":[{"text":"a cat","matches":[{"text":"not ranked"}]}]}`, `T"a cat"`},
		{"/post", `{"data":[{"blob":"aGk=","matches":[{"text":"x"},{"text":"y"}]},{"text":"z","matches":[{"blob":"aGk="}]}],"execEndpoint":"/rank"}`, `I"aGk=" T"x" T"y" T"z" I"aGk="`},
		{"/rank", `{"data":[{"blob":"aGk=","matches":[{"text":"x"}]}]}`, `I"aGk=" T"x"`},
	} {
		if a, err := askOf(t, &clipAsService, c[0], c[1]); err != nil || show(a) != c[2] {
			t.Errorf("%s %s: %s, %v, want %s", c[0], c[1], show(a), err, c[2])
		}
	}
	many := strings.Repeat(`{"text":"x"},`, MaxItems) + `{"text":"x"}`
	refusals(t, &clipAsService, "/post", [][3]string{
		{`{}`, "data", "array"}, {`{"data":{}}`, "data", "array"}, {`{"data":[]}`, "data", "array"},
		{`{"data":["x"]}`, "data[0]", "object"},
		{`{"data":[{"text":"x"},{"tensor":[1]}]}`, "data[1]", "'text'"},
		{`{"data":[{"uri":"/etc/passwd"}]}`, "data[0]", "uri"},
		{`{"data":[{"uri":"file:///etc/passwd"}]}`, "data[0]", "uri"},
		{`{"data":[{"text":" "}]}`, "data[0]", "not empty"},
		{`{"data":[{"blob":7}]}`, "data[0]", "string"},
		{`{"data":[` + many + `]}`, "data", "at most 2048"},
		{`{"data":[{"text":"x"}],"execEndpoint":"/index"}`, "execEndpoint", `"/rank"`},
	})
	refusals(t, &clipAsService, "/rank", [][3]string{
		{`{"data":[{"text":"x"}]}`, "data[0]", "matches"},
		{`{"data":[{"text":"x","matches":[]}]}`, "data[0]", "matches"},
		{`{"data":[{"text":"x","matches":"y"}]}`, "data[0].matches", "array"},
		{`{"data":[{"text":"x","matches":[{"text":"y"},{}]}]}`, "data[0].matches[1]", "'text'"},
		{`{"data":[{"text":"x","matches":[` + many + `]}]}`, "data[0].matches", "at most 2048"},
	})
}

func TestCLIPAsServiceWriter(t *testing.T) {
	a, err := askOf(t, &clipAsService, "/post", `{"data":[{"text":"a cat","id":"7"},{"uri":"https://h/a.jpg"},{"blob":"aGk="}]}`)
	got := written(t, &clipAsService, "/post", a, east, north, up)
	if list := got["data"].([]any); err != nil ||
		fmt.Sprint(list[0]) != "map[embedding:[1 0 0 0] id:7 matches:<nil> text:a cat]" ||
		fmt.Sprint(list[1]) != "map[embedding:[0.6 0.8 0 0] id:an id-1 matches:<nil> uri:https://h/a.jpg]" ||
		fmt.Sprint(list[2]) != "map[embedding:[0 0 1 0] id:an id-2 matches:<nil>]" ||
		fmt.Sprint(got["header"]) != "map[execEndpoint:/ requestId:an id status:<nil> targetExecutor:]" {
		t.Errorf("%v, %v", got, err)
	}
	a, err = askOf(t, &clipAsService, "/rank", `{"data":[{"blob":"aGk=","matches":[{"text":"far"},{"text":"near","id":"n"}]},{"text":"z","matches":[{"blob":"aGk="}]}]}`)
	got = written(t, &clipAsService, "/rank", a, east, up, north, north, north)
	type scores = map[string]any
	matches := func(i int) []any { return got["data"].([]any)[i].(map[string]any)["matches"].([]any) }
	score := func(match any, name string) scores { return match.(map[string]any)["scores"].(scores)[name].(scores) }
	first := matches(0)
	if err != nil || len(first) != 2 || first[0].(map[string]any)["id"] != "n" || first[1].(map[string]any)["text"] != "far" || first[1].(map[string]any)["id"] != "an id-1" {
		t.Fatalf("%v, %v", got, err)
	}
	want := 1 / (1 + math.Exp(-100*0.6)) // against a cosine of 0
	if near := score(first[0], "clip_score"); math.Abs(near["value"].(float64)-want) > 1e-6 || near["op_name"] != "softmax" {
		t.Errorf("%v, want %v", near, want)
	}
	if far := score(first[1], "clip_score"); math.Abs(far["value"].(float64)/math.Exp(-100*0.6)-1) > 1e-3 {
		t.Errorf("%v, want %v", far, math.Exp(-100*0.6))
	}
	if near := score(first[0], "clip_score_cosine"); math.Abs(near["value"].(float64)-0.6) > 1e-6 || near["op_name"] != "cosine" {
		t.Errorf("%v", near)
	}
	if alone := matches(1); len(alone) != 1 || score(alone[0], "clip_score")["value"] != 1.0 || math.Abs(score(alone[0], "clip_score_cosine")["value"].(float64)-1) > 1e-6 {
		t.Errorf("%v", alone)
	}
}
