package load

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hailoclip/api/client"
)

// Register makes the prompt set that the bodies name, with a label for each prompt, unless the service has one of that name,
// and returns when it is encoded. The caller calls remove in the end, also when the target is closed; it deletes what was made.
func (t *Target) Register(ctx context.Context) (remove func(), err error) {
	c, err := client.New(t.base, client.Options{Key: t.key})
	if err != nil {
		return nil, err
	}
	ask, d, created := t.bodies.ask, client.Definition{}, false
	for i := range ask.Prompts {
		text := Prompt(i)
		d.Labels = append(d.Labels, client.Label{Name: text, Prompts: []string{text}})
	}
	var missing *client.Error
	if _, err = c.PromptSet(ctx, ask.Set, false); errors.As(err, &missing) && missing.Code == "prompt_set_not_found" {
		_, created, err = c.PutPromptSet(ctx, ask.Set, d, client.Condition{IfNoneMatch: true})
	}
	remove = func() {
		defer c.Close()
		if created {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			_ = c.DeletePromptSet(ctx, ask.Set, client.Condition{}) // the service may be gone
		}
	}
	if err == nil {
		var set client.PromptSet
		if set, err = c.WaitPromptSet(ctx, ask.Set, nil); err == nil && set.State != client.SetReady {
			err = errors.New(set.Reason)
		}
	}
	if err != nil {
		remove()
		return nil, fmt.Errorf("%s: the prompt set: %w", t.base, err)
	}
	return remove, nil
}
