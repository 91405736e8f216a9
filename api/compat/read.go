package compat

import (
	"bytes"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"hailoclip/api/rawjson"
)

// Limits of one request.
const (
	MaxItems = 2048     // texts and images. OpenAI's limit
	maxText  = 64 << 10 // bytes of a text, of which models read less; the rest is cut
)

// Marker is where the image goes in a prompt of llama.cpp.
const Marker = "<__media__>"

// Body is the fields of a JSON body, of all dialects. They lie in the body.
type Body struct {
	Model, Name                                                          rawjson.Raw
	Input, Inputs, Content, Messages, Texts, Images, Prompt, Text, Image rawjson.Raw
	Modality                                                             rawjson.Raw

	Dimensions      rawjson.Raw
	OutputDimension rawjson.Raw `json:"output_dimension"`
	EncodingFormat  rawjson.Raw `json:"encoding_format"`
	OutputEncoding  rawjson.Raw `json:"output_encoding"`
	EncodingType    rawjson.Raw `json:"encoding_type"`
	EmbeddingType   rawjson.Raw `json:"embedding_type"`
	EmbeddingTypes  rawjson.Raw `json:"embedding_types"`
	OutputDtype     rawjson.Raw `json:"output_dtype"`

	Truncate, Truncation, Parameters, Options, Data rawjson.Raw

	// Of vLLM.
	TruncateTokens rawjson.Raw `json:"truncate_prompt_tokens"`
	EmbedDtype     rawjson.Raw `json:"embed_dtype"`
	Endianness     rawjson.Raw

	// Of Roboflow.
	Subject     rawjson.Raw
	SubjectType rawjson.Raw `json:"subject_type"`
	PromptType  rawjson.Raw `json:"prompt_type"`
	VersionID   rawjson.Raw `json:"clip_version_id"`

	ExecEndpoint rawjson.Raw // of clip-as-service
}

// Parse reads a body. It does not copy: the fields lie in it. The error is a rawjson.ErrInvalid.
func Parse(body []byte) (*Body, error) {
	b := new(Body)
	return b, rawjson.Object(body, b)
}

// embeddings reads the items and the common options, whichever of the known forms they have: the body says which.
func embeddings(a *Ask, b *Body) error {
	if err := a.options(b); err != nil {
		return err
	}
	return a.items(b)
}

// options reads what does not depend on the form of the items: the model, and how vectors are wanted. Options that change nothing
// here, such as "normalize", are ignored: vectors are always of unit length.
func (a *Ask) options(b *Body) error {
	if err := a.model(b.Model); err != nil {
		return err
	}
	for _, f := range [...]struct {
		name string
		raw  rawjson.Raw
		read func(a *Ask, name string, raw rawjson.Raw) error
	}{
		{"dimensions", b.Dimensions, (*Ask).dimensions}, {"output_dimension", b.OutputDimension, (*Ask).dimensions},
		{"encoding_format", b.EncodingFormat, (*Ask).encoding}, {"output_encoding", b.OutputEncoding, (*Ask).encoding},
		{"encoding_type", b.EncodingType, (*Ask).encoding}, {"embedding_type", b.EmbeddingType, (*Ask).encoding},
		{"truncate", b.Truncate, (*Ask).truncation}, {"truncation", b.Truncation, (*Ask).truncation},
		{"truncate_prompt_tokens", b.TruncateTokens, (*Ask).truncateTokens},
		{"embed_dtype", b.EmbedDtype, (*Ask).embedDtype}, {"output_dtype", b.OutputDtype, (*Ask).outputDtype}, {"endianness", b.Endianness, (*Ask).endianness},
	} {
		if rawjson.Given(f.raw) {
			if err := f.read(a, f.name, f.raw); err != nil {
				return err
			}
		}
	}
	return nil
}

// dimensions refuses any size of vectors but the model's; 0 stands for that.
func (a *Ask) dimensions(name string, raw rawjson.Raw) error {
	if n, ok := rawjson.Number(raw); !ok || n != 0 && n != float64(a.Service.Dimension) {
		return fault(name, "'%s' must be %d, which the vectors of %s have", name, a.Service.Dimension, a.Service.Model)
	}
	return nil
}

// truncateTokens refuses to read less of a text than the model does; -1 stands for that.
func (a *Ask) truncateTokens(name string, raw rawjson.Raw) error {
	if n, ok := rawjson.Number(raw); !ok || n != -1 && n < float64(a.Service.ContextLength) {
		return fault(name, "'%s' must be -1, or at least %d, which the model reads", name, a.Service.ContextLength)
	}
	return nil
}

