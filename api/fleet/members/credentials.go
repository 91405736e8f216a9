package members

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/nats-io/nkeys"

	"hailoclip/hailo/safefile"
)

// maxCredentials is how large a file with credentials, or with a certificate, may be in bytes.
const maxCredentials = 64 << 10

// Credentials are all that a node needs to join: where the broker is, how to know it, and by what to be known.
type Credentials struct {
	Node string
	URL  string // tls://host:port
	Seed string // private NKey of a user
	CA   []byte // PEM: the certificate authority of the broker, and no other
}

// Text is the file.
func (c Credentials) Text() []byte {
	return fmt.Appendf(nil, `# Credentials of a node of a hailo-clip fleet. Whoever has this file is that node: keep it secret.
node %s
broker %s
seed %s
%s`, c.Node, c.URL, c.Seed, c.CA)
}

// ReadFile reads credentials. warning says that other users may read them, too.
func ReadFile(path string) (c Credentials, warning string, err error) {
	f, err := safefile.OpenRegular(path)
	if err != nil {
		return c, "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().Perm()&0o077 != 0 {
		warning = fmt.Sprintf("other users of this machine may read the credentials: chmod 600 %s", path)
	}
	data, err := safefile.ReadFile(path, maxCredentials)
	if err != nil {
		return c, warning, err
	}
	if c, err = Parse(data); err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return c, warning, err
}

// Parse reads what Text writes. Its errors repeat nothing of the file, which may be a secret.
func Parse(data []byte) (c Credentials, err error) {
	head, certificates, ok := bytes.Cut(data, []byte("-----BEGIN CERTIFICATE-----"))
	if !ok || len(data) > maxCredentials {
		return c, errors.New("these are no credentials of a node: there is no certificate")
	}
	c.CA = append([]byte("-----BEGIN CERTIFICATE-----"), certificates...)
	number := 0
	for line := range strings.Lines(string(head)) {
		number++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		key, value, _ := strings.Cut(line, " ")
		field := map[string]*string{"node": &c.Node, "broker": &c.URL, "seed": &c.Seed}[key]
		if field == nil || *field != "" || value == "" {
			return Credentials{}, fmt.Errorf("line %d is none of credentials: node, broker and seed, once each, and a certificate", number)
		}
		*field = value
	}
	if err := c.check(); err != nil {
		return Credentials{}, err
	}
	return c, nil
}

func (c Credentials) check() error {
	u, err := url.Parse(c.URL)
	switch {
	case !Name.MatchString(c.Node):
		return errors.New("the node has no name of up to 64 letters, digits, - and _")
	case err != nil || u.Scheme != "tls" || u.Hostname() == "" || u.Port() == "" || u.User != nil || strings.Trim(u.Path, "/") != "":
		return errors.New("the broker is not given as tls://host:port")
	}
	if _, err := c.key(); err != nil {
		return err
	}
	return c.checkCA()
}

// checkCA: all of the rest must be certificates of authorities.
func (c Credentials) checkCA() error {
	for rest := c.CA; len(bytes.TrimSpace(rest)) > 0; {
		block, after := pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" {
			return errors.New("what follows the seed is no certificate in PEM")
		}
		if certificate, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("the certificate cannot be read: %w", err)
		} else if !certificate.IsCA {
			return errors.New("the certificate is not that of an authority")
		}
		rest = after
	}
	return nil
}

func (c Credentials) key() (nkeys.KeyPair, error) {
	pair, err := nkeys.FromSeed([]byte(c.Seed))
	if err != nil {
		return nil, errors.New("the seed is no NKey")
	}
	public, err := pair.PublicKey()
	if err != nil || !nkeys.IsValidPublicUserKey(public) {
		return nil, errors.New("the seed is not the NKey of a user")
	}
	return pair, nil
}

// Public is the public half of the key.
func (c Credentials) Public() (string, error) {
	pair, err := c.key()
	if err != nil {
		return "", err
	}
	return pair.PublicKey()
}

// Sign signs what the broker wants to have signed.
func (c Credentials) Sign(nonce []byte) ([]byte, error) {
	pair, err := c.key()
	if err != nil {
		return nil, err
	}
	defer pair.Wipe()
	return pair.Sign(nonce)
}

// TLS verifies the broker by its own authority alone.
func (c Credentials) TLS() *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.CA)
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}
}
