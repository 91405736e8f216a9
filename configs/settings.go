package configs

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// setting is a field of the configuration under one of its names.
type setting struct {
	name   string        // "clip.device_timeout", or "clip.device_timeout_ms"
	key    string        // "clip.device_timeout"
	bounds string        // see within; "": any value
	unit   time.Duration // of durations that are written as bare numbers
	reflect.Value
}

// settings lists the fields of the struct v in their order. Those with the tag "milliseconds" have an older name too,
// whose values are bare numbers of them.
func settings(prefix string, v reflect.Value) (all []setting) {
	for f, field := range v.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		s := setting{prefix + name, prefix + name, f.Tag.Get("bounds"), time.Second, field}
		switch {
		case options == "inline":
			all = append(all, settings(prefix, field)...)
		case name == "-":
		case field.Kind() == reflect.Struct:
			all = append(all, settings(s.key+".", field)...)
		default:
			all = append(all, s)
			if old := f.Tag.Get("milliseconds"); old != "" {
				s.name, s.unit = prefix+old, time.Millisecond
				all = append(all, s)
			}
		}
	}
	return all
}

// sections lists the keys of sections, those of the top level and those in them, each before what is in it.
func sections() []string { return sectionsOf("", reflect.TypeFor[Config]()) }

func sectionsOf(prefix string, t reflect.Type) (all []string) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if prefix != "" && (f.Type.Kind() != reflect.Struct || options != "" || name == "-") {
			continue
		}
		if all = append(all, prefix+name); f.Type.Kind() == reflect.Struct {
			all = append(all, sectionsOf(prefix+name+".", f.Type)...)
		}
	}
	return all
}

// within says whether the value of s is within bounds, which is written as errors show it: "1 to 10", "1s to 1h, or 0
// for never", "at most 31 bytes", or the allowed texts, "auto, npu, cpu".
func (s setting) within() bool {
	low, high, isRange := strings.Cut(s.bounds, " to ")
	switch {
	case s.bounds == "":
		return true
	case isRange:
		high, _, orZero := strings.Cut(high, ", or 0")
		n := s.number()
		return n >= s.bound(low) && n <= s.bound(high) || orZero && n == 0 // NaN is not
	case strings.HasPrefix(s.bounds, "at most "):
		most, err := strconv.Atoi(strings.Fields(s.bounds)[2])
		return err == nil && s.Len() <= most
	}
	return slices.Contains(strings.Split(s.bounds, ", "), s.String())
}

// bound reads one end of a range as a value of s.
func (s setting) bound(text string) float64 {
	s.Value = reflect.New(s.Type()).Elem()
	if err := s.set(text); err != nil {
		panic(fmt.Sprintf("bounds of %s: %v", s.key, err))
	}
	return s.number()
}

func (s setting) number() float64 { return s.Convert(reflect.TypeFor[float64]()).Float() }

// set reads text into the field. Where the text comes from makes no difference, nor do quotes in YAML.
func (s setting) set(text string) error {
	switch field := s.Addr().Interface().(type) {
	case *time.Duration:
		d, err := ParseDuration(text, s.unit)
		if err != nil {
			return err // the field keeps what it has
		}
		*field = d
	case encoding.TextUnmarshaler:
		return field.UnmarshalText([]byte(text))
	case *string:
		*field = text
	case *bool:
		switch strings.ToLower(text) {
		case "true", "yes", "on":
			*field = true
		case "false", "no", "off":
			*field = false
		default:
			return fmt.Errorf("%#q is neither true nor false", text)
		}
	case *int, *int64:
		n, err := strconv.ParseInt(text, 0, s.Type().Bits())
		if err != nil {
			return fmt.Errorf("%#q is not a whole number", text)
		}
		s.SetInt(n)
	case *float64:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("%#q is not a number", text)
		}
		*field = n
	case *[]string: // "a, b", as the environment has them
		*field = nil
		for _, item := range strings.Split(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				*field = append(*field, item)
			}
		}
	default:
		if s.Kind() == reflect.Map || s.Kind() == reflect.Slice {
			return errors.New("can be given in a file only")
		}
		return fmt.Errorf("the program cannot read a %s", s.Type())
	}
	return nil
}

// ParseDuration reads a duration as the configuration has it: "30s", "500ms", or a bare number of units.
func ParseDuration(text string, unit time.Duration) (time.Duration, error) {
	if n, err := strconv.ParseFloat(text, 64); err == nil {
		if n *= float64(unit); math.IsNaN(n) || math.Abs(n) >= math.MaxInt64 {
			return 0, fmt.Errorf("%q is out of range for a duration", text)
		}
		return time.Duration(n), nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		bare := "seconds (30)"
		if unit == time.Millisecond {
			bare = "milliseconds (500)"
		}
		err = fmt.Errorf("%q is not a duration: write %s or a unit (30s, 500ms)", text, bare)
	}
	return d, err
}
