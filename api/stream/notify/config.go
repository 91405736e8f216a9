package notify

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"hailoclip/api/stream/event"
	"hailoclip/hailo/safefile"
)

const (
	maxWebhooks   = 32
	maxSecretFile = 65535 // bytes, as MQTT has it
	maxPEMFile    = 1 << 20
)

// Config is the section "notify" of the configuration. Targets come from there alone, never from callers.
type Config struct {
	Webhooks []Webhook `yaml:"webhooks"` // at most maxWebhooks
	MQTT     MQTT      `yaml:"mqtt"`
}

// Webhook is an address that gets a POST for each event, signed as https://www.standardwebhooks.com has it.
type Webhook struct {
	URL        Address       `yaml:"url"`         // http or https; user and password become basic authentication
	Secret     Secret        `yaml:"secret"`      // base64 of 24 to 64 bytes, with or without whsec_ before it; "": not signed
	SecretFile string        `yaml:"secret_file"` // that has it instead
	Streams    []string      `yaml:"streams"`     // by id; none: all that have a name
	Events     []string      `yaml:"events"`      // enter, exit, state
	Cooldown   time.Duration `yaml:"cooldown" bounds:"0 to 24h"`
	Timeout    time.Duration `yaml:"timeout" bounds:"100ms to 1m"` // of an attempt
	Retries    int           `yaml:"retries" bounds:"0 to 10"`     // after the first attempt
	Thumbnail  string        `yaml:"thumbnail" bounds:"none, embed"`
}

// SetDefaults is called for each item of the list before its keys are read.
func (w *Webhook) SetDefaults() {
	*w = Webhook{Events: []string{string(event.Enter), string(event.Exit)}, Timeout: 10 * time.Second, Retries: 3, Thumbnail: "none"}
}

// MQTT says which broker is told.
type MQTT struct {
	URL          string `yaml:"url"` // mqtt or mqtts; "": none
	Username     string `yaml:"username"`
	Password     Secret `yaml:"password"`
	PasswordFile string `yaml:"password_file"`                       // that has it instead
	ClientID     string `yaml:"client_id" bounds:"at most 64 bytes"` // "": hailo-clip- and the name of the host

	CAFile     string `yaml:"ca_file"` // PEM; "": the system's
	CertFile   string `yaml:"cert_file"`
	KeyFile    string `yaml:"key_file"`
	ServerName string `yaml:"server_name"` // in the broker's certificate; "": the host of URL
	Insecure   bool   `yaml:"insecure"`    // the broker's certificate is not checked

	Prefix          string            `yaml:"prefix"`           // of all topics but those of discovery; one for each service
	DiscoveryPrefix string            `yaml:"discovery_prefix"` // of Home Assistant; "": it is told nothing
	DeviceClasses   map[string]string `yaml:"device_classes"`   // of Home Assistant's binary sensors, by label
}

var (
	deviceClass = regexp.MustCompile(`^[a-z_]{1,32}$`)
	kinds       = []string{string(event.Enter), string(event.Exit), string(event.State)}
	schemes     = map[string]string{"mqtt": "1883", "mqtts": "8883"} // and their ports
)

// Check calls fault for each rule that c breaks and that the bounds of its fields cannot say, with the key of the field and what
// is wrong. Secrets are not in it.
func (c Config) Check(fault func(field, format string, args ...any)) {
	if len(c.Webhooks) > maxWebhooks {
		fault("webhooks", "has %d items, more than %d", len(c.Webhooks), maxWebhooks)
	}
	for i, w := range c.Webhooks {
		w.check(func(field, format string, args ...any) {
			fault(fmt.Sprintf("webhooks[%d].%s", i, field), format, args...)
		})
	}
	c.MQTT.check(func(field, format string, args ...any) { fault("mqtt."+field, format, args...) })
}

func (w Webhook) check(fault func(field, format string, args ...any)) {
	if u, err := url.Parse(string(w.URL)); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Fragment != "" {
		fault("url", "is out of bounds: an address such as https://example.org/hook")
	} else if strings.HasSuffix(u.Path, "/"+hidden) {
		fault("url", "has %s, which stands for what is not shown", hidden)
	}
	if w.Secret != "" && w.SecretFile != "" {
		fault("secret", "must not be given with secret_file")
	} else if _, err := w.Secret.key(); err != nil {
		fault("secret", "is out of bounds: %w", err)
	}
	if len(w.Events) == 0 {
		fault("events", "is empty: leave it out for enter and exit")
	}
	for _, kind := range w.Events {
		if !slices.Contains(kinds, kind) {
			fault("events", "%q is out of bounds: %s", kind, strings.Join(kinds, ", "))
		}
	}
	for _, id := range w.Streams {
		if !event.ValidName(id) {
			fault("streams", "%q is no id of a stream", id)
		}
	}
}