// encoding reads how vectors are to be written: a name, or an array of one.
func (a *Ask) encoding(name string, raw rawjson.Raw) error {
	if rawjson.Elements(raw) == 1 {
		rawjson.EachElement(raw, func(element []byte) { raw = element })
	}
	value, err := choice(name, raw, "float", "base64")
	a.Base64 = a.Base64 || value == "base64"
	return err
}

// truncation reads whether texts may be cut: unless it is said they may.
func (a *Ask) truncation(name string, raw rawjson.Raw) error {
	value, _ := text(raw)
	switch {
	case string(raw) == "true", value == "END", value == "START":
	case string(raw) == "false", value == "NONE":
		a.Whole = true
	default:
		return fault(name, `'%s' must be true, false, "NONE" or "END"`, name)
	}
	return nil
}

// choice reads a string that must be one of the values.
func choice(name string, raw rawjson.Raw, values ...string) (string, error) {
	value, _ := text(raw)
	if !slices.Contains(values, value) {
		return "", fault(name, `'%s' must be "%s"`, name, strings.Join(values, `" or "`))
	}
	return value, nil
}

// dtype and endianness refuse any numbers but those that base64 has.
func (a *Ask) outputDtype(name string, raw rawjson.Raw) error {
	_, err := choice(name, raw, "float")
	return err
}

func (a *Ask) embedDtype(name string, raw rawjson.Raw) error {
	_, err := choice(name, raw, "float32")
	return err
}

func (a *Ask) endianness(name string, raw rawjson.Raw) error {
	_, err := choice(name, raw, "native", "little")
	return err
}

// items reads the texts and images of a body, in whichever field they are: the first one that is there, in the order below. Others
// are not looked at, but for texts and images, which may both be there. The same texts and images are the same items in every form.
func (a *Ask) items(b *Body) (err error) {
	modality := "text"
	if rawjson.Given(b.Modality) {
		if modality, err = choice("modality", b.Modality, "text", "image"); err != nil {
			return err
		}
	}
	switch images := modality == "image"; {
	case rawjson.Given(b.Input): // OpenAI, infinity, Jina, and nearly all
		return a.list("input", b.Input, images)
	case rawjson.Given(b.Messages): // vLLM
		return a.messages(b.Messages)
	case rawjson.Given(b.Content): // llama.cpp
		return a.list("content", b.Content, images)
	case rawjson.Given(b.Texts), rawjson.Given(b.Images): // Cohere, Weaviate
		return a.textsAndImages(b)
	case rawjson.Given(b.Inputs): // TEI, Hugging Face, Cohere, Voyage
		return a.list("inputs", b.Inputs, images)
	case rawjson.Given(b.Prompt): // Ollama
		return a.list("prompt", b.Prompt, images)
	}
	return fault("input", "Missing 'input': send a string, or an array of strings")
}

// textsAndImages reads the texts and then the images. One of the two may be missing or empty.
func (a *Ask) textsAndImages(b *Body) error {
	for _, f := range [...]struct {
		name   string
		raw    rawjson.Raw
		images bool
	}{{"texts", b.Texts, false}, {"images", b.Images, true}} {
		if !rawjson.Given(f.raw) || f.raw[0] == '[' && rawjson.Elements(f.raw) == 0 {
			continue
		}
		if err := a.list(f.name, f.raw, f.images); err != nil {
			return err
		}
	}
	if len(a.Items) == 0 {
		return fault("texts", "'texts' and 'images' are empty")
	}
	return nil
}

// list adds the item that a field has, or the array of at least one, of which each may have any known form. Strings are images,
// which means base64 or an address, if images says so or if they are data URIs of images, and otherwise texts. In the field "texts"
// they are always texts. raw must not be empty.
func (a *Ask) list(field string, raw rawjson.Raw, images bool) error {
	if raw[0] != '[' || isTokens(raw) {
		return a.item(field, -1, raw, images)
	}
	n := rawjson.Elements(raw)
	if n == 0 {
		return fault(field, "'%s' is empty", field)
	}
	if n += len(a.Items); n > MaxItems {
		return fault(field, "Too many items in '%s': %d, at most %d are allowed", field, n, MaxItems)
	}
	a.Items = slices.Grow(a.Items, n-len(a.Items))
	return each(raw, func(at int, element rawjson.Raw) error { return a.item(field, at, element, images) })
}

