package report

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/mattn/go-runewidth"

	"hailoclip/api/client"
)

// Evaluation is what came of a prompt set's try on labelled images.
type Evaluation struct {
	client.Evaluation
	Wanted float64 // precision of the thresholds
}

//go:embed evaluation.html
var evaluationText string

var evaluationPage = template.Must(template.Must(page.Clone()).New("evaluation").Parse(evaluationText))

// Limits of what is drawn: beyond them the confusions are listed only.
const (
	mostColumns = 20  // of a matrix on a terminal
	mostCells   = 150 // of a row of a matrix in a page
	mostPairs   = 20  // of confusions
	labelWidth  = 40  // of a label, in cells of a terminal
)

// none is the label of images that show none, and of answers that no label fits.
const none = "none"

// confusion is a label that was answered for images of another one.
type confusion struct {
	Shown, Answered string
	Images, Of      int
}

// label is the name of row or column i of the matrix.
func (e *Evaluation) label(i int) string {
	if i < len(e.Labels) {
		return runewidth.Truncate(Printable(e.Labels[i]), labelWidth, "…")
	}
	return none
}

// shown is how many images are those of row i.
func (e *Evaluation) shown(i int) int { return sum(e.Confusion[i]) }

// answered is how many images were answered with label i.
func (e *Evaluation) answered(i int) (n int) {
	for _, row := range e.Confusion {
		n += row[i]
	}
	return n
}

func sum(row []int) (n int) {
	for _, x := range row {
		n += x
	}
	return n
}

// Check says whether the matrix is one: WriteTable and WriteHTML rely on it.
func (e *Evaluation) Check() error {
	n := len(e.Labels) + 1
	square := len(e.Confusion) == n
	for _, row := range e.Confusion {
		square = square && len(row) == n
	}
	if !square {
		return fmt.Errorf("%w: the confusion matrix of %d labels is not %d x %d", client.ErrAnswer, n-1, n, n)
	}
	return nil
}

// confusions are the most frequent ones.
func (e *Evaluation) confusions() (pairs []confusion) {
	for i, row := range e.Confusion {
		for j, n := range row {
			if i != j && n > 0 {
				pairs = append(pairs, confusion{e.label(i), e.label(j), n, sum(row)})
			}
		}
	}
	slices.SortStableFunc(pairs, func(a, b confusion) int { return cmp.Compare(b.Images, a.Images) })
	return pairs[:min(len(pairs), mostPairs)]
}

// percent is part of whole, "-" where there is no whole.
func percent(part, whole int) string {
	if whole == 0 {
		return "-"
	}
	return percentOf(float64(part) / float64(whole))
}

// labels has a row for each label.
func (e *Evaluation) labels() table {
	t := table{"Labels", [][]string{{"label", "images", "recall", "precision", "threshold", "recall there"}}}
	for i, name := range e.Labels {
		row := e.row(i)
		if at := e.Thresholds[name]; at != nil {
			row[4], row[5] = fmt.Sprintf("%.3f", at.Score), percentOf(at.Recall)
		}
		t.Rows = append(t.Rows, row)
	}
	if last := len(e.Labels); e.shown(last) > 0 {
		t.Rows = append(t.Rows, e.row(last))
	}
	return t
}

// row is that of label i, without a threshold.
func (e *Evaluation) row(i int) []string {
	shown, right := e.shown(i), e.Confusion[i][i]
	return []string{e.label(i), strconv.Itoa(shown), percent(right, shown), percent(right, e.answered(i)), "-", "-"}
}

func percentOf(share float64) string { return strconv.FormatFloat(100*share, 'f', 1, 64) + " %" }

// pairs is confusions as a table.
func (e *Evaluation) pairs() table {
	t := table{"Most frequent confusions", [][]string{{"shown", "answered", "images", "of"}}} // all that show it
	for _, c := range e.confusions() {
		t.Rows = append(t.Rows, []string{c.Shown, c.Answered, strconv.Itoa(c.Images), strconv.Itoa(c.Of)})
	}
	return t
}

// matrix has a row for what the images show and a numbered column for what was answered; a cell is a number of images.
func (e *Evaluation) matrix() table {
	head := []string{"shown \\ answered"}
	for j := range e.Labels {
		head = append(head, strconv.Itoa(j+1))
	}
	t := table{"Confusion", [][]string{append(head, none)}}
	for i, row := range e.Confusion {
		if i == len(e.Labels) && sum(row) == 0 {
			break
		}
		cells := []string{e.label(i)}
		if i < len(e.Labels) {
			cells[0] = fmt.Sprintf("%*d %s", len(strconv.Itoa(len(e.Labels))), i+1, cells[0])
		}
		for _, n := range row {
			text := "."
			if n > 0 {
				text = strconv.Itoa(n)
			}
			cells = append(cells, text)
		}
		t.Rows = append(t.Rows, cells)
	}
	return t
}

