package report

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hailoclip/api/client"
)

// evaluation is one of n labels with a number of images each, of which most are answered as they should be.
func evaluation(n, images int) *Evaluation {
	chance := rand.New(rand.NewPCG(10, uint64(n)))
	e := &Evaluation{Wanted: 0.95}
	e.PromptSet, e.Model = "door <b>", "demo"
	e.Thresholds = map[string]*client.LabelThreshold{}
	names := strings.Fields("cat dog bicycle car bus <script> 一张猫的照片 delivery\u202evan")
	for i := range n {
		name := fmt.Sprintf("%s number %d", names[i%len(names)], i)
		if i < len(names) {
			name = names[i]
		}
		e.Labels = append(e.Labels, name)
		if i%3 != 0 {
			e.Thresholds[name] = &client.LabelThreshold{Score: chance.Float64(), Precision: 0.96, Recall: chance.Float64()}
		}
	}
	right := 0
	for i := range n + 1 {
		row := make([]int, n+1)
		for range images {
			j := i
			if chance.IntN(5) == 0 {
				j = (i + chance.IntN(4)*chance.IntN(n)) % (n + 1)
			}
			if row[j]++; i == j {
				right++
			}
		}
		e.Confusion = append(e.Confusion, row)
	}
	e.Images = (n + 1) * images
	e.Accuracy, e.ECE.Before = float64(right)/float64(e.Images), 0.1234
	after, temperature := 0.0321, 0.4567
	e.ECE.After, e.Temperature = &after, &temperature
	e.Errors = make([]client.ImageError, 7)
	return e
}

// TestEvaluation has tables and pages of few labels and of many; labels come from whoever made the set.
func TestEvaluation(t *testing.T) {
	for _, n := range []int{1, 3, 10, 50, 300} {
		e := evaluation(n, 24)
		if err := e.Check(); err != nil {
			t.Fatal(err)
		}
		var page, text strings.Builder
		e.WriteTable(&text)
		if err := e.WriteHTML(&page); err != nil {
			t.Fatal(err)
		}
		if keep := os.Getenv("HAILO_TEST_BENCH_PAGES"); keep != "" { // to look at them
			_ = os.WriteFile(filepath.Join(keep, fmt.Sprintf("evaluation%d.html", n)), []byte(page.String()), 0o600)
			t.Log("\n" + text.String())
		}
		d := xml.NewDecoder(strings.NewReader(strings.Replace(page.String(), "<!DOCTYPE html>", "", 1)))
		cells := 0
		for {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(n, err)
			}
			if start, ok := token.(xml.StartElement); ok && start.Name.Local == "td" && len(start.Attr) == 3 {
				cells++
			}
		}
		full := 0
		for _, row := range e.Confusion {
			for _, images := range row {
				if images > 0 {
					full++
				}
			}
		}
		if want := map[bool]int{true: full}[n < mostCells]; cells != want {
			t.Errorf("%d labels: %d cells in the page, want %d", n, cells, want)
		}
		if !strings.Contains(page.String(), "left out: 7<") {
			t.Error("the page does not say that images are missing")
		}
		for _, bad := range []string{"<script", "\u202e", "door <b>", "src=", "href=", "ZgotmplZ"} {
			if strings.Contains(page.String(), bad) {
				t.Errorf("%q in the page", bad)
			}
		}
		for _, says := range []string{"accuracy", "0.123, with temperature 0.457: 0.032", "95.0 %"} {
			if !strings.Contains(text.String(), says) {
				t.Errorf("no %q in\n%s", says, &text)
			}
		}
		if matrix := strings.Contains(text.String(), "shown \\ answered"); matrix != (n < mostColumns) || strings.Contains(text.String(), "\u202e") {
			t.Errorf("%d labels:\n%s", n, &text)
		}
	}
}

// TestEvaluationInNumbers is one that can be checked by hand.
func TestEvaluationInNumbers(t *testing.T) {
	e := &Evaluation{Wanted: 0.9}
	e.PromptSet, e.Model = "pets", "demo"
	e.Labels, e.Images, e.Accuracy = []string{"cat", "dog"}, 10, 0.7
	e.Confusion = [][]int{{3, 1, 0}, {0, 4, 1}, {1, 0, 0}}
	e.Thresholds = map[string]*client.LabelThreshold{"cat": {Score: 0.5, Precision: 1, Recall: 0.75}}
	e.Reason = "too few images"
	var text strings.Builder
	e.WriteTable(&text)
	const want = `prompt set pets, model demo, 10 images, 2 labels

accuracy           70.0 % (7 of 10)
calibration error  0.000
no temperature     too few images

label  images  recall  precision  threshold  recall there
cat         4  75.0 %     75.0 %      0.500        75.0 %
dog         5  80.0 %     80.0 %          -             -
none        1   0.0 %      0.0 %          -             -
threshold: the lowest score with a precision of 90.0 %; recall there: of its images, those at or above it

shown \ answered  1  2  none
1 cat             3  1     .
2 dog             .  4     1
none              1  .     .
`
	if text.String() != want {
		t.Errorf("%s\nwant\n%s", &text, want)
	}
	for _, bad := range [][][]int{nil, {{1}}, {{1, 2, 3}, {1, 2, 3}, {1, 2}}} {
		e.Confusion = bad
		if e.Check() == nil {
			t.Errorf("%v is a matrix of 2 labels", bad)
		}
	}
}
