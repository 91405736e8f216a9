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