// calibration says how far probabilities can be trusted.
func (e *Evaluation) calibration() string {
	text := fmt.Sprintf("%.3f", e.ECE.Before)
	if e.Temperature != nil && e.ECE.After != nil {
		text += fmt.Sprintf(", with temperature %.3g: %.3f", *e.Temperature, *e.ECE.After)
	}
	return text
}

// correct is how many images were answered as they should be.
func (e *Evaluation) correct() (n int) {
	for i := range e.Confusion {
		n += e.Confusion[i][i]
	}
	return n
}

// WriteTable prints the evaluation for a terminal.
func (e *Evaluation) WriteTable(w io.Writer) {
	fmt.Fprintf(w, "prompt set %s, model %s, %d images, %d labels\n\n",
		Printable(e.PromptSet), Printable(e.Model), e.Images, len(e.Labels))
	fmt.Fprintf(w, "accuracy           %s (%d of %d)\n", percentOf(e.Accuracy), e.correct(), e.Images)
	fmt.Fprintf(w, "calibration error  %s\n", e.calibration())
	if e.Reason != "" {
		fmt.Fprintf(w, "no temperature     %s\n", Printable(e.Reason))
	}
	fmt.Fprintln(w)
	e.labels().write(w)
	fmt.Fprintf(w, "threshold: the lowest score with a precision of %s; recall there: of its images, those at or above it\n",
		percentOf(e.Wanted))
	if len(e.Labels) < mostColumns {
		fmt.Fprintln(w)
		e.matrix().write(w)
		return
	}
	if t := e.pairs(); len(t.Rows) > 1 {
		fmt.Fprintf(w, "\n%s:\n", t.Title)
		t.write(w)
	}
}

// cell is one of the matrix in the page.
type cell struct {
	Images int
	Share  int    // percent of the row, for the colour: 0, or 15 to 100
	Title  string // what it says in words
	Class  string // hit or miss, and full where the colour is too strong for the usual text
}

// WriteHTML writes one page with everything in it: no other file, no script, no network.
func (e *Evaluation) WriteHTML(w io.Writer) error {
	data := struct {
		*Evaluation
		Tiles   []tile
		Columns []string
		Rows    [][]cell
		Tables  []table
		Style   template.CSS
		Least   int // pixels of a cell, which hold its number
		Percent string
	}{Evaluation: e, Style: template.CSS(pageCSS), Percent: percentOf(e.Wanted), Tables: []table{e.labels()}, Tiles: []tile{
		{percentOf(e.Accuracy), "accuracy"}, {strconv.Itoa(e.Images), "images"}, {strconv.Itoa(len(e.Labels)), "labels"},
		{fmt.Sprintf("%.3f", e.ECE.Before), "calibration error"},
	}}
	if e.Temperature != nil && e.ECE.After != nil {
		data.Tiles = append(data.Tiles, tile{fmt.Sprintf("%.3f", *e.ECE.After), "calibration error with the fitted temperature"},
			tile{fmt.Sprintf("%.3g", *e.Temperature), "fitted temperature"})
	}
	if t := e.pairs(); len(t.Rows) > 1 {
		data.Tables = append(data.Tables, t)
	}
	if len(e.Labels) < mostCells {
		for i, row := range e.Confusion {
			data.Columns = append(data.Columns, e.label(i))
			data.Least = max(data.Least, 18, 7*len(strconv.Itoa(slices.Max(row))))
			data.Rows = append(data.Rows, e.cells(i, row))
		}
	}
	return evaluationPage.Execute(w, data)
}

func (e *Evaluation) cells(i int, row []int) []cell {
	cells, all := make([]cell, len(row)), sum(row)
	for j, n := range row {
		if n == 0 {
			continue
		}
		c := cell{Images: n, Share: 15 + int(math.Round(85*float64(n)/float64(all))), Class: "miss",
			Title: fmt.Sprintf("%s answered as %s: %d of %d images", e.label(i), e.label(j), n, all)}
		if i == j {
			c.Class = "hit"
		}
		if c.Share > 85 { // paler ones are read better with dark text
			c.Class += " full"
		}
		cells[j] = c
	}
	return cells
}
