// Package api serves the REST interface of hailo-clip over HTTP: it reads requests, asks a [clip.Engine], and writes the
// answers. Paths, fields and sentences are those of openapi.yaml, which the service hands out at /openapi.yaml.
//
// How a request goes through it:
//
//   - listener.go takes the connection, makes room for it (places.go), or answers that there is none. conn.go knows
//     what the connection does, and whether its client is still there.
//   - request.go: Server.begin makes a request, which owns its id, its body, what it asks and its answer; request.end
//     writes its line in the log (log.go) and gives everything back. Panics end here.
//   - origin.go refuses what pages of other origins have browsers send.
//   - route.go has the table of what is served: for each path the kinds of body, what the engine does, and the answer.
//     request.serve goes through a row of it in the order in which requests are refused.
//   - body.go takes the body into a buffer, which, once memory is no longer plenty, grows with what has arrived and not with
//     what was promised, and bounds what all bodies take. caller.go says whose it is.
//   - readers.go has the kinds of body that an image may come in, and the query; json.go and fields.go read JSON, multipart.go
//     forms. They make a [clip.Request] of it without copying the image; base64.go writes the bytes of the image over
//     the text they came from. The engine has them until it calls the request's Release.
//   - batch.go and compare.go do so for many images and texts, each of which has a result or an error of its own; answer.go
//     has their answers count as bodies until they have been sent.
//   - encode.go, vectors.go and health.go write the answers, errors.go those of errors: nowhere else do they become statuses.
//   - drain.go ends the connections when the service stops.
package api
