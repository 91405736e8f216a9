// Package api serves the REST interface of hailo-clip over HTTP.
//
// The paths, fields and sentences are those of openapi.yaml, which the service hands out at
// /openapi.yaml. The package takes bytes off the wire, checks them, asks the text side for the
// vectors of the prompts and the [pipeline.Pipeline] for the image, and writes the answer.
//
// How a request goes through it:
//
//   - listener takes the connection, or makes room for it, or answers that there is none; conn
//     knows whether it waits for a request, and whether its client is still there.
//   - Server.screen refuses what pages of other origins have browsers send.
//   - Server.handle gives it an id, catches panics, writes the log line.
//   - bodyMemory.read takes the body into a buffer, which grows with what has arrived and not
//     with what was promised, up to Config.MaxBodyBytes, and all of them together up to
//     Config.MaxBodyMemoryBytes. What the full queue would refuse is refused then.
//   - input.parse reads the JSON without copying the image, then decodeImage writes the bytes
//     of the image over the text it came from.
//   - [clip.Engine] has the image until it calls the request's Release; the buffer goes back
//     to its pool when both the line and the handler are done with it.
//   - Errors become statuses in errors.go and nowhere else.
package api
