package api

import (
	"strconv"

	"hailoclip/api/rawjson"
	"hailoclip/api/stream"
)

// AppendAnswer appends what became of a frame as JSON: what its sender gets on a WebSocket.
func AppendAnswer(b []byte, a *stream.Answer) []byte {
	b = strconv.AppendUint(append(b, `{"seq":`...), a.Seq, 10)
	if a.HasTime {
		b = strconv.AppendInt(append(b, `,"ts":`...), a.Time, 10)
	}
	b = appendMillis(append(b, `,"lag_ms":`...), a.Lag)
	if a.Dropped != "" {
		b = rawjson.AppendString(append(b, `,"dropped":`...), string(a.Dropped))
	}
	if a.Err != nil {
		o := outcomeOf(a.Err)
		b = rawjson.AppendString(append(b, `,"error":`...), o.text)
		b = rawjson.AppendString(append(b, `,"code":`...), o.code)
	}
	if a.Reused {
		b = append(b, `,"reused":true`...)
	}
	if a.Backward {
		b = append(b, `,"backward":true`...)
	}
	switch {
	case a.Dropped != "":
	case len(a.Regions) == 1 && a.Regions[0].Name == "":
		b = appendRegion(append(b, ','), &a.Regions[0])
	default:
		b = append(b, `,"regions":[`...)
		for i := range a.Regions {
			if i > 0 {
				b = append(b, ',')
			}
			b = rawjson.AppendString(append(b, `{"name":`...), a.Regions[i].Name)
			b = append(appendRegion(append(b, ','), &a.Regions[i]), '}')
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

// appendRegion appends the fields of what was found in a region.
func appendRegion(b []byte, r *stream.RegionAnswer) []byte {
	b = appendMatches(b, r.Names, &r.Result)
	if set := r.Result.Set; set != nil {
		b = rawjson.AppendString(append(b, `,"prompt_set":`...), set.Name)
		b = rawjson.AppendString(append(b, `,"etag":`...), set.ETag)
	}
	return b
}
