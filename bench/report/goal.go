package report

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Condition is what a step must fulfil, such as p99<50ms.
type Condition struct {
	text   string
	metric *metric
	op     string
	value  float64
}

func (c Condition) String() string { return c.text }

var conditionForm = regexp.MustCompile(`^(.*?)(<=|>=|==|<|>|=)(.*?)([a-zA-Zµ%/]*)$`)

// ParseCondition reads METRIC OPERATOR VALUE: a name of MetricNames, one of < <= > >= == and =,
// and a number with a unit that fits: us, ms (the default) or s; %; kB, MB, GB, KiB, MiB, GiB.
// "=" means at least where more is better (rate=300), else at most (p99=50ms).
func ParseCondition(text string) (Condition, error) {
	fail := func(format string, args ...any) (Condition, error) {
		return Condition{}, fmt.Errorf("condition %.60q: %s; write for example p99<50ms, rate>=318 or errors==0", text, fmt.Sprintf(format, args...))
	}
	text = strings.Join(strings.Fields(text), "")
	parts := conditionForm.FindStringSubmatch(text)
	if parts == nil {
		return fail("there is no < <= > >= == or =")
	}
	name, op, number := parts[1], parts[2], parts[3]
	m := metricNamed(name)
	if m == nil {
		return fail("%.30q is none of %s", name, strings.Join(MetricNames(), ", "))
	}
	u, ok := units[m.kind][parts[4]]
	if !ok {
		return fail("%.20q is no unit for it", parts[4])
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return fail("%.20q is not a number", number)
	}
	if op == "=" {
		op = map[bool]string{true: ">=", false: "<="}[m.higher]
	}
	return Condition{text, m, op, v * u.times / u.by}, nil
}

// unit is a factor times/by of a kind's own unit, in two numbers so that 95 % is 0.95 exactly.
type unit struct{ times, by float64 }

// units of each kind.
var units = map[int]map[string]unit{
	kindCount: {"": {1, 1}, "/s": {1, 1}},
	kindTime:  {"": {1, 1}, "ms": {1, 1}, "us": {1, 1e3}, "µs": {1, 1e3}, "s": {1e3, 1}},
	kindShare: {"": {1, 1}, "%": {1, 100}},
	kindBytes: {"": {1, 1}, "B": {1, 1}, "kB": {1e3, 1}, "MB": {1e6, 1}, "GB": {1e9, 1}, "KiB": {1 << 10, 1}, "MiB": {1 << 20, 1}, "GiB": {1 << 30, 1}},
}

// Holds says whether the step fulfils the condition. What was not measured fulfils none.
func (c Condition) Holds(s *Step) bool {
	v := c.metric.value(s)
	has := func(sign string) bool { return strings.Contains(c.op, sign) }
	return has("<") && v < c.value || has(">") && v > c.value || has("=") && v == c.value
}

// Goal is a list of conditions, all of which must hold.
type Goal []Condition

// ParseGoal reads conditions that are separated by commas.
func ParseGoal(text string) (Goal, error) {
	var g Goal
	for part := range strings.SplitSeq(text, ",") {
		c, err := ParseCondition(part)
		if err != nil {
			return nil, err
		}
		g = append(g, c)
	}
	return g, nil
}

// tolerated is the share of requests that may fail where a goal says nothing about errors.
const tolerated = 0.001

// Met says whether the step fulfils all conditions and is worth judging.
func (g Goal) Met(s *Step) bool {
	return g.unproven(s) == "" && !slices.ContainsFunc(g, func(c Condition) bool { return !c.Holds(s) })
}

// unproven says why the step proves nothing, whatever its numbers are; "" if it does. Without a
// request nothing is known. And where no condition is about errors, no more than one
// request in a thousand may have failed: refusals must not make a service look fast.
func (g Goal) unproven(s *Step) string {
	if s.Requests == 0 {
		return "no request"
	}
	errors := slices.ContainsFunc(g, func(c Condition) bool { return strings.HasPrefix(c.metric.name, "error") })
	if !errors && float64(s.Failed()) > tolerated*float64(s.Requests) {
		return fmt.Sprintf("%d of %d requests failed and no condition is about errors or error_ratio", s.Failed(), s.Requests)
	}
	return ""
}

func (g Goal) String() string {
	texts := make([]string, len(g))
	for i, c := range g {
		texts[i] = c.text
	}
	return strings.Join(texts, ",")
}