func (m MQTT) check(fault func(field, format string, args ...any)) {
	if m.URL != "" {
		u, err := url.Parse(m.URL)
		if err != nil || schemes[u.Scheme] == "" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			fault("url", `is out of bounds: an address such as mqtt://broker.local or mqtts://broker.local:8883, with username `+
				`and password in keys of their own; or ""`)
		}
	}
	if m.Password == hidden {
		fault("password", "is %s, which stands for what is not shown", hidden)
	}
	if m.Password != "" && m.PasswordFile != "" {
		fault("password", "must not be given with password_file")
	}
	if (m.CertFile == "") != (m.KeyFile == "") {
		fault("cert_file", "and key_file must be given together")
	}
	const level = "levels with / between them, without + # $ and control characters, at most 128 bytes"
	if !validPrefix(m.Prefix) {
		fault("prefix", "%q is out of bounds: %s", m.Prefix, level)
	}
	if m.DiscoveryPrefix != "" && !validPrefix(m.DiscoveryPrefix) {
		fault("discovery_prefix", `%q is out of bounds: %s; or ""`, m.DiscoveryPrefix, level)
	}
	if !validText(m.ClientID) {
		fault("client_id", "%q has control characters", m.ClientID)
	}
	if !validText(m.Username) || len(m.Username) > maxSecretFile {
		fault("username", "has control characters, or more than %d bytes", maxSecretFile)
	}
	if len(m.Password) > maxSecretFile {
		fault("password", "has more than %d bytes", maxSecretFile)
	}
	for label, class := range m.DeviceClasses {
		if !deviceClass.MatchString(class) {
			fault("device_classes", "%q of %q is out of bounds: a device class of Home Assistant's binary sensors", class, label)
		}
	}
}

func validPrefix(p string) bool {
	return len(p) <= 128 && validText(p) && !strings.ContainsAny(p, "+#$") && !slices.Contains(strings.Split(p, "/"), "")
}

func validText(s string) bool {
	return strings.ToValidUTF8(s, "") == s && !strings.ContainsFunc(s, unicode.IsControl)
}

const hidden = "***"

// Secret is a text that is written as *** wherever it is shown.
type Secret string

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString is String; MarshalText writes it, UnmarshalText reads the secret itself.
func (s Secret) GoString() string                 { return s.String() }
func (s Secret) MarshalText() ([]byte, error)     { return []byte(s.String()), nil }
func (s *Secret) UnmarshalText(text []byte) error { *s = Secret(text); return nil }

// key is the key that a webhook is signed with; nil: none.
func (s Secret) key() ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(string(s), "whsec_"))
	if err != nil || len(key) < 24 || len(key) > 64 {
		return nil, errors.New(`base64 of 24 to 64 bytes, with or without whsec_ before it; "openssl rand -base64 32" makes one`)
	}
	return key, nil
}

// Address is a URL that may have credentials in it, also as a part of its path: all behind the host is written as ***.
type Address string

func (a Address) String() string {
	u, err := url.Parse(string(a))
	switch {
	case a == "":
		return ""
	case err != nil || u.Host == "":
		return hidden
	case u.User == nil && u.RawQuery == "" && (u.Path == "" || u.Path == "/"):
		return string(a)
	}
	return u.Scheme + "://" + u.Host + "/" + hidden
}

// GoString is String; MarshalText writes it, UnmarshalText reads the address itself.
func (a Address) GoString() string                 { return a.String() }
func (a Address) MarshalText() ([]byte, error)     { return []byte(a.String()), nil }
func (a *Address) UnmarshalText(text []byte) error { *a = Address(text); return nil }

// orFile returns s, or what the file has, without white space around it.
func (s Secret) orFile(file string) (Secret, error) {
	if file == "" {
		return s, nil
	}
	text, err := safefile.ReadFile(file, maxSecretFile)
	if err != nil {
		return "", err
	}
	if text = bytes.TrimSpace(text); len(text) == 0 {
		return "", fmt.Errorf("%s is empty", file)
	}
	return Secret(text), nil
}

// tls returns the configuration of TLS, for schemes that have it.
func (m MQTT) tls() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: m.ServerName, InsecureSkipVerify: m.Insecure}
	if m.CAFile != "" {
		pem, err := safefile.ReadFile(m.CAFile, maxPEMFile)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate in PEM", m.CAFile)
		}
	}
	if m.CertFile == "" {
		return c, nil
	}
	cert, err := safefile.ReadFile(m.CertFile, maxPEMFile)
	if err != nil {
		return nil, err
	}
	key, err := safefile.ReadFile(m.KeyFile, maxPEMFile)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %w", m.CertFile, m.KeyFile, err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}
