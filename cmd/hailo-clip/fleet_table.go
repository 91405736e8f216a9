package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"

	"hailoclip/api/fleet"
)

// fleetTable is a status for people, a line each. What is in it of others is not escaped yet: paint does that.
func fleetTable(s *fleet.Status, now time.Time) (lines [][]span) {
	add := func(spans ...span) { lines = append(lines, spans) }
	add(fleetBroker(s)...)
	for _, fault := range s.Faults {
		add(span{styleBad, "! " + fault})
	}
	part := func(rows [][]span) {
		if len(rows) > 1 {
			add()
			lines = append(lines, aligned(rows)...)
		}
	}
	part(fleetNodes(s.Nodes))
	part(fleetQueues(s.Queues))
	part(fleetJobs(s.Jobs, now))
	part(fleetDead(s.Dead, now))
	part(fleetCameras(s.Cameras))
	if text := fleetCounters(s); text != "" {
		add()
		add(span{styleDim, "this node: " + text})
	}
	return lines
}

func fleetBroker(s *fleet.Status) []span {
	line := []span{{styleBold, "fleet"}, {"", " as " + s.Node + " sees it"}}
	b := s.Broker
	if b == nil {
		return line
	}
	if !b.Connected {
		return append(line, span{styleBad, "  no broker at " + b.URL + ": " + b.LastError})
	}
	tls := ""
	if b.TLS {
		tls = ", TLS"
	}
	return append(line, span{styleDim, fmt.Sprintf("  broker %s (nats-server %s%s), %.1f ms", b.URL, b.Version, tls, b.RTTMS)})
}

// head is the first row of a table.
func head(titles ...string) (row []span) {
	for _, t := range titles {
		row = append(row, span{styleDim, t})
	}
	return row
}

func fleetNodes(nodes []fleet.NodeStatus) [][]span {
	rows := [][]span{head("node", "site", "health", ">rate", ">queued", ">in flight", ">free", "model", "version", ">seen")}
	for i := range nodes {
		n := &nodes[i]
		style, health := map[string]string{"healthy": styleGood, "degraded": styleOther, "stopping": styleOther}[n.Health], n.Health
		switch {
		case !n.Alive:
			style, health = styleBad, "silent"
		case style == "":
			style = styleBad
		}
		name := n.Node
		if n.Self {
			name += " *"
		}
		if n.Twice {
			style, health = styleBad, "name taken twice"
		}
		rate := "–"
		if n.Rate > 0 {
			rate = fmt.Sprintf("%.0f/s", n.Rate)
		}
		rows = append(rows, []span{{"", name}, {"", n.Site}, {style, health}, {"", rate}, number(n.Queued), number(n.InFlight), number(n.Free),
			{"", n.Model}, {"", n.Version}, {styleDim, seconds(n.Seen)}})
	}
	return rows
}

func fleetQueues(queues []fleet.QueueStatus) [][]span {
	rows := [][]span{head("queue", ">pending", ">with workers", ">again", ">kept", ">size", ">limit")}
	for _, q := range queues {
		style, limit := "", "none"
		if q.Limit > 0 {
			limit = size(uint64(q.Limit))
		}
		if q.Stream == fleet.DeadStream && q.Messages > 0 {
			style = styleBad
		}
		rows = append(rows, []span{{style, q.Stream}, number(q.Pending), number(q.AckPending), number(q.Redelivers), number(q.Messages),
			{"", size(q.Bytes)}, {styleDim, limit}})
	}
	return rows
}

