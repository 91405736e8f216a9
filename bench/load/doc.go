// Package load puts the service under load as its users do: over HTTP in a closed loop
// (clients that ask again when they have their answer) or an open loop (requests that arrive at
// a fixed rate, whatever the answers do). It searches for the highest load that meets a goal and
// measures two services in turns. What it finds is a report.Report.
//
// What is counted: latency is that of every request that was due in the measured window, from
// the moment it was due to the last byte of its answer. In a closed loop a request is due when
// its client is free, in an open loop when the schedule says so, so that a service that stalls
// shows the stall in every request it held up and not only in the one that it answered late
// ("coordinated omission"). The rate is that of the good answers that came within the window.
// Percentiles are those of the good answers (2xx); everything else is counted by its code.
//
// The generator shares the machine with the service it measures, so it stays cheap: bodies are
// made once, answers are read and not parsed, and what it costs itself is part of the report.
// It talks to the named URLs only: no redirects, no proxies, no retries.
package load
