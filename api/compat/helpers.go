package compat

import "hailoclip/api/rawjson"

func failError(b []byte, f *Failure) []byte {
	return append(rawjson.AppendString(append(b, `{"error":`...), f.Text), '}')
}

func failMessage(b []byte, f *Failure) []byte {
	return append(rawjson.AppendString(append(b, `{"message":`...), f.Text), '}')
}

// array calls do for each element of a field that is an array, which may be empty or missing.
func (a *Ask) array(field string, raw rawjson.Raw, do func(Item, rawjson.Raw) error) error {
	if !rawjson.Given(raw) {
		return nil
	}
	if raw[0] != '[' {
		return fault(field, "'%s' must be an array", field)
	}
	if n := len(a.Items) + rawjson.Elements(raw); n > MaxItems {
		return fault(field, "Too many items in '%s': %d, at most %d are allowed", field, n, MaxItems)
	}
	return each(raw, func(at int, element rawjson.Raw) error { return do(Item{field: field, at: at}, element) })
}
