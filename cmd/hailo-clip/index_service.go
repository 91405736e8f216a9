package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"hailoclip/api/bulk"
	"hailoclip/api/client"
)

// Requests of an index to a service: they enter there by lanes for bulk work, so that others are served as before.
const (
	serviceRequests = 4
	serviceImages   = 16      // in a request
	serviceBytes    = 8 << 20 // of images in a request, unless one is larger
)

// serviceEncoder is a service.
func (c *indexRunCmd) serviceEncoder(ctx context.Context, s *client.Client) (e indexEncoder, err error) {
	health, err := s.Health(ctx)
	if err != nil {
		return e, err
	}
	if health.ImageDigest == "" {
		return e, errors.New("the service is older than this program: it does not say which image encoder it has")
	}
	version := ""
	if c.Set != "" {
		if err := waitEncoded(ctx, s, c.Set); err != nil {
			return e, err
		}
		set, err := s.PromptSet(ctx, c.Set, false)
		if err != nil {
			return e, err
		}
		version = set.ETag
	}
	text, err := s.EmbedText(ctx, "an image")
	if err != nil {
		return e, err
	}
	groups := newServiceGroups(c, s, version)
	direct := bulk.NewDirect(health.Model, c.resized(bulk.Prepared(health.ImageDigest, health.ImagePreparation)), serviceRequests*serviceImages, groups.encode)
	return indexEncoder{Encoder: serviceCloser{direct, groups}, dimension: len(text), what: c.what(version)}, nil
}

// serviceCloser ends the groups when nobody asks any more.
type serviceCloser struct {
	*bulk.Direct
	groups *serviceGroups
}

func (s serviceCloser) Close(ctx context.Context) error {
	err := s.Direct.Close(ctx)
	close(s.groups.in)
	s.groups.running.Wait()
	return err
}

// serviceGroups sends images that come at the same time in one request.
type serviceGroups struct {
	labels  indexLabels
	version string // of the prompt set
	service *client.Client
	in      chan *serviceImage
	running sync.WaitGroup
}

// serviceImage is an image on its way.
type serviceImage struct {
	ctx     context.Context
	image   []byte
	vector  []float32
	matches []bulk.Match
	err     error
	done    chan struct{}
}

func newServiceGroups(c *indexRunCmd, s *client.Client, version string) *serviceGroups {
	g := &serviceGroups{labels: c.indexLabels, version: version, service: s, in: make(chan *serviceImage, serviceImages)}
	for range serviceRequests {
		g.running.Go(g.work)
	}
	return g
}

// encode is a bulk.Embed.
func (g *serviceGroups) encode(ctx context.Context, image []byte) ([]float32, []bulk.Match, error) {
	i := &serviceImage{ctx: ctx, image: image, done: make(chan struct{})}
	g.in <- i
	<-i.done // ends with ctx, too: the request has it
	return i.vector, i.matches, i.err
}

func (g *serviceGroups) work() {
	var next *serviceImage
	for {
		first := next
		if next = nil; first == nil {
			var more bool
			if first, more = <-g.in; !more {
				return
			}
		}
		group, size := []*serviceImage{first}, len(first.image)
		for len(group) < serviceImages && next == nil {
			select {
			case i, more := <-g.in:
				if !more {
					break // the next turn ends
				}
				if size += len(i.image); size > serviceBytes {
					next = i
				} else {
					group = append(group, i)
				}
				continue
			default:
			}
			break
		}
		g.ask(group)
	}
}

// ask has the service encode images, one by one where they are too large together.
func (g *serviceGroups) ask(group []*serviceImage) {
	err := g.askOnce(group)
	var said *client.Error
	tooLarge := errors.As(err, &said) && said.Status == http.StatusRequestEntityTooLarge
	if tooLarge && len(group) > 1 {
		for i := range group {
			g.ask(group[i : i+1])
		}
		return
	}
	if tooLarge {
		err = fmt.Errorf("%w: %s", bulk.ErrImage, said.Message)
	}
	for _, i := range group {
		if err != nil {
			i.err = err
		}
		close(i.done)
	}
}

func (g *serviceGroups) askOnce(group []*serviceImage) error {
	images := make([]client.Image, len(group))
	for i := range group {
		images[i].Data = group[i].image
	}
	ctx := group[0].ctx // that of the encoder, as of the others
	if g.labels.Set == "" && len(g.labels.Prompt) == 0 {
		results, _, err := g.service.EmbedBatch(ctx, images, nil)
		if err != nil { // there need not be as many as images
			return err
		}
		for i := range results {
			group[i].vector, group[i].err = results[i].Embedding, imageFault(results[i].Err)
		}
		return nil
	}
	topK := g.labels.TopK
	if topK == 0 {
		topK = allMatches
	}
	results, err := g.service.ClassifyBatch(ctx, client.BatchQuestion{Images: images, Prompts: g.labels.Prompt, PromptSet: g.labels.Set, TopK: topK})
	if err != nil {
		return err
	}
	for i, r := range results {
		if g.version != "" && r.Err == nil && r.ETag != g.version {
			return fmt.Errorf("the prompt set %s has changed meanwhile", g.labels.Set)
		}
		group[i].err, group[i].matches = imageFault(r.Err), []bulk.Match{}
		for _, m := range r.Matches {
			group[i].matches = append(group[i].matches, bulk.Match{Label: m.Text, Score: m.Score, Probability: m.Probability, Cosine: m.Cosine})
		}
	}
	return nil
}

// imageFault is the error of an image in a batch.
func imageFault(err error) error {
	var said *client.Error
	if errors.As(err, &said) && slices.Contains([]string{"invalid_image", "image_too_large", "unsupported_image"}, said.Code) {
		return fmt.Errorf("%w: %s", bulk.ErrImage, said.Message)
	}
	return err
}
