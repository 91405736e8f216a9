package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"hailoclip/api"
	"hailoclip/api/client"
	"hailoclip/hailo/demo"
	"hailoclip/hailo/device"
	"hailoclip/hailo/doctor"
)

type verifyCmd struct {
	keyFlag
	URL  string `name:"url" placeholder:"URL" help:"Service to try (default: this machine's, at server.port)."`
	JSON bool   `help:"Print JSON."`
}

func (c *verifyCmd) Help() string {
	return `Tries the running service as its callers use it: its systemd unit, the device, the port, health, readiness, and images whose
answer is known. Each finding comes with its remedy. "hailo-clip doctor" examines the machine, and needs no running service.
Exit code 1 when something does not work.

Examples:
  sudo hailo-clip verify
  hailo-clip verify --url http://pi.local:5000
  hailo-clip verify --json | jq -r '.findings[] | select(.level == "fail") | .what'`
}

func (c *verifyCmd) Run(ctx context.Context, p place) error {
	key, err := c.key()
	if err != nil {
		return err
	}
	v, err := newVerification(p, c.URL, key)
	if err != nil {
		return err
	}
	defer v.service.Close()
	if c.URL == "" {
		v.unit(ctx, device.Root("/"))
		v.device(ctx)
	}
	if v.port(ctx) && v.health(ctx) {
		v.ready(ctx)
		v.classify(ctx)
	}
	return printReport(v.report(), c.JSON)
}

// verification is one run against the service at url.
type verification struct {
	findings
	url       string
	http      *http.Client // asks without a proxy
	service   *client.Client
	seen      client.Health
	simulated bool // scores mean nothing, as X-Clip-Warning says
}

// newVerification returns a run against the service at url; "" is that of this machine. It sends key; "" is none. The caller
// closes v.service.
func newVerification(p place, url, key string) (v *verification, err error) {
	server := p.cfg.Server
	if url != "" {
		server.TLS = api.TLS{} // whose certificate is not that of the configuration
	}
	v = &verification{findings: findings{place: p}, url: cmp.Or(url, server.URL()), http: server.OwnClient()}
	v.http.Timeout = time.Minute
	if v.service, err = client.New(v.url, client.Options{HTTP: v.http, Key: key}); err != nil {
		return nil, usageError{fmt.Errorf("--url: %w", err)}
	}
	return v, nil
}

// device has doctor look at the machine, and repeats the worst only.
func (v *verification) device(ctx context.Context) {
	r := doctor.Run(ctx, v.machine())
	for _, f := range r.Findings {
		if f.Level == doctor.Fail {
			v.add("device", doctor.Fail, f.What, "sudo hailo-clip doctor")
			return
		}
	}
	switch {
	case r.Device == nil:
		v.add("device", doctor.Info, "There is no Hailo-10H that a process could open.", "sudo hailo-clip doctor # where there should be one")
	case r.Level == doctor.Warn:
		v.add("device", doctor.Warn, r.Summary, "sudo hailo-clip doctor")
	default:
		v.add("device", doctor.OK, r.Summary, "")
	}
}

// port says whether anything accepts connections.
func (v *verification) port(ctx context.Context) bool {
	u, _ := url.Parse(v.url) // client.New has read it
	address := net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme]))
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", address)
	if err == nil {
		c.Close()
		v.add("port", doctor.OK, "Connections to "+address+" are accepted.", "")
		return true
	}
	remedy := "# look at the address, the network and its firewalls"
	if errors.Is(err, syscall.ECONNREFUSED) {
		remedy = "sudo systemctl start hailo-clip # or: hailo-clip serve\n# if it does not stay: journalctl -u hailo-clip -e"
	}
	v.add("port", doctor.Fail, "Nothing answers on "+address+": "+err.Error()+".", remedy)
	return false
}

// health says whether what answers is a service of this kind that can serve.
func (v *verification) health(ctx context.Context) bool {
	holder := "sudo ss -ltnp # who has the port? End that, or choose another server.port"
	h, err := v.service.Health(ctx)
	v.seen = h
	switch {
	case err != nil:
		v.add("health", doctor.Fail, "What answers at "+v.url+" is not hailo-clip: "+err.Error()+".", holder)
		return false
	case h.Service != "hailo-clip":
		v.add("health", doctor.Fail, fmt.Sprintf("What answers at %s is not hailo-clip but calls itself %q.", v.url, h.Service), holder)
		return false
	case h.Version == "":
		v.add("health", doctor.Fail, "What answers at "+v.url+" is the former service, which was written in Python.",
			"sudo systemctl disable --now hailo-clip # where that is its unit\n# then see what \"unit\" says, and start this one")
		return false
	case h.Status == "unhealthy":
		v.add("health", doctor.Fail, "It is unhealthy: "+h.Reason, "sudo hailo-clip doctor\njournalctl -u hailo-clip -e")
	case h.Status == "degraded":
		v.add("health", doctor.Warn, "It is degraded: "+h.Reason, "sudo hailo-clip doctor\njournalctl -u hailo-clip -e")
	default:
		v.add("health", doctor.OK, fmt.Sprintf("It is %s: model %s on the %s, version %s.", h.Status, h.Model, h.Backend, h.Version), "")
	}
	if h.Version != programVersion() {
		v.add("version", doctor.Warn, fmt.Sprintf("The service has version %s, this program %s.", h.Version, programVersion()), "sudo systemctl restart hailo-clip")
	}
	return true
}

