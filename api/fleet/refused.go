package fleet

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// permanentError is one that comes again until somebody has changed something: who repeats what has failed ends with it.
type permanentError struct {
	error
	todo string // for people
}

func (e *permanentError) Error() string { return e.error.Error() + "; " + e.todo }
func (e *permanentError) Unwrap() error { return e.error }

func permanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}

// onlyPermanent is for what is begun again after other errors.
func onlyPermanent(err error) error {
	if permanent(err) {
		return err
	}
	return nil
}

// refusedFor is how long a broker is asked again that does not let this node in: of several, another one may.
const refusedFor = 5 * time.Second

// unwelcome gives the error of a connection that will not come about its final form; other errors stay as they are.
func (c *Conn) unwelcome(err error) error {
	newKey := "let this node in with: hailo-clip fleet add-node " + c.Config.Node + ", where the broker is, and set fleet.credentials to the file"
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAuthExpired):
		return &permanentError{fmt.Errorf("the broker does not know the key of this node: %w", err), newKey}
	case errors.As(err, &authority):
		return &permanentError{fmt.Errorf("the broker is not the one of fleet.credentials, or has begun with a new folder: %w", err), newKey}
	case errors.As(err, &host):
		return &permanentError{err, "start the broker with --advertise and the name in fleet.url"}
	case errors.Is(err, nats.ErrNkeysNotSupported), errors.Is(err, nats.ErrSecureConnWanted):
		return &permanentError{err, "the broker asks for no keys: start it with --listen, or take fleet.credentials out of the configuration"}
	}
	return err
}

// shut is why the broker does not let this node in, and since when that is known.
type shut struct {
	why   error
	since time.Time
}

// shutOut returns the permanent error of a connection that the broker has refused for as long; nil: it has not. It only looks at what is
// there: who waits for a connection calls it again and again.
func (c *Conn) shutOut(forAsLong time.Duration) error {
	if c.nc.IsConnected() {
		return nil
	}
	now := c.shut.Load()
	if err := c.unwelcome(c.nc.LastError()); now == nil && permanent(err) {
		now = &shut{err, time.Now()}
		c.shut.CompareAndSwap(nil, now) // or another call has
	}
	if now == nil || time.Since(now.since) < forAsLong {
		return nil
	}
	return now.why
}

// refusals are the subjects that the broker refuses on a connection, which it tells later and of no request in particular: what was asked
// has no answer. Safe for concurrent use.
type refusals struct {
	mu  sync.Mutex
	all map[string]string // what the broker says, by subject

	waiting map[*refusalWait]bool
}

// refusalWait is something that is asked, about subjects and streams, and that ends when one of them is refused.
type refusalWait struct {
	about []string
	end   func()
}

// watch calls end when one of the subjects, or what is asked of the streams, is refused, until stop is called.
func (r *refusals) watch(end func(), about ...string) (stop func()) {
	w := &refusalWait{about, end}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting == nil {
		r.waiting = map[*refusalWait]bool{}
	}
	r.waiting[w] = true
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.waiting, w)
	}
}

// isAbout says that a subject is one of those, or of what is asked of the streams, or is kept by them.
func isAbout(subject string, about []string) bool {
	parts := strings.Split(subject, ".")
	return slices.ContainsFunc(about, func(a string) bool {
		kind, bucket, _ := strings.Cut(a, "_")
		return subject == a || slices.Contains(parts, a) || (kind == "KV" || kind == "OBJ") && slices.Contains(parts, bucket)
	})
}

const mostRefusals = 64 // that are remembered

// refusedSubject finds the subject in what the broker says, as in: Permissions Violation for Publish to "clip.v1.res.job.0".
var refusedSubject = regexp.MustCompile(`"(\S+)"`)

// note remembers what err tells of a subject, and returns that; "": it does not.
func (r *refusals) note(err error) (subject string) {
	found := refusedSubject.FindStringSubmatch(err.Error())
	if !errors.Is(err, nats.ErrPermissionViolation) || found == nil {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = map[string]string{}
	}
	for other := range r.all { // what comes again is noted again
		if len(r.all) < mostRefusals {
			break
		}
		delete(r.all, other)
	}
	r.all[found[1]] = strings.TrimPrefix(err.Error(), nats.ErrPermissionViolation.Error()+": ")
	for w := range r.waiting {
		if isAbout(found[1], w.about) {
			w.end()
		}
	}
	return found[1]
}

// forget is for a new connection, which may be given other permissions.
func (r *refusals) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = nil
}

// of returns what the broker says of one of the subjects, or of what is asked of the streams; "": nothing.
func (r *refusals) of(inbox string, about []string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for subject, said := range r.all {
		if isAbout(subject, about) || strings.HasPrefix(subject, inbox) { // without an inbox no answer comes at all
			return said
		}
	}
	return ""
}

// list returns up to most of them, by subject.
func (r *refusals) list(most int) (all []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, subject := range slices.Sorted(maps.Keys(r.all))[:min(most, len(r.all))] {
		all = append(all, "the broker refuses: "+r.all[subject])
	}
	return all
}

// Codes of the broker's errors that come again.
var permanentCodes = []jetstream.ErrorCode{
	10026, 10027, 10113, 10122, // limits of the account: consumers, streams, bytes
	10052, 10065, 10109, // a stream that cannot be made, whose subjects are another's, or that is sealed
	10099, 10100, // the images are given to a consumer of somebody else's
}

// verdict gives the error of something that was asked of the broker, which is about these subjects and streams, its final form where it
// would come again; other errors, and nil, stay as they are, and so does ErrNoBroker: the next connection may be given other permissions.
func (c *Conn) verdict(err error, about ...string) error {
	switch {
	case err == nil || permanent(err) || errors.Is(err, ErrNoBroker):
		return err
	case errors.Is(err, nats.ErrMaxPayload) || is(err, codeTooLarge):
		return &permanentError{err, fmt.Sprintf(
			"the broker takes messages of at most %d bytes: set its max_payload, and max_msg_size of the stream, to %d", c.nc.MaxPayload(), maxMessage)}
	case is(err, permanentCodes...):
		return &permanentError{err, "change that at the broker; a stream of the fleet that is removed is made again"}
	}
	if said := c.refused.of(c.inbox(), about); said != "" {
		return &permanentError{fmt.Errorf("the broker refuses: %s: %w", said, err),
			"give this node credentials of hailo-clip fleet add-node, or the permissions that it would give"}
	}
	return err
}
