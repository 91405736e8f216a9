// Package api serves the REST interface of hailo-clip over HTTP: it reads requests, asks a [clip.Engine], and writes the
// answers. Paths, fields and sentences are those of openapi.yaml, which the service hands out at /openapi.yaml.
//
// How a request goes through it:
//
//   - listener.go takes the connection, makes room for it (places.go), or answers that there is none. conn.go knows
//     what the connection does, and whether its client is still there. starting.go answers probes before the service begins.
//     tls.go has a connection speak TLS, from its first read on; unix.go opens the Unix socket.
//   - request.go: Server.begin makes a request, which owns its id, its body, what it asks and its answer; request.end
//     writes its line in the log (log.go) and gives everything back. Panics end here.
//   - origin.go refuses what pages of other origins have browsers send. door.go refuses who has no key (package access), as soon as
//     the route is known.
//   - route.go has the table of what is served: for each path the kinds of body, what the engine does, and the answer.
//     request.serve goes through a row of it in the order in which requests are refused.
//   - body.go takes the body into a buffer, which, once memory is no longer plenty, grows with what has arrived and not with
//     what was promised, and bounds what all bodies take. caller.go says whose it is.
//   - readers.go has the kinds of body that an image may come in, and the query; json.go and fields.go read JSON, multipart.go
//     forms. They make a [clip.Request] of it without copying the image; base64.go writes the bytes of the image over
//     the text they came from. The engine has them until it calls the request's Release.
//   - batch.go and compare.go do so for many images and texts, each of which has a result or an error of its own; answer.go
//     has their answers count as bodies until they have been sent.
//   - encode.go, vectors.go, health.go and probes.go write the answers, errors.go those of errors: nowhere else do they
//     become statuses.
//   - console.go hands out the page of package console, tokens.go counts what a text is for the model.
//   - drain.go ends the connections when the service stops.
//
// Streams go through the same table. streams.go has their routes, events.go those of events, and lent.go the memory for their frames:
//
//   - push.go reads a body that may have no end, frame after frame, as soon as its head is there.
//   - A WebSocket (websocket.go) and a listener to events (events.go) take the connection over: lasting.go. Their requests have
//     been through all of the above by then, and have an answer of which only the head is sent.
//   - streamanswer.go writes the answers to frames.
//
// All that is one HTTP server. A second one of net/http on the same port, for what has no end, would need connections sorted by
// their first bytes, or given on by replaying the head, and could not have a POST of frames on a connection that has been used
// before; and what is said above of callers, origins, limits, the log and the end would be there twice. It is not needed: with
// StreamRequestBody the handler has an endless POST from its head on (ffmpeg, with chunks and without a Content-Type, after
// "Expect: 100-continue", on a new connection or a used one: TestPush, TestFFmpegPushes), sets its own time limits between two
// reads, and can answer before the end; and a connection that is taken over without a response comes with all that has been read
// of it, whatever the request and the state of the server are (TestPipelinedUpgrade, TestUpgradeRefused).
package api
