package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"hailoclip/api/client"
)

func ExampleClient_Classify() {
	c, err := client.New(address, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	answer, err := c.Classify(ctx, client.Question{
		Image:   client.Image{Data: sample("cat")},
		Prompts: []string{"a photo of a dog", "a photo of a cat"},
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range answer.Matches {
		fmt.Printf("%d. %s\n", m.Rank, m.Text)
	}
	// Output:
	// 1. a photo of a cat
	// 2. a photo of a dog
}

func ExampleClient_EmbedText() {
	c, err := client.New(address, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	image, err := c.EmbedImage(context.Background(), client.Image{Data: sample("cat")})
	if err != nil {
		log.Fatal(err)
	}
	cosine := func(text string) (sum float32) {
		embedding, err := c.EmbedText(context.Background(), text)
		if err != nil {
			log.Fatal(err)
		}
		for i := range embedding { // both are of unit length
			sum += embedding[i] * image[i]
		}
		return sum
	}
	fmt.Println(len(image), cosine("a photo of a cat") > cosine("a photo of a dog"))
	// Output: 512 true
}

func ExampleError() {
	c, err := client.New(address, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	_, err = c.EmbedImage(context.Background(), client.Image{Data: []byte("not an image")})
	var said *client.Error
	if errors.As(err, &said) {
		fmt.Println(said.Status, said.Code)
	}
	// Output: 400 invalid_image
}

func ExampleClient_PutPromptSet() {
	ctx := context.Background()
	c, err := client.New(address, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	_, created, err := c.PutPromptSet(ctx, "pets", client.Definition{
		Labels:     []client.Label{{Name: "cat"}, {Name: "dog", Prompts: []string{"a photo of a dog"}}},
		Background: client.Background{Prompts: []string{"a photo of a guitar"}},
	}, client.Condition{})
	if err != nil {
		log.Fatal(err)
	}
	set, err := c.WaitPromptSet(ctx, "pets", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(created, set.State)
	for _, shown := range []string{"cat", "guitar"} {
		answer, err := c.Classify(ctx, client.Question{Image: client.Image{Data: sample(shown)}, PromptSet: "pets", TopK: 1})
		if err != nil {
			log.Fatal(err)
		}
		if answer.Matched {
			fmt.Println(shown, "is a", answer.Matches[0].Text)
		} else {
			fmt.Println(shown, "is none of them:", answer.Reason)
		}
	}
	if err := c.DeletePromptSet(ctx, "pets", client.Condition{IfMatch: set.ETag}); err != nil {
		log.Fatal(err)
	}
	// Output:
	// true ready
	// cat is a cat
	// guitar is none of them: negative
}

func ExampleClient_ClassifyBatch() {
	c, err := client.New(address, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	results, err := c.ClassifyBatch(context.Background(), client.BatchQuestion{
		Images:  []client.Image{{Data: sample("dog")}, {Data: []byte("broken")}, {Data: sample("cat")}},
		Prompts: []string{"a photo of a dog", "a photo of a cat"},
		TopK:    1,
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range results {
		var failed *client.Error
		if errors.As(r.Err, &failed) {
			fmt.Println(failed.Code)
		} else {
			fmt.Println(r.Matches[0].Text)
		}
	}
	// Output:
	// a photo of a dog
	// invalid_image
	// a photo of a cat
}

func ExampleClient_Compare() {
	c, err := client.New(address, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	cosine, err := c.Compare(context.Background(),
		[]client.Item{{Image: sample("cat")}, {Image: sample("dog")}},
		[]client.Item{{Text: "a photo of a cat"}, {Text: "a photo of a dog"}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(cosine[0][0] > cosine[0][1], cosine[1][1] > cosine[1][0])
	// Output: true true
}

func ExampleClient_Evaluate() {
	ctx := context.Background()
	c, err := client.New(address, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	labels := []client.Label{{Name: "cat"}, {Name: "dog"}, {Name: "pizza"}}
	if _, _, err := c.PutPromptSet(ctx, "things", client.Definition{Labels: labels}, client.Condition{}); err != nil {
		log.Fatal(err)
	}
	if _, err := c.WaitPromptSet(ctx, "things", nil); err != nil {
		log.Fatal(err)
	}
	var images []client.LabeledImage
	for _, l := range labels {
		images = append(images, client.LabeledImage{Label: l.Name, Image: sample(l.Name)})
	}
	e, err := c.Evaluate(ctx, "things", images, client.EvaluateOptions{Precision: 0.95, Apply: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(e.Accuracy, e.Labels, e.Confusion)
	// Output: 1 [cat dog pizza] [[1 0 0 0] [0 1 0 0] [0 0 1 0] [0 0 0 0]]
}
