package configs

import (
	"reflect"
	"slices"
	"strings"
)

// Changed lists the keys whose values differ, in the order of the default file. A list of sections and prompt_sets are one key each.
func Changed(a, b Config) (keys []string) {
	theirs := settings("", reflect.ValueOf(&b).Elem())
	for i, s := range settings("", reflect.ValueOf(&a).Elem()) {
		if s.name == s.key && !equal(s.Value, theirs[i].Value) {
			keys = append(keys, s.key)
		}
	}
	return keys
}

// equal compares values; a nil list or map equals an empty one.
func equal(a, b reflect.Value) bool {
	if (a.Kind() == reflect.Slice || a.Kind() == reflect.Map) && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

// Among says whether a key is in a list, in which "access." stands for all keys of that section.
func Among(key string, list []string) bool {
	return slices.ContainsFunc(list, func(one string) bool {
		return key == one || strings.HasSuffix(one, ".") && strings.HasPrefix(key, one)
	})
}

// Take copies the values of these keys from another configuration.
func (c *Config) Take(from Config, keys []string) {
	theirs := settings("", reflect.ValueOf(&from).Elem())
	for i, s := range settings("", reflect.ValueOf(c).Elem()) {
		if slices.Contains(keys, s.key) {
			s.Set(theirs[i].Value)
		}
	}
}
