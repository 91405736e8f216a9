// Package pipeline moves jobs through a line of stages.
//
// A [Job] is one image on its way from a request to its answer. A [Stage] is a bounded queue
// and the workers that read it. A [Pipeline] is a slice of stages. What the stages do is not
// known here (see package stages); this package only promises:
//
//   - [Pipeline.Do] answers by the deadline of its context, whatever the stages do.
//   - Work is refused at the front door only: a full first queue is ErrQueueFull at once,
//     a full queue inside the line means wait.
//   - One goroutine holds a job at a time; the send to the next queue is the transfer.
//   - A stage with a batch size takes what is queued, up to that size. It does not wait for
//     more, unless MaxWait says so.
//   - A panic in a stage fails the jobs of its batch and nothing else.
//   - Every job leaves the line exactly once, and what it held is released then.
//   - Close drains: the first queue is closed, and the last worker out of each stage closes
//     the next one. No goroutine is left behind.
package pipeline