// ready asks the probe that a load balancer asks.
func (v *verification) ready(ctx context.Context) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(v.url, "/")+"/readyz", nil)
	if err != nil {
		v.add("ready", doctor.Fail, err.Error(), "")
		return
	}
	a, err := v.http.Do(r)
	if err != nil {
		v.add("ready", doctor.Fail, "/readyz does not answer: "+err.Error()+".", "journalctl -u hailo-clip -e")
		return
	}
	defer a.Body.Close()
	v.simulated = a.Header.Get("X-Clip-Warning") == "simulated-vectors"
	body, _ := io.ReadAll(io.LimitReader(a.Body, 1<<10))
	switch a.StatusCode {
	case http.StatusOK:
		v.add("ready", doctor.OK, "It is ready: it has encoded what is known.", "")
	case http.StatusNotFound:
		v.add("ready", doctor.Info, "This version has no /readyz.", "")
	default:
		v.add("ready", doctor.Fail, fmt.Sprintf("It is not ready (status %d): %s", a.StatusCode, strings.TrimSpace(string(body))),
			"# while it starts or stops: wait; else\nsudo hailo-clip doctor\njournalctl -u hailo-clip -e")
	}
}

// classify sends the samples of the demo model, each with the names of all. With simulated vectors there is no right answer:
// then the same question has to get the same answer.
func (v *verification) classify(ctx context.Context) {
	const check = "classify"
	fail := func(err error) {
		var answer *client.Error
		if errors.As(err, &answer) && (answer.Status == http.StatusUnauthorized || answer.Status == http.StatusForbidden) {
			v.add(check, doctor.Warn, "The service wants a key, so nothing was classified: "+answer.Message, "hailo-clip verify --key-file FILE # with the key in it")
			return
		}
		v.add(check, doctor.Fail, "An image that is known is not classified: "+err.Error()+".", "journalctl -u hailo-clip -e")
	}
	samples, err := demo.Samples()
	if err != nil {
		fail(err)
		return
	}
	prompts := samplePrompts(samples)
	right, begin := 0, time.Now()
	for i, s := range samples {
		q := client.Question{Image: client.Image{Data: s.JPEG}, Prompts: prompts, TopK: len(prompts)}
		a, err := v.service.Classify(ctx, q)
		if err == nil {
			err = sound(a, prompts)
		}
		if err == nil && v.simulated {
			var again client.Classification
			if again, err = v.service.Classify(ctx, q); err == nil && fmt.Sprint(again.Matches) != fmt.Sprint(a.Matches) {
				err = errors.New("the same image and prompts got two answers")
			}
		}
		if err != nil {
			fail(fmt.Errorf("%s: %w", s.File, err))
			return
		}
		if a.Matches[0].Text == prompts[i] {
			right++
		}
	}
	took := time.Since(begin).Round(time.Millisecond)
	switch count := fmt.Sprintf("%d of %d known images have the right prompt first (%s)", right, len(samples), took); {
	case v.simulated:
		v.add(check, doctor.OK, fmt.Sprintf("The simulated chip answers %d known images alike each time (%s); its scores mean nothing.", len(samples), took), "")
	case right == len(samples):
		v.add(check, doctor.OK, count+".", "")
	case v.seen.Model != "demo" && 2*right > len(samples): // they are drawings, and that model knows photographs
		v.add(check, doctor.OK, count+", which are drawings.", "")
	default:
		v.add(check, doctor.Fail, "Only "+count+".", "sudo hailo-clip models verify "+v.seen.Model+" --state-dir "+device.ServiceState+"\nsudo hailo-clip doctor")
	}
}

// sound checks what holds for every answer: all prompts once, by rank, with probabilities that make 1.
func sound(a client.Classification, prompts []string) error {
	sum := 0.0
	for i, m := range a.Matches {
		if sum += m.Probability; m.Rank != i+1 || i > 0 && m.Score > a.Matches[i-1].Score {
			return fmt.Errorf("match %d has rank %d and score %v", i+1, m.Rank, m.Score)
		}
	}
	if len(a.Matches) != len(prompts) || math.Abs(sum-1) > 1e-4 {
		return fmt.Errorf("%d matches for %d prompts, whose probabilities make %v", len(a.Matches), len(prompts), sum)
	}
	return nil
}

// report is all that was found.
func (v *verification) report() doctor.Report {
	r := doctor.Report{Level: doctor.OK, Findings: v.all, Versions: doctor.Versions{Program: programVersion()}}
	count := map[doctor.Level]int{}
	for _, f := range v.all {
		count[f.Level]++
	}
	switch {
	case count[doctor.Fail] > 0:
		r.Level, r.Summary = doctor.Fail, fmt.Sprintf("%d of %d checks failed. Begin with the first, then run hailo-clip verify again.", count[doctor.Fail], len(v.all))
	case count[doctor.Warn] > 0:
		r.Level, r.Summary = doctor.Warn, fmt.Sprintf("It works, with %d to look at.", count[doctor.Warn])
	default:
		r.Summary = "All is well: the service at " + v.url + " works."
	}
	return r
}