// item adds what one element of a field has, see list. at is its number, below 0 where the field has no array.
func (a *Ask) item(field string, at int, raw rawjson.Raw, images bool) error {
	a.Items = append(a.Items, Item{field: field, at: at})
	item := &a.Items[len(a.Items)-1]
	switch {
	case raw[0] == '"' && (images || field != "texts" && isDataURI(raw)):
		return item.image(raw)
	case raw[0] == '"':
		return item.text(raw)
	case raw[0] == '{':
		return item.object(raw)
	case isNumber(raw[0]), isTokens(raw):
		return fault(field, "'%s' has tokens (numbers): send texts. LangChain's OpenAIEmbeddings does with check_embedding_ctx_length=False", field)
	}
	return fault(item.Name(), "'%s' must be a string, or an object with a text or an image", item.Name())
}

// messages adds one item: the content of the last message of the user.
func (a *Ask) messages(raw rawjson.Raw) error {
	item, content := Item{field: "messages"}, rawjson.Raw(nil)
	if n := rawjson.Elements(raw); n == 0 || n > MaxItems {
		return fault("messages", "'messages' must be an array of 1 to %d messages", MaxItems)
	}
	err := each(raw, func(at int, element rawjson.Raw) error {
		var o object
		if !rawjson.Fields(element, &o) {
			return fault("messages", "messages[%d] is no object", at)
		}
		if role, _ := text(o.Role); role == "user" && rawjson.Given(o.Content) {
			item.at, content = at, o.Content
		}
		return nil
	})
	if err == nil && content == nil {
		err = fault("messages", "'messages' has no message of the user with a content")
	}
	if err == nil {
		err = item.content(content)
	}
	if err == nil {
		a.Items = append(a.Items, item)
	}
	return err
}

// object is an item, a part of one, or a message. Its fields lie in the body.
type object struct {
	Role, Content, Text, Image, URL, Bytes rawjson.Raw

	ImageBase64 rawjson.Raw `json:"image_base64"`
	ImageURL    rawjson.Raw `json:"image_url"`
	Prompt      rawjson.Raw `json:"prompt_string"`
	Media       rawjson.Raw `json:"multimodal_data"`
}

// object takes a JSON object: a text or an image, under one of the names that systems have for them, or parts.
func (i *Item) object(raw rawjson.Raw) error {
	var o object
	switch {
	case !rawjson.Fields(raw, &o):
		return fault(i.Name(), "'%s' is no object that can be read", i.Name())
	case rawjson.Given(o.Content):
		return i.content(o.Content)
	}
	if err := i.part(&o); err != nil {
		return err
	}
	return i.either()
}

// content takes a text, or an array of parts, which are texts and at most one image.
func (i *Item) content(raw rawjson.Raw) error {
	switch {
	case isDataURI(raw):
		return i.image(raw)
	case raw[0] != '[':
		return i.text(raw)
	}
	field := i.Name() + ".content"
	if n := rawjson.Elements(raw); n > MaxItems {
		return fault(field, "Too many parts in '%s': %d, at most %d are allowed", field, n, MaxItems)
	}
	var texts []string
	err := each(raw, func(at int, element rawjson.Raw) (err error) {
		p := Item{field: field, at: at}
		var o object
		switch {
		case isDataURI(element):
			err = p.image(element)
		case element[0] == '"':
			err = p.string(element)
		case rawjson.Fields(element, &o):
			err = p.part(&o)
		default:
			err = fault(p.Name(), "'%s' must be a string, or an object with a text or an image", p.Name())
		}
		switch {
		case err != nil:
			return err
		case p.Text != "":
			texts = append(texts, p.Text)
		}
		if p.IsText() {
			return nil
		} else if !i.IsText() {
			return fault(i.Name(), "'%s' has several images: a vector is of one", i.Name())
		}
		i.Image, i.URL = p.Image, p.URL
		return nil
	})
	if err != nil {
		return err
	}
	i.Text = shorten(strings.Join(texts, "\n"))
	return i.either()
}

// part takes the text and the image that an object has, of which it must have one at least.
func (i *Item) part(o *object) error {
	found := false
	for _, f := range [...]struct {
		raw  rawjson.Raw
		take func(*Item, rawjson.Raw) error
	}{
		{o.Text, (*Item).string}, {o.Prompt, (*Item).prompt}, {o.Image, (*Item).image}, {o.URL, (*Item).image},
		{o.Bytes, (*Item).image}, {o.ImageBase64, (*Item).image}, {o.ImageURL, (*Item).image}, {o.Media, (*Item).media},
	} {
		if !rawjson.Given(f.raw) {
			continue
		}
		found = true
		if err := f.take(i, f.raw); err != nil {
			return err
		}
	}
	if !found {
		return fault(i.Name(), "'%s' has neither 'text' nor 'image'", i.Name())
	}
	return nil
}

