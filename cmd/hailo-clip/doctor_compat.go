package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"hailoclip/api"
	"hailoclip/api/compat"
	"hailoclip/hailo/doctor"
)

// pingTimeout is how long Immich waits for the answer to a ping.
const pingTimeout = 2 * time.Second

// compat tells which clients of other systems can use the service, and what would keep them from it.
func (f *findings) compat(ctx context.Context) {
	const check = "compat"
	c := f.cfg.Compat
	var on []string
	for _, d := range compat.Dialects {
		if c.Speaks(d.Name) {
			on = append(on, d.Name)
		}
	}
	if len(on) == 0 {
		f.add(check, doctor.Info, "No interface of another system is on (compat).", "")
		return
	}
	what, runs := "Clients of other systems are served: "+strings.Join(on, ", "), ""
	if m, _, err := f.catalog.Resolve(ctx, f.cfg.CLIP.Model); err == nil { // else a finding of its own
		runs = m.Name
		what += ". To them the model is " + strings.Join(slices.Concat([]string{m.Name}, m.Aliases, c.Aliases), ", ")
	}
	f.add(check, doctor.OK, what+".", "")
	for _, alias := range c.Aliases {
		if runs == "" {
			break
		}
		if other := f.shadowed(alias, runs); other != "" {
			f.add(check, doctor.Warn, fmt.Sprintf("compat.aliases has %s, which is the model %s: who asks for it gets vectors of the model that runs, "+
				"and an index with both is worth nothing.", alias, other), "# take it out of compat.aliases, or run that model: clip.model: "+other)
		}
	}
	if len(f.cfg.Access.Keys) > 0 && c.OpenAI {
		f.add(check, doctor.Info, "access.keys are set: clients send theirs as the API key (OpenAI, Cohere, Voyage, ...: \"Authorization: Bearer\").", "")
	}
	if c.Immich.Enabled {
		f.immich(ctx, check, c.Immich)
	}
}

// shadowed is the model, other than the one that runs, which is called by a name; "" where there is none.
func (f *findings) shadowed(name, runs string) string {
	for _, m := range f.catalog.Known {
		if m.AnswersTo(name) && m.Name != runs {
			return m.Name
		}
	}
	return ""
}

// immich tells what Immich needs: a way in without a key, vectors that mean something, and a server for its other tasks.
func (f *findings) immich(ctx context.Context, check string, c compat.Immich) {
	if f.encoders().MadeUpVectors() && !f.cfg.Sim.ServeHash {
		f.add(check, doctor.Info, "Immich gets no vectors that are made up: /ping and /predict answer 503.", "# sim.vectors: model, for vectors that mean something")
	}
	if len(f.cfg.Access.Keys) > 0 && c.Listen == "" {
		level := doctor.Info
		if c.Upstream != "" {
			level = doctor.Warn // Immich is to come
		}
		f.add(check, level, "Immich sends no key, and access.keys are set: its requests get 401.",
			"# compat.immich.listen: 0.0.0.0:3003, which serves Immich alone, without a key; and in Immich that address as URL")
	}
	if c.Listen != "" {
		f.immichListener(ctx, check, c)
	}
	if c.Upstream == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	if err := api.UpstreamAnswers(ctx, c.Upstream); err != nil {
		f.add(check, doctor.Warn, "compat.immich.upstream does not answer: Immich's faces, text in images and other models fail: "+err.Error(),
			"# start that server, or correct compat.immich.upstream. To try it: curl "+strings.TrimRight(c.Upstream, "/")+"/ping")
		return
	}
	f.add(check, doctor.OK, "compat.immich.upstream answers: "+c.Upstream+".", "")
}

// immichListener tries the address that is Immich's alone, unless the service is there and answers.
func (f *findings) immichListener(ctx context.Context, check string, c compat.Immich) {
	if _, answers := askHealth(ctx, f.cfg.Server); answers {
		host, port, _ := net.SplitHostPort(c.Listen)
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		dial, cancel := context.WithTimeout(ctx, pingTimeout)
		defer cancel()
		conn, err := (&net.Dialer{}).DialContext(dial, "tcp", net.JoinHostPort(host, port))
		if err != nil {
			f.add(check, doctor.Warn, "The service runs, and does not listen on compat.immich.listen, "+c.Listen+": "+err.Error(),
				"# it is opened at the start\nsudo systemctl restart hailo-clip")
			return
		}
		conn.Close()
		f.add(check, doctor.OK, "The service listens for Immich on "+c.Listen+".", "")
		return
	}
	ln, err := api.ListenForImmich(c)
	if err != nil {
		f.stops(check, err, "# correct compat.immich.listen, or end what uses the port: Immich's own machine learning has 3003, too")
		return
	}
	ln.Close()
}