func fleetJobs(jobs []fleet.JobStatus, now time.Time) [][]span {
	rows := [][]span{head("job", "state", ">done", ">found", ">failed", ">dead", ">rate", ">left", "source")}
	for _, j := range jobs {
		found, left := strconv.FormatInt(j.Found, 10), "–"
		if !j.All {
			found += "+"
		}
		if j.Left > 0 {
			left = (time.Duration(j.Left) * time.Second).String()
		}
		style, state := styleGood, j.State
		if state != "running" && state != "done" {
			style = styleBad
		}
		if state != "done" && !j.Changed.IsZero() && now.Sub(j.Changed) > 10*time.Second {
			state += ", " + seconds(now.Sub(j.Changed).Seconds()) + " ago"
		}
		rows = append(rows, []span{{"", j.Job}, {style, state}, number(j.Done), {"", found}, number(j.Failed), number(j.Dead),
			{"", fmt.Sprintf("%.0f/s", j.Rate)}, {"", left}, {styleDim, j.Source}})
	}
	return rows
}

func fleetDead(letters []fleet.DeadLetter, now time.Time) [][]span {
	rows := [][]span{head("dead letter", "job", ">tries", "node", ">ago", "reason")}
	for _, d := range letters {
		rows = append(rows, []span{{"", d.Key}, {"", d.Job}, number(d.Tries), {"", d.Node}, {styleDim, seconds(max(now.Sub(d.Time).Seconds(), 0))}, {styleBad, d.Reason}})
	}
	return rows
}

func fleetCameras(cameras []fleet.CameraStatus) [][]span {
	rows := [][]span{head("camera", "node", "unreachable at")}
	for _, c := range cameras {
		owner := span{"", c.Owner}
		if c.Owner == "" {
			owner = span{styleBad, "none"}
		}
		rows = append(rows, []span{{"", c.Name}, owner, {styleBad, strings.Join(c.Unreachable, ", ")}})
	}
	return rows
}

// fleetCounters is what this node has done, in words.
func fleetCounters(s *fleet.Status) string {
	var parts []string
	if c := s.Spill; c != nil {
		failed := uint64(0)
		for _, n := range c.Failed {
			failed += n
		}
		parts = append(parts, fmt.Sprintf("%d images answered by others, %d of others, %d tries failed", c.Sent, c.Taken, failed))
	}
	if c := s.Worker; c != nil {
		parts = append(parts, fmt.Sprintf("%d encoded in bulk, %d bad, %d twice", c.Encoded, c.Failed, c.Duplicates))
	}
	if c := s.Share; c != nil {
		parts = append(parts, fmt.Sprintf("%d texts from others, %d sets", c.TextHits, c.SetsTaken))
	}
	return strings.Join(parts, " · ")
}

func number[T int | int64 | uint64](n T) span { return span{"", fmt.Sprint(n)} }

func seconds(s float64) string {
	if s < 60 {
		return fmt.Sprintf("%.1f s", s)
	}
	return (time.Duration(s) * time.Second).String()
}

// size is a number of bytes in words.
func size(n uint64) string {
	switch {
	case n < 1e3:
		return fmt.Sprint(n, " B")
	case n < 1e6:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 1e9:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f GB", float64(n)/1e9)
}

// aligned pads the columns of a table, whose first row has their titles; those of numbers begin with ">". Columns that are empty but for
// their title are left out.
func aligned(rows [][]span) (lines [][]span) {
	lines = make([][]span, len(rows))
	for column := range rows[0] {
		title, right := strings.CutPrefix(rows[0][column].text, ">")
		rows[0][column].text = title
		empty := !slices.ContainsFunc(rows[1:], func(row []span) bool { return row[column].text != "" })
		if empty {
			continue
		}
		width := 0
		for _, row := range rows {
			row[column].text = printable(row[column].text)
			width = max(width, runewidth.StringWidth(row[column].text))
		}
		width = min(width, textWidth)
		for i, row := range rows {
			cell := row[column]
			if cell.text = runewidth.Truncate(cell.text, width, "…"); right {
				cell.text = runewidth.FillLeft(cell.text, width)
			} else {
				cell.text = runewidth.FillRight(cell.text, width)
			}
			lines[i] = append(lines[i], cell, span{"", "  "})
		}
	}
	return lines
}
