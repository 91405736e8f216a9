package event

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"hailoclip/cache/boltfile"
)

// FuzzStored reads what an event may be kept as: it is refused, or can be written again and is the same.
func FuzzStored(f *testing.F) {
	for _, e := range []*Event{eventOf("a", 1), {ID: idOf(1), Stream: "b", Kind: State, State: "unknown", Previous: "a"}} {
		b, err := format(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, text := range []string{
		"", "\n", "null\n", "{}\n", "-0123456789abcdef", `{"id":"` + idOf(1) + `","stream":"a","vector_bytes":1000000000}` + "\nabc",
		`{"id":"` + idOf(1) + `","stream":"a","vector_bytes":-4,"thumbnail":true}` + "\nabc",
		`{"id":"` + idOf(1) + `","stream":"a","vector_bytes":4,"thumbnail":true,"score":1e308,"answer":{"a":[]},"time":"0001-01-01T00:00:00Z"}` + "\n\x00\x00\xc0\x7fabc",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		given := string(b)
		brief, briefOK := parse(b, false)
		e, ok := parse(b, true)
		if ok != briefOK || string(b) != given {
			t.Fatalf("%v, %v", ok, briefOK)
		}
		if !ok {
			return
		}
		if brief.Vector != nil || brief.JPEG != nil || len(e.Vector)*4+len(e.JPEG) > len(b) || e.Thumbnail != (e.JPEG != nil) {
			t.Fatalf("%+v, %+v", brief, e)
		}
		again, err := format(&e)
		clear(b) // it may be used again
		if err != nil && (e.Kind == Frame || strings.Contains(e.Stream, "\x00") || len(e.Stream) > maxNameLen || len(given) > maxRecord/6) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		same, ok := parse(again, true)
		if !ok || fmt.Sprintf("%+v", plain(same)) != fmt.Sprintf("%+v", plain(e)) || !slices.Equal(same.JPEG, e.JPEG) {
			t.Fatalf("%+v, was %+v", same, e)
		}
	})
}

// plain is an event without pointers, to be compared as text: NaN in a vector is not itself.
func plain(e Event) any {
	numbers := fmt.Sprint(e.Vector)
	if e.Seq != nil {
		numbers += fmt.Sprint(" seq ", *e.Seq)
	}
	if e.TS != nil {
		numbers += fmt.Sprint(" ts ", *e.TS)
	}
	e.Seq, e.TS, e.Vector, e.JPEG = nil, nil, nil, nil
	return struct {
		Event
		Numbers string
	}{e, numbers}
}

// kept is an event in the model of a store.
type kept struct {
	event *Event
	gone  bool // deleted, but its place is known
	bytes int64
}

// model is what a store has to say.
type model struct {
	max  int64
	list []kept
}

func (m *model) trim() {
	sum := int64(0)
	for _, k := range m.list {
		sum += k.bytes
	}
	for ; sum > m.max; m.list = m.list[1:] {
		sum -= m.list[0].bytes
	}
}

func (m *model) find(id string) int {
	return slices.IndexFunc(m.list, func(k kept) bool { return k.event.ID == id })
}

func (m *model) ids(stream, since string, limit int) (ids []string) {
	for _, k := range m.list[m.find(since)+1:] {
		if !k.gone && (stream == "" || k.event.Stream == stream) && len(ids) < limit {
			ids = append(ids, k.event.ID)
		}
	}
	return ids
}

func recordBytes(b []byte) int64 { return int64(len(boltfile.Seal("", nil, b)) + overhead) }

// FuzzStore makes a sequence of calls, each of two bytes, and compares the store with a model of it.
func FuzzStore(f *testing.F) {
	for _, ops := range []string{
		"", "a0a1b2l0l1d1l1g0r0l3", "a0a1a2a3a4a5a6a7a8a9aAaBaCaDaEaFaGaHaIaJaKaLaMaNaOaPaQaRl1s9l1a0l2", "d0g0l0r0a0a0d0a0d0r0l0", "p0p1x0r0p0r0x2",
	} {
		f.Add([]byte(ops))
	}
	f.Fuzz(func(t *testing.T, ops []byte) {
		ctx, path := t.Context(), filepath.Join(t.TempDir(), FileName)
		m, definitions := model{max: 12_000}, map[string][]byte{}
		s := openStore(t, path, Config{MaxBytes: m.max, MaxAge: time.Hour})
		reopen := func() {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openStore(t, path, Config{MaxBytes: m.max, MaxAge: time.Hour})
			await(t, s, func(st Stats) bool { return st.Bytes <= m.max })
		}
		for i := 0; i+1 < min(len(ops), 120); i += 2 {
			n := int(ops[i+1])
			id, stream := idOf(n), fmt.Sprint("s", n%3)
			at := m.find(id)
			switch ops[i] {
			case 'a':
				e := eventOf(stream, n)
				if e.JPEG = make([]byte, n*n%3000); n*n%3000 == 0 {
					e.JPEG, e.Thumbnail = nil, false
				}
				mustAdd(t, s, e)
				if b, err := format(e); err != nil {
					t.Fatal(err)
				} else if at < 0 {
					m.list = append(m.list, kept{e, false, recordBytes(b)})
				}
				m.trim()
			case 'd':
				err := s.Delete(ctx, id)
				if there := at >= 0 && !m.list[at].gone; there == (err != nil) || err != nil && !errors.Is(err, ErrNoEvent) {
					t.Fatalf("%d: %v", n, err)
				} else if there {
					m.list[at].gone, m.list[at].bytes = true, recordBytes(make([]byte, 1+idSize))
				}
			case 'g':
				e, err := s.Get(ctx, id)
				if there := at >= 0 && !m.list[at].gone; there == (err != nil) || err != nil && !errors.Is(err, ErrNoEvent) {
					t.Fatalf("%d: %v", n, err)
				} else if there && !reflect.DeepEqual(&e, m.list[at].event) {
					t.Fatalf("%+v, want %+v", e, m.list[at].event)
				}
			case 'r':
				reopen()
			case 's':
				m.max = int64(1000 + 100*n)
				m.trim()
				reopen()
			case 'p':
				if definitions[stream] = ops[i : i+2]; s.PutStream(ctx, stream, definitions[stream]) != nil {
					t.Fatal("it cannot be put")
				}
			case 'x':
				delete(definitions, stream)
				if err := s.DeleteStream(ctx, stream); err != nil {
					t.Fatal(err)
				}
			default:
				if n%4 == 3 {
					stream = ""
				}
				list, err := s.List(ctx, stream, id, n%5)
				var got []string
				for _, e := range list {
					got = append(got, e.ID)
				}
				if want := m.ids(stream, id, n%5); err != nil || !slices.Equal(got, want) {
					t.Fatalf("%q after %d: %v, want %v: %v", stream, n, got, want, err)
				}
			}
			there := 0
			for _, k := range m.list {
				if !k.gone {
					there++
				}
			}
			if st := s.Stats(); st.Events != there || st.Lost != "" {
				t.Fatalf("%+v, want %d", st, there)
			}
		}
		reopen()
		if all, err := s.Streams(); err != nil || len(all)+len(definitions) > 0 && !reflect.DeepEqual(all, definitions) {
			t.Fatalf("%v, want %v: %v", all, definitions, err)
		}
	})
}
