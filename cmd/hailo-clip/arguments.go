package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"hailoclip/configs"
	"hailoclip/hailo/safefile"
)

// rawArguments has kong take texts byte for byte, and durations as the configuration has them, "5" or
// "500ms". Its own mappers send texts through JSON, which has another name for a file whose name is
// not UTF-8.
func rawArguments() []kong.Option {
	return []kong.Option{
		kong.KindMapper(reflect.String, rawText(func(text string) (string, error) { return text, nil })),
		kong.NamedMapper("path", rawText(filepath.Abs)),
		kong.NamedMapper("existingfile", existing(false, safefile.ErrNotRegular)),
		kong.NamedMapper("existingdir", existing(true, errors.New("not a folder"))),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
			token, err := ctx.Scan.PopValue("duration")
			if err != nil {
				return err
			}
			d, err := configs.ParseDuration(token.String(), time.Second)
			target.SetInt(int64(d))
			return err
		})),
	}
}

// existing takes the name of a folder, or of anything else, that is there.
func existing(folder bool, otherwise error) kong.MapperFunc {
	return rawText(func(name string) (string, error) {
		info, err := os.Stat(name)
		if err == nil && info.IsDir() != folder {
			err = fmt.Errorf("%s: %w", name, otherwise)
		}
		return name, err
	})
}

func rawText(convert func(string) (string, error)) kong.MapperFunc {
	return func(ctx *kong.DecodeContext, target reflect.Value) error {
		token, err := ctx.Scan.PopValue("text")
		if err != nil {
			return err
		}
		text, err := convert(token.String())
		switch {
		case err != nil:
			return err
		case target.Kind() == reflect.Slice: // a flag that is given several times
			target.Set(reflect.Append(target, reflect.ValueOf(text)))
		default:
			target.SetString(text)
		}
		return nil
	}
}

// checkText refuses a prompt that the service would refuse.
func checkText(what, text string) error {
	switch {
	case !utf8.ValidString(text):
		return usageError{errors.New(what + " is not UTF-8")}
	case strings.TrimSpace(text) == "":
		return usageError{errors.New(what + " is empty")}
	}
	return nil
}

// checkPrompts is checkText for the values of --prompt.
func checkPrompts(prompts []string) error {
	for i, prompt := range prompts {
		if err := checkText(fmt.Sprintf("--prompt number %d", i+1), prompt); err != nil {
			return err
		}
	}
	return nil
}
