package configs

import (
	"fmt"
	"reflect"
	"strings"
)

// Files are the paths of the files that the service reads because the configuration names them, by key: of prompts, secrets,
// certificates and keys.
func (c Config) Files() map[string]string {
	files := map[string]string{}
	filesIn(files, settings("", reflect.ValueOf(&c).Elem()))
	return files
}

func filesIn(files map[string]string, all []setting) {
	for _, s := range all {
		switch {
		case s.Kind() == reflect.Slice && s.Type().Elem().Kind() == reflect.Struct:
			for i := range s.Len() {
				filesIn(files, settings(fmt.Sprintf("%s[%d].", s.key, i), s.Index(i)))
			}
		case s.Kind() == reflect.String && strings.HasSuffix(s.key, "_file") && s.key != "text_embedding.cache_file" && s.String() != "":
			files[s.key] = s.String()
		}
	}
}
