package configs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDangers(t *testing.T) {
	const keys = "access: {keys: [{name: a, hash: 0101010101010101010101010101010101010101010101010101010101010101}]}\n"
	dir := t.TempDir()
	secret, open := filepath.Join(dir, "secret.pem"), filepath.Join(dir, "open.pem")
	for name, mode := range map[string]os.FileMode{secret: 0o640, open: 0o644} {
		if err := os.WriteFile(name, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ text, want string }{
		{"", ""},
		{keys, "access.keys: "},
		{keys + "server: {host: '::'}\n", "access.keys: "},
		{keys + "server: {host: 203.0.113.7}\n", "access.keys: "},
		{keys + "server: {host: clip.example}\n", "access.keys: "},
		{keys + "server: {host: 127.0.0.1}\n", ""},
		{keys + "server: {host: localhost}\n", ""},
		{keys + "server: {host: '[::1]'}\n", ""},
		{keys + "server: {host: 192.168.1.2}\n", ""},
		{keys + "server: {trusted_proxies: [10.0.0.1]}\n", ""},
		{keys + "server: {tls: {cert_file: a, key_file: " + secret + "}}\n", ""},
		{"server: {tls: {cert_file: a, key_file: " + open + "}}\n", "server.tls.key_file: "},
		{"server: {tls: {cert_file: a, key_file: /does/not/exist}}\n", ""},
		{"server: {allowed_origins: ['*']}\n", "server.allowed_origins: "},
		{"admin: {listen: 0.0.0.0:5001}\n", "admin.listen: "},
		{keys + "server: {host: 127.0.0.1}\nadmin: {listen: '[::]:5001'}\n", "admin.listen: "},
		{"admin: {listen: ':5001'}\n", "admin.listen: "},
		{"admin: {listen: 192.168.1.2:5001}\n", ""},
		{"admin: {listen: 'localhost:5001'}\n", ""},
		{"admin: {listen: main}\n", ""},
		{"admin: {listen: ''}\n", ""},
		{keys + "server: {host: 127.0.0.1}\ncompat: {immich: {listen: ':3003'}}\n", "compat.immich.listen: "},
		{keys + "server: {host: 127.0.0.1}\ncompat: {immich: {listen: 192.168.1.2:3003}}\n", ""},
		{"compat: {immich: {listen: ':3003'}}\n", ""},
		{keys + "server: {host: 127.0.0.1, allowed_origins: ['*']}\n", ""},
	} {
		got := mustLoad(t, tt.text).Dangers()
		if len(got) > 1 || len(got) == 1 != (tt.want != "") || len(got) == 1 && (!strings.HasPrefix(got[0], tt.want) || !strings.Contains(got[0], "; write ")) {
			t.Errorf("%s: %q, want %q", tt.text, got, tt.want)
		}
	}
	for text, told := range map[string]string{
		"": "everybody who reaches", "server: {host: '::'}\n": "everybody who reaches", "server: {host: 192.168.1.2}\n": "network of 192.168.1.2",
		"server: {host: 127.0.0.1}\n": "", "server: {host: '::1'}\n": "", keys: "",
		keys + "compat: {immich: {listen: 192.168.1.2:3003}}\n":                     "192.168.1.2:3003",
		keys + "compat: {immich: {listen: ':3003'}}\n":                              "", // it is a danger
		keys + "compat: {immich: {listen: 127.0.0.1:3003}}\n":                       "",
		"server: {host: 127.0.0.1}\ncompat: {immich: {listen: ':3003'}}\n":          "compat.immich.listen",
		"server: {host: 127.0.0.1}\ncompat: {immich: {listen: 'localhost:3003'}}\n": "",
	} {
		if got := mustLoad(t, text).Exposure(); (got == "") != (told == "") || !strings.Contains(got, told) {
			t.Errorf("%s: %q, want %q", text, got, told)
		}
	}
}