// either checks that the item is a text or an image, and not both. White space beside an image is no text.
func (i *Item) either() error {
	switch blank := strings.TrimSpace(i.Text) == ""; {
	case i.IsText() && blank:
		return fault(i.Name(), "'%s' must be a text that is not empty", i.Name())
	case !i.IsText() && !blank:
		return fault(i.Name(), "'%s' has a text and an image: the model makes a vector of one of them, send two items", i.Name())
	case !i.IsText():
		i.Text = ""
	}
	return nil
}

// text takes a JSON string, which must not be blank, for the item's text.
func (i *Item) text(raw rawjson.Raw) error {
	if err := i.string(raw); err != nil {
		return err
	}
	return i.either()
}

// string takes a JSON string for the item's text.
func (i *Item) string(raw rawjson.Raw) error {
	var ok bool
	if i.Text, ok = text(raw); !ok {
		return fault(i.Name(), "'%s' must be a string that is not empty", i.Name())
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return nil
	}
	if half := rawjson.HalfCharacter(string(raw)); half != "" {
		return fault(i.Name(), "'%s' has %s, which is half of a character", i.Name(), half)
	}
	return nil
}

// prompt takes a JSON string with llama.cpp's markers for the item's text.
func (i *Item) prompt(raw rawjson.Raw) error {
	err := i.string(raw)
	i.Text = strings.ReplaceAll(i.Text, Marker, "")
	return err
}

// media takes llama.cpp's array of images, of which there may be one.
func (i *Item) media(raw rawjson.Raw) error {
	if n := rawjson.Elements(raw); raw[0] != '[' || n > 1 {
		return fault(i.Name(), "'%s' must have an array of one image in 'multimodal_data': a vector is of one", i.Name())
	}
	return each(raw, func(_ int, element rawjson.Raw) error { return i.image(element) })
}

// image takes a JSON string for the item's image: its address, or its bytes in base64. It may be in an object with "url".
func (i *Item) image(raw rawjson.Raw) error {
	if raw[0] == '{' {
		var o object
		if rawjson.Fields(raw, &o) && len(o.URL) > 0 {
			raw = o.URL
		}
	}
	switch {
	case raw[0] != '"':
		return fault(i.Name(), "'%s' must have its image as a string", i.Name())
	case !i.IsText():
		return fault(i.Name(), "'%s' has several images: a vector is of one", i.Name())
	case isURL(raw):
		i.URL = raw
	default:
		i.Image = raw
	}
	return nil
}

// each calls do with each element of a JSON array, until there is an error.
func each(raw rawjson.Raw, do func(at int, element rawjson.Raw) error) (err error) {
	at := 0
	rawjson.EachElement(raw, func(element []byte) {
		if err == nil {
			err = do(at, element)
		}
		at++
	})
	return err
}

// text returns a copy of a JSON string, no longer than maxText; ok is false where raw is none.
func text(raw rawjson.Raw) (s string, ok bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	s, ok = rawjson.String(raw)
	return strings.Clone(shorten(s)), ok
}

// shorten returns a text of at most about maxText bytes with the same words. White space is one blank to tokenizers.
func shorten(text string) string {
	if len(text) <= maxText {
		return text
	}
	b := make([]byte, 0, maxText)
	blank := false
	for _, r := range text {
		if unicode.IsSpace(r) {
			blank = len(b) > 0
			continue
		}
		if blank {
			b, blank = append(b, ' '), false
		}
		if len(b)+utf8.RuneLen(r) > maxText {
			break
		}
		b = utf8.AppendRune(b, r)
	}
	return string(b)
}

// isTokens says whether raw is an array that begins with a number.
func isTokens(raw rawjson.Raw) bool {
	return raw[0] == '[' && isNumber(bytes.TrimLeft(raw[1:], " \t\r\n")[0])
}

func isNumber(first byte) bool { return first == '-' || first >= '0' && first <= '9' }

// isDataURI says whether a JSON string is the data URI of an image, and isURL whether it is an address. Slashes may be escaped.
func isDataURI(raw rawjson.Raw) bool { return hasPrefix(raw, "data:image/", `data:image\/`) }
func isURL(raw rawjson.Raw) bool {
	return hasPrefix(raw, "http://", "https://", `http:\/\/`, `https:\/\/`)
}

// hasPrefix compares the start of a JSON string, without regard to case.
func hasPrefix(raw rawjson.Raw, prefixes ...string) bool {
	return raw[0] == '"' && slices.ContainsFunc(prefixes, func(prefix string) bool {
		return len(raw) > len(prefix)+1 && strings.EqualFold(string(raw[1:len(prefix)+1]), prefix)
	})
}
