package client_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"hailoclip/api/client"
	"hailoclip/api/stream"
	"hailoclip/api/stream/event"
	"hailoclip/cache/sets"
	"hailoclip/stages/clip"
)

// TestTypesAgree compares the types that the client has of its own, so that a program with it links no database, with
// those that the service writes: the same fields under the same names in JSON, all the way down.
func TestTypesAgree(t *testing.T) {
	for _, c := range [][2]reflect.Type{
		{reflect.TypeFor[client.Definition](), reflect.TypeFor[sets.Definition]()},
		{reflect.TypeFor[client.PromptSet](), reflect.TypeFor[clip.SetInfo]()},
		{reflect.TypeFor[client.PromptSetSummary](), reflect.TypeFor[clip.SetSummary]()},
		{reflect.TypeFor[client.StreamDefinition](), reflect.TypeFor[stream.Definition]()},
		{reflect.TypeFor[client.StreamInfo](), reflect.TypeFor[stream.Info]()},
		{reflect.TypeFor[client.Event](), reflect.TypeFor[event.Event]()},
	} {
		sameType(t, c[0].String(), c[0], c[1])
	}
}

var marshaler = reflect.TypeFor[json.Marshaler]()

func sameType(t *testing.T, path string, a, b reflect.Type) {
	t.Helper()
	if a.Kind() != b.Kind() || a.Implements(marshaler) != b.Implements(marshaler) {
		t.Errorf("%s is %v here and %v there", path, a, b)
		return
	}
	switch a.Kind() {
	case reflect.Pointer, reflect.Slice:
		sameType(t, path, a.Elem(), b.Elem())
	case reflect.Struct:
		ours, theirs := fieldsOf(a), fieldsOf(b)
		same := func(x, y reflect.StructField) bool {
			return (x.Name == y.Name || x.Anonymous && y.Anonymous) && name(x) == name(y)
		}
		if !slices.EqualFunc(ours, theirs, same) {
			t.Errorf("%s has the fields\n%v here and\n%v there", path, ours, theirs)
			return
		}
		for i := range ours {
			sameType(t, path+"."+ours[i].Name, ours[i].Type, theirs[i].Type)
		}
	}
}

// fieldsOf are those that are in JSON.
func fieldsOf(t reflect.Type) (fields []reflect.StructField) {
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() && name(f) != "-" {
			fields = append(fields, f)
		}
	}
	return fields
}

// name is that in JSON, without what is left out.
func name(f reflect.StructField) string { return strings.TrimSuffix(f.Tag.Get("json"), ",omitempty") }
