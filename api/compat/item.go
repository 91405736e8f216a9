package compat

import (
	"bytes"
	"strconv"
	"strings"

	"hailoclip/api/rawjson"
)

// Item is a text or an image.
type Item struct {
	Text  string // not looked at where one of the others is set
	Image []byte // a JSON string: the image in base64, with a data URI's prefix or not
	File  []byte // the image itself
	URL   []byte // a JSON string: where the image is

	field string // of the request
	at    int    // its number there; below 0: it is no list
}

// Name is how messages call the item, such as "input[3]".
func (i *Item) Name() string {
	if i.at < 0 {
		return i.field
	}
	return i.field + "[" + strconv.Itoa(i.at) + "]"
}

// IsText says that the item is a text.
func (i *Item) IsText() bool { return i.Image == nil && i.File == nil && i.URL == nil }

// adding returns what adds an item that read has read.
func (a *Ask) adding(read func(*Item, rawjson.Raw) error) func(Item, rawjson.Raw) error {
	return func(item Item, raw rawjson.Raw) error {
		err := read(&item, raw)
		a.Items = append(a.Items, item)
		return err
	}
}

// list adds the item that a field has, or those of an array of at least one, see item. raw must not be empty.
func (a *Ask) list(field string, raw rawjson.Raw, images bool) error {
	if isTokens(raw) {
		return a.item(Item{field: field, at: -1}, raw, images)
	}
	return a.oneOrMore(field, raw, func(item Item, raw rawjson.Raw) error { return a.item(item, raw, images) })
}

// oneOrMore has add add the item that a field has, or those of an array of at least one. raw must not be empty.
func (a *Ask) oneOrMore(field string, raw rawjson.Raw, add func(Item, rawjson.Raw) error) error {
	if raw[0] != '[' {
		return add(Item{field: field, at: -1}, raw)
	}
	before := len(a.Items)
	err := a.array(field, raw, add)
	if err == nil && len(a.Items) == before {
		err = fault(field, "'%s' is empty", field)
	}
	return err
}

// item adds an item, which may have any known form. Strings are images, which means base64 or an address, if images says so or if they
// are data URIs of images, and otherwise texts. In the field "texts" they are always texts.
func (a *Ask) item(item Item, raw rawjson.Raw, images bool) error {
	a.Items = append(a.Items, item)
	switch i := &a.Items[len(a.Items)-1]; {
	case raw[0] == '"' && (images || i.field != "texts" && isDataURI(raw)):
		return i.image(raw)
	case raw[0] == '"':
		return i.text(raw)
	case raw[0] == '{':
		return i.object(raw)
	case isNumber(raw[0]), isTokens(raw):
		return fault(i.field, "'%s' has tokens (numbers): send texts. LangChain's OpenAIEmbeddings does with check_embedding_ctx_length=False", i.field)
	default:
		return i.neither()
	}
}

// neither is the error for a value that is no item.
func (i *Item) neither() error {
	return fault(i.Name(), "'%s' must be a string, or an object with a text or an image", i.Name())
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
	return i.check()
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
			err = p.neither()
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
	return i.check()
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

// check checks that the item is a text or an image, and not both. White space beside an image is no text.
func (i *Item) check() error {
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
	return i.check()
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
