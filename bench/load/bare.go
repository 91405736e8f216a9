package load

import (
	"context"
	"encoding/json"
	"net"

	"github.com/valyala/fasthttp"

	"hailoclip/stages/clip"
)

// ServeBare serves the least that a service can do, as a measure for one: it reads the body of a request, does nothing with it,
// and gives an empty answer of either kind. /v1/stats has the process, as the service has it. It ends with ctx, and
// closes ln.
func ServeBare(ctx context.Context, ln net.Listener) error {
	s := &fasthttp.Server{
		NoDefaultServerHeader: true, DisablePreParseMultipartForm: true, MaxRequestBodySize: maxBody, ReadBufferSize: 16 << 10,
		Handler: func(r *fasthttp.RequestCtx) {
			r.SetContentType("application/json")
			if string(r.Path()) == "/v1/stats" {
				_ = json.NewEncoder(r).Encode(clip.Stats{Process: clip.ProcessNow()})
				return
			}
			_ = r.PostBody()
			r.SetBodyString(`{"classifications":[],"embedding":[]}`)
		},
	}
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	err := s.Serve(ln)
	if ctx.Err() != nil {
		return nil
	}
	return err
}
